"""From a run, or its weights alone, to answers: one file or many, evaluation, and what the command line prints."""

import csv
import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naming import naming
from safetensors.torch import save_file
from small_sets import LEVELS, command, pictures, spoil, tiny_config, write_image, write_sounds, write_videos
from test_workers import TOLD, pids

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import Views, load_views, views
from tubelet.data.items import Item
from tubelet.evaluate.clips import evaluate, measure_answers, read_used
from tubelet.media.reader import MediaError
from tubelet.media.workers import Workers
from tubelet.media.writer import write_video
from tubelet.nn import create_model
from tubelet.predict.answer import CLIPS, Answer, answer, parse_views
from tubelet.predict.predictor import Predictor, find_files
from tubelet.predict.runtimes import OnnxRuntime
from tubelet.predict.tables import keep_rows, write_labelled, write_table
from tubelet.tasks import Classification
from tubelet.train.train import train_fn
from tubelet.weights.store import save

NBSP = "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with a test split: 4 training clips of each class, 1 in val, 2 in test."""
    folder = tmp_path_factory.mktemp("data")
    for split, first, clips in (("train", 0, 4), ("val", 10, 1), ("test", 20, 2)):
        write_videos(folder / split, clips, first=first)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_fn(tiny_config(data, tmp_path_factory.mktemp("run") / "run", epochs=6), show=False)


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return Predictor.load(run, device="cpu")


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "bad [red].mp4").write_bytes(b"")
    spoil(tmp_path / "bad [red].mp4")
    return tmp_path / "bad [red].mp4"


# ---- predictions


def test_a_prediction_names_the_likeliest_class(predictor: Predictor, data: Path) -> None:
    for name in LEVELS:
        found = predictor.predict(data / "test" / name / "20.mp4")
        assert (found.label, found.status) == (name, "ok")
        assert list(found.probabilities.values()) == sorted(found.probabilities.values(), reverse=True)
        assert next(iter(found.probabilities.items())) == (found.label, found.probability)
        assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert set(found.probabilities) == set(LEVELS)


def test_a_prediction_is_the_mean_of_the_logits_of_its_views(predictor: Predictor, data: Path) -> None:
    file = data / "test" / "dark" / "21.mp4"
    clips = views(file, predictor.spec, temporal=2, spatial=3)
    with torch.inference_mode():
        expected = predictor.model(clips).mean(0).softmax(0)
    found = predictor.predict(file, views="2x3")
    for number, name in enumerate(predictor.classes):
        assert found.probabilities[name] == pytest.approx(float(expected[number]), abs=1e-6)
    assert found != predictor.predict(file)


def test_many_files_keep_their_order_and_bad_ones_their_place(predictor: Predictor, data: Path, bad: Path) -> None:
    files = [*sorted(data.glob("*/*/*.mp4")), bad, data / "missing.mp4", *sorted(data.glob("test/dark/*.mp4"))]
    seen: list[str] = []
    found = predictor.predict_files(files, workers=3, after=lambda one: seen.append(one.path))
    assert [one.path for one in found] == seen == [str(file) for file in files]
    unreadable = {one.path: one for one in found if one.label is None}
    assert set(unreadable) == {str(bad), str(data / "missing.mp4")}
    assert unreadable[str(bad)].code == "not-video"
    assert unreadable[str(bad)].probability is None
    assert unreadable[str(bad)].probabilities == {}
    alone = predictor.predict(files[-1])  # kernels may round otherwise for another number of clips
    assert found[-1].probabilities == pytest.approx(alone.probabilities, abs=1e-6)
    assert replace(found[-1], probability=None, probabilities={}) == replace(alone, probability=None, probabilities={})


@pytest.mark.parametrize("kind", ["image", "sound"])
def test_a_file_of_another_kind_is_refused_and_does_not_stop_the_others(
    predictor: Predictor, data: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "image":
        other = tmp_path / "a.png"
        write_image(other, pictures(60, [0])[0])
    else:
        other = write_sounds(tmp_path, 1) / "low" / "0.wav"
    good = data / "test" / "dark" / "20.mp4"
    found = predictor.predict_files([other, good])
    assert [one.label for one in found] == [None, "dark"]
    with pytest.raises(ValueError, match=naming(other, repr(kind), "'video'")):
        predictor.predict(other)


def test_a_clip_shorter_than_the_span_holds_its_last_frame(predictor: Predictor, tmp_path: Path) -> None:
    still = pictures(60, [3], frames=1)
    write_video(tmp_path / "one.mp4", still)
    write_video(tmp_path / "eight.mp4", still.repeat(8, axis=0), crf=0)
    one, eight = (predictor.predict(tmp_path / name) for name in ("one.mp4", "eight.mp4"))
    assert one.label == eight.label == "dark"
    assert one.probability == pytest.approx(eight.probability, abs=0.02)


# ---- files of which the decoder dies


@pytest.fixture
def deadly(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A class folder more than the test split has, of the same kind, in which a file kills the children that look."""
    folder = shutil.copytree(data / "test", tmp_path / "deadly")
    shutil.move(folder / "dark" / "20.mp4", folder / "dark" / "segv.mp4")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tubelet.data.health_cache.Workers", lambda: Workers(TOLD))
    return folder


@pytest.mark.parametrize("verb", ["predict", "eval"])
def test_the_file_of_which_the_decoder_dies_is_named_and_the_others_are_answered(
    run: Path, deadly: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(verb, run, deadly, "--json", "--device", "cpu") == 3
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    killer = deadly / "dark" / "segv.mp4"
    if verb == "predict":
        assert [one["code"] for one in lines] == ["ok", "ok", "ok", "decoder-crash"]
        assert [one["label"] for one in lines] == ["bright", "bright", "dark", None]
        assert (lines[3]["path"], "Segmentation fault" in lines[3]["status"]) == (str(killer), True)
    else:
        assert (lines[0]["clips"], lines[0]["failed"], lines[0]["accuracy"]) == (3, 1, 1.0)
        assert [(one["path"], one["code"]) for one in lines[0]["failures"]] == [("dark/segv.mp4", "decoder-crash")]
    assert len(pids(deadly)) == 5


def test_files_are_looked_at_once(predictor: Predictor, deadly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a file alone never: to start a process takes longer."""
    monkeypatch.setattr("tubelet.predict.predictor.MANY", 3)
    monkeypatch.chdir(deadly)
    paths = ["bright/20.mp4", "dark/../bright/21.mp4", str(deadly / "dark" / "segv.mp4"), "bright/20.mp4", "", "gone"]
    assert predictor.predict(paths[2]).code == "ok"
    assert pids(deadly) == []
    for _ in range(2):
        codes = [one.code for one in predictor.predict_files(paths)]
        assert codes == ["ok", "ok", "decoder-crash", "ok", "not-a-file", "missing"]
        assert [len(pids(deadly, name)) for name in ("20.mp4", "21.mp4", "segv.mp4")] == [1, 1, 2]
    assert predictor.predict_files([]) == []


def test_rows_are_on_the_disk_as_soon_as_they_are_known(
    predictor: Predictor, run: Path, deadly: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, part = tmp_path / "p.csv", tmp_path / "p.csv.part"
    answers = predictor.predict_files(sorted(deadly.glob("*/*.mp4")))
    with suppress(KeyboardInterrupt), keep_rows(predictor.task, table) as keep:
        for number, one in enumerate(answers):
            keep(one)
            assert len(read_csv(part)) == number + 1
        raise KeyboardInterrupt
    write_table(answers, predictor.task, table)
    assert table.read_bytes() == part.read_bytes()
    typed = ("predict", run, deadly, "--csv", table, "--device", "cpu")
    assert command(*typed) == 3
    assert not part.exists()
    part.write_text("not ours")
    assert command(*typed) == 2
    assert part.read_text() == "not ours"
    part.unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(table))

    monkeypatch.setattr("tubelet.predict.show.write_table", full)
    before = table.read_bytes()
    assert command(*typed) == 4
    assert part.read_bytes() == table.read_bytes() == before


# ---- checkpoints


def test_a_bug_while_reading_is_not_taken_for_a_bad_file(
    predictor: Predictor, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("tubelet.predict.answer.load_views", broken)
    with pytest.raises(ValueError, match="a bug"):
        predictor.predict_files([data / "test" / "dark" / "20.mp4"])


def test_weights_without_class_names_are_refused(tmp_path: Path) -> None:
    save(create_model("vivit1-P/16x4", clip=(4, 32, 32), num_classes=2), tmp_path)
    with pytest.raises(ValueError, match=naming(tmp_path, "tubelet train")):
        Predictor.load(tmp_path, device="cpu")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=naming(tmp_path / "model.safetensors", ".safetensors")):
        Predictor.load(tmp_path, device="cpu")


# ---- views


@pytest.mark.parametrize("text", ["", "1", "x", "0x1", "1x2", "2x", "-1x1", "1.5x1", "1x1x1", "²x1", " 1x1"])
def test_views_that_do_not_read_so_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=naming("views", repr(text), "auto")):
        parse_views(text, "video")


def test_views_are_times_and_places() -> None:
    assert parse_views("4x3", "video") == (4, 3)
    assert parse_views("1x3", "image") == (1, 3)
    assert parse_views("12x1", "sound") == (12, 1)
    assert {parse_views("auto", kind) for kind in ("video", "image", "sound")} == {(None, 1)}
    for text, kind in (("2x1", "image"), ("1x3", "sound")):
        with pytest.raises(ValueError, match=naming("views", repr(text), kind)):
            parse_views(text, kind)  # type: ignore[arg-type]


# ---- clips of many files, answered together


class Counting(torch.nn.Module):
    """A model of two classes that notes how many clips it is given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(clips))
        mean = clips.double().mean((1, 2, 3, 4)) / 100
        return torch.stack([mean, 1 - mean.square()], 1).float()


TWO = Classification(("x", "y"))


@pytest.fixture(scope="module")
def long_and_short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of 1, 2, 8, 29, 31 and 120 frames, 25 a second, each frame darker than the one before."""
    folder = tmp_path_factory.mktemp("lengths")
    for frames in (1, 2, 8, 29, 31, 120):
        write_video(folder / f"{frames:03d}.mp4", darkening(frames), frames_per_second=25)
    return folder


def darkening(frames: int) -> np.ndarray:
    levels = np.linspace(250, 10, frames).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (frames, 32, 40, 3))


SPEC = ClipSpec(
    frames=4, seconds_between_frames=0.04, resize=(32, 40), crop=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3
)  # of 0.16 s: 30 clips show 120 frames


@pytest.mark.parametrize("text", ["auto", "1x1", "3x1", "5x3"])
@pytest.mark.parametrize("order", [1, -1])
def test_files_answered_together_get_the_answers_they_get_alone(long_and_short: Path, text: str, order: int) -> None:
    """Whatever stands beside it, and on which batches its clips fall: the mean of its own."""
    model, seen = Counting(), []
    (long_and_short / "bad.mp4").write_bytes(b"nothing to see here" * 10)
    names = [*sorted(path.name for path in long_and_short.glob("*.mp4")) * 2, "bad.mp4", "gone.mp4"][::order]
    items = [Item(name, "") for name in names]
    found = answer(model, SPEC, TWO, long_and_short, items, views_text=text, after=seen.append)
    assert found == seen
    assert [one.path for one in found] == names
    temporal, spatial = parse_views(text, "video")
    clips = 0
    for one in found:
        if one.path in ("bad.mp4", "gone.mp4"):
            assert (one.values, one.seconds, one.seconds_seen) == (None, None, None)
            assert one.code == {"bad.mp4": "not-video", "gone.mp4": "missing"}[one.path]
            continue
        own = views(long_and_short / one.path, SPEC, temporal=temporal, spatial=spatial)
        clips += len(own)
        assert one.values == pytest.approx(Counting()(own).mean(0).softmax(0).numpy(), abs=1e-6)
        frames = int(one.path[:3])
        assert one.seconds == pytest.approx(frames / 25)
        assert one.seconds_seen == pytest.approx(min(frames / 25, 0.16 * len(own) / spatial))
    assert sum(model.batches) == clips
    assert set(model.batches[:-1]) <= {CLIPS}, "only the last batch is not full"


def test_a_model_gives_one_file_among_many_the_answer_it_gives_it_alone(
    predictor: Predictor, long_and_short: Path
) -> None:
    files = sorted(long_and_short.glob("[01]*.mp4")) * 3
    for one in predictor.predict_files(files):
        alone = predictor.predict(one.path)
        assert alone.seconds_seen == one.seconds_seen
        for name, probability in alone.probabilities.items():
            assert one.probabilities[name] == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize("int8", [True, False])
def test_in_int8_for_onnxruntime_the_company_of_a_clip_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, int8: bool
) -> None:
    """Its scales are those of the batch: here the largest value of it stands for them."""
    monkeypatch.setattr(
        "tubelet.predict.runtimes.open_onnx", lambda file: lambda clips: np.full((len(clips), 2), clips.max())
    )
    _, run = OnnxRuntime().open(Path("model.onnx"), int8=int8, dtype="float32")
    clips = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1, 1)
    assert run(clips)[:, 0].tolist() == ([0, 1, 2] if int8 else [2, 2, 2])


@pytest.mark.parametrize(("name", "text", "views_of_it"), [("120.mp4", "auto", 30), ("001.mp4", "1x1", 1)])
def test_few_clips_are_held_however_many_files_there_are(
    long_and_short: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, views_of_it: int
) -> None:
    read, told, most = [0], [0], [0]

    def load(*arguments: Any, **named: Any) -> Views:
        found = load_views(*arguments, **named)
        assert len(found.clips) == views_of_it
        read[0] += 1  # by one thread
        return found

    def after(one: Answer) -> None:
        most[0] = max(most[0], read[0] - told[0])
        told[0] += 1

    monkeypatch.setattr("tubelet.predict.answer.load_views", load)
    answer(Counting(), SPEC, TWO, long_and_short, [Item(name, "")] * 200, views_text=text, workers=1, after=after)
    assert (read[0], told[0]) == (200, 200)
    assert most[0] * views_of_it <= max(4 * views_of_it, 4 * CLIPS)


def test_answers_over_a_few_images_and_sounds(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", pictures(60, [0])[0])
    still = replace(SPEC, kind="image", frames=1, seconds_between_frames=0.0)
    (one,) = answer(Counting(), still, TWO, tmp_path, [Item("a.png", "")])
    assert (one.seconds, one.seconds_seen) == (0, 0)
    write_sounds(tmp_path, 1, seconds=1.0)
    mel = {"resize": (16, 20), "crop": (16, 20), "mean": (0.0,), "std": (1.0,), "channels": "mel"}
    sound = replace(SPEC, kind="sound", frames=1, seconds_between_frames=0.01, **mel)  # of 0.2 s
    model = Counting()
    (one,) = answer(model, sound, TWO, tmp_path, [Item("low/0.wav", "")])
    assert (one.seconds, one.seconds_seen, model.batches) == (pytest.approx(1), pytest.approx(1), [5])


# ---- results


def test_files_that_could_not_be_read_count_as_wrong_in_all(tmp_path: Path) -> None:
    chances = np.array([0.8, 0.2])
    answers = [
        Answer(Item("a", "x"), chances),
        Answer(Item("b", "y"), chances, seconds=2.0, seconds_seen=1.5),
        Answer(Item("c", "x"), None, "b: broken, it is.", "damaged"),
    ]
    results = measure_answers(answers, TWO, split=None, views="1x1").to_json()
    assert (results["accuracy"], results["accuracy_all"], results["failed"]) == (0.5, 1 / 3, 1)
    assert (results["seconds"], results["seconds_seen"]) == (2.0, 1.5)
    write_labelled(answers, TWO, tmp_path / "p.csv")
    rows = read_csv(tmp_path / "p.csv")
    assert [row["status"] for row in rows] == ["ok", "ok", "b: broken, it is."]
    assert [row["code"] for row in rows] == ["ok", "ok", "damaged"]
    assert [(row["label"], row["predicted"]) for row in rows] == [("x", "x"), ("y", "x"), ("x", "")]
    assert [(row["seconds"], row["seconds_seen"]) for row in rows] == [("", ""), ("2.000", "1.500"), ("", "")]
    with pytest.raises(ValueError, match=naming(1, "b: broken, it is.")):
        measure_answers(answers[2:], TWO, split=None, views="1x1")


def test_an_answer_is_asked_for_with_valid_views_only(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match=naming("views", "'3'")):
        answer(predictor.model, predictor.spec, predictor.task, Path(), [], views_text="3")


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as table:
        return list(csv.DictReader(table))


# ---- evaluation


def test_evaluation_gives_the_results_of_the_run(predictor: Predictor, run: Path, data: Path, tmp_path: Path) -> None:
    own = json.loads((run / "results.json").read_text())
    evaluation = evaluate(predictor, data, views=own["views"], csv_file=tmp_path / "p.csv", show=False)
    found = evaluation.to_json()
    assert evaluation.failed == []
    assert {name: own[name] for name in found} == found
    assert (tmp_path / "p.csv").read_bytes() == (run / "predictions.csv").read_bytes()
    assert own["clips"] == 4
    assert evaluate(predictor, data, split="train", show=False).results.clips == 8
    assert evaluate(predictor, data, split="val", views="2x3", show=False).results.clips == 2
    with pytest.raises(ValueError, match=naming(data, "'tset'", "test", "train", "val")):
        evaluate(predictor, data, split="tset", show=False)


def test_a_run_is_not_tested_on_what_it_was_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_videos(tmp_path / "data", 4)
    run = train_fn(tiny_config(data, tmp_path / "run", epochs=1), show=False)
    own = json.loads((run / "results.json").read_text())
    assert len(read_used(run)["train"]) == len(read_used(run / "model.safetensors")["train"]) == 6
    for start in (run, run / "model.safetensors"):
        evaluation = evaluate(Predictor.load(start, device="cpu"), data, views=own["views"], show=True)
        found = evaluation.to_json()
        assert (evaluation.failed, found.pop("split")) == ([], None)
        assert {name: own[name] for name in found} == found
    assert "note  6 clips" in capsys.readouterr().out
    write_videos(data, 1, first=9)  # new ones are
    assert evaluate(Predictor.load(run, device="cpu"), data, show=False).results.clips == 4
    for row in read_csv(run / "predictions.csv"):
        (data / row["path"]).unlink()
    for name in LEVELS:
        (data / name / "9.mp4").unlink()
    with pytest.raises(ValueError, match=naming(data, "trained")):
        evaluate(Predictor.load(run, device="cpu"), data, show=False)
    shutil.copy(run / "model.safetensors", tmp_path / "alone.safetensors")
    assert read_used(tmp_path / "alone.safetensors") == {}
    shutil.rmtree(data)
    assert len(read_used(run)["train"]) == 6


def test_evaluation_needs_classes_that_the_model_knows(predictor: Predictor, tmp_path: Path) -> None:
    data = write_videos(tmp_path, 1, classes=("dark", "grey"))
    with pytest.raises(ValueError, match=naming(data, "grey", "bright", "dark")):
        evaluate(predictor, data, show=False)


def test_one_class_is_enough_to_evaluate(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_videos(tmp_path / "data", 2, classes=("dark",))
    spoil(data / "dark" / "1.mp4")
    found = evaluate(predictor, data, show=True).to_json()
    assert (found["clips"], found["failed"], found["accuracy"], found["accuracy_all"]) == (1, 1, 1.0, 0.5)
    shown = capsys.readouterr().out
    for line in ("Evaluation", f"100.0{NBSP}% right on 1 clip ", "unreadable", "1 file", f"50.0{NBSP}%"):
        assert line in shown
    assert f"{data / 'dark' / '1.mp4'}: " in shown
    spoil(data / "dark" / "0.mp4")
    with pytest.raises(ValueError, match=naming(2, *sorted(data.glob("*/*.mp4")))):
        evaluate(predictor, data, show=False)


# ---- the command line


def test_json_lines(run: Path, data: Path, bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = data / "test" / "dark" / "20.mp4"
    assert command("predict", run, good, bad, "--json", "--device", "cpu") == 3
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["path"], first["label"], first["status"]) == (str(good), "dark", "ok")
    assert list(first["probabilities"]) == ["dark", "bright"]
    assert (second["path"], second["label"], second["probability"]) == (str(bad), None, None)
    assert second["status"].startswith(f"{bad}: ")
    assert (first["code"], second["code"]) == ("ok", "not-video")
    assert command("predict", run, good, "--json", "--device", "cpu") == 0


def test_a_csv_table(run: Path, data: Path, bad: Path, tmp_path: Path) -> None:
    arguments = ("predict", run, data / "test", bad, "--csv", tmp_path / "p.csv", "--device", "cpu", "--workers", "1")
    assert command(*arguments) == 3
    rows = read_csv(tmp_path / "p.csv")
    assert [Path(row["path"]).name for row in rows] == ["20.mp4", "21.mp4", "20.mp4", "21.mp4", bad.name]
    assert [row["predicted"] for row in rows] == ["bright", "bright", "dark", "dark", ""]
    assert all(float(row[f"p:{row['predicted']}"]) == float(row["probability"]) for row in rows[:4])
    assert (rows[4]["probability"], rows[4]["p:dark"]) == ("", "")


def test_folders_are_searched_as_check_does(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "clips", tmp_path / "elsewhere"
    for file in (folder / "deep" / "b.mp4", folder / "a.mp4", folder / ".thumbs" / "c.mp4", elsewhere / "d.mp4"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (folder / "link").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    assert find_files([folder]) == [folder / "a.mp4", folder / "deep" / "b.mp4", folder / "link" / "d.mp4"]


def test_a_folder_that_may_not_be_looked_into_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.mp4").touch()
    listed = os.scandir

    def refuse(path: str | Path) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=naming(tmp_path / "closed")):
        find_files([tmp_path])


def test_a_table_on_the_screen(
    run: Path, data: Path, bad: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tubelet.system.console.console._width", None)
    assert command("predict", run, data / "test" / "dark" / "20.mp4", bad, "--device", "cpu", "--top", "2") == 3
    shown = capsys.readouterr()
    assert "bright" in shown.out
    assert "unreadable" in shown.out
    assert "bad [red].mp4" in shown.out
    assert f"tubelet: {bad}: " in shown.err


@pytest.mark.parametrize("columns", [None, 80])
def test_no_line_is_broken_where_there_is_no_terminal(
    run: Path,
    data: Path,
    tmp_path: Path,
    columns: int | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tubelet.system.console.console._width", columns)  # None: nobody says how wide it is
    file = tmp_path / ("long name " * 20) / "a.mp4"
    file.parent.mkdir()
    shutil.copy(data / "test" / "dark" / "20.mp4", file)
    assert command("predict", run, file, "--device", "cpu") == 0
    assert (str(file) in capsys.readouterr().out) == (columns is None)


def test_how_much_was_looked_at_is_said(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip of the run spans 0.32 s: 32 of them 10.24 s."""
    monkeypatch.setattr("tubelet.system.console.console._width", None)
    short, longer, longest = data / "test" / "dark" / "20.mp4", tmp_path / "longer.mp4", tmp_path / "longest.mp4"
    write_video(longer, darkening(48), frames_per_second=25)
    write_video(longest, darkening(300), frames_per_second=25)
    files = (short, longer, longest)
    assert command("predict", run, *files, "--json", "--device", "cpu") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["seconds"] for one in found] == pytest.approx([0.32, 1.92, 12])
    assert [one["seconds_seen"] for one in found] == pytest.approx([0.32, 1.92, 10.24])
    assert command("predict", run, *files, "--json", "--views", "2x1", "--device", "cpu") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["seconds_seen"] for one in found] == pytest.approx([0.32, 0.64, 0.64])
    assert command("predict", run, *files, "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["looked at" in lines[0], " of " in lines[1], " of " in lines[2]] == [True, False, False]
    assert "10.2 of 12.0 s" in lines[3]
    assert command("predict", run, short, longer, "--device", "cpu") == 0
    assert "looked at" not in capsys.readouterr().out, "all was"
    assert command("predict", run, *files, "--csv", tmp_path / "p.csv", "--device", "cpu") == 0
    assert [row["seconds_seen"] for row in read_csv(tmp_path / "p.csv")] == ["0.320", "1.920", "10.240"]


def test_evaluation_says_how_much_was_looked_at(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dark").mkdir()
    write_video(tmp_path / "dark" / "a.mp4", darkening(300), frames_per_second=25)
    found = evaluate(predictor, tmp_path).to_json()
    assert (found["views"], found["seconds"], found["seconds_seen"]) == ("auto", 12.0, 10.24)
    assert "10.2 of 12.0 s" in capsys.readouterr().out
    assert evaluate(predictor, tmp_path, views="40x1", show=False).to_json()["seconds_seen"] == 12.0


def test_weights_of_others_are_sent_to_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As Hugging Face and timm save them: a model.safetensors and a config.json beside it."""
    folder = tmp_path / "their model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "vivit"}')
    save_file({"vivit.layernorm.weight": torch.ones(4)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=naming(f"tubelet convert '{folder / 'model.safetensors'}'")):
        Predictor.load(folder)
    assert command("predict", folder, "clip.mp4") == 2
    assert "tubelet convert" in capsys.readouterr().err


def test_eval_on_the_command_line(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("eval", run, data, "--views", "2x3", "--csv", tmp_path / "p.csv", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert "Evaluation on test" in shown
    assert f"100.0{NBSP}% right on 4 clips" in shown
    assert len(read_csv(tmp_path / "p.csv")) == 4
    broken = shutil.copytree(data / "test", tmp_path / "broken")
    spoil(broken / "dark" / "20.mp4")
    assert command("eval", run, broken, "--device", "cpu") == 3


def test_folders_are_searched_for_media(data: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no media")
    (tmp_path / ".hidden.mp4").write_text("")
    assert find_files([data / "test"]) == sorted((data / "test").rglob("*.mp4"))
    assert find_files([tmp_path / "b.mp4", tmp_path / "a.mp4"]) == [tmp_path / "b.mp4", tmp_path / "a.mp4"]
    with pytest.raises(ValueError, match=naming(tmp_path, "video", "image", "sound")):
        find_files([tmp_path])
    with pytest.raises(ValueError, match=naming("tubelet predict")):
        find_files([])


@pytest.mark.parametrize("verb", ["eval", "predict"])
def test_where_the_table_goes_is_looked_at_first(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    for place in (tmp_path / "nowhere" / "p.csv", tmp_path):
        assert command(verb, run, data, "--csv", place, "--device", "cpu") == 2
        assert f"tubelet: {place}: " in capsys.readouterr().err


def test_a_file_that_is_no_video_is_named(predictor: Predictor, bad: Path) -> None:
    with pytest.raises(MediaError, match=naming(bad)) as caught:
        views(bad, predictor.spec)
    assert caught.value.code == "not-video"
    with pytest.raises(ValueError, match=naming(bad, "text")):
        predictor.predict(bad)
