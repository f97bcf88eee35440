"""From a data set to a finished run directory: videos, images, sound, tables, bad files, interruptions."""

import csv
import json
import math
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from naming import naming
from safetensors.torch import load_file, save_file
from small_sets import LEVELS, pictures, spoil, tiny_config, write_image, write_images, write_sounds, write_videos

from tubelet.media.writer import write_video
from tubelet.nn import SIZES
from tubelet.predict.predictor import Predictor
from tubelet.runs.run import Run
from tubelet.train.clip_size import affordable_side
from tubelet.train.config import TrainConfig
from tubelet.train.finish import strip_frames
from tubelet.train.loop import Stopped
from tubelet.train.plan import make_plan
from tubelet.train.train import train_fn
from tubelet.train.trainer import Fit

FILES = {
    "README.md",
    "config.json",
    "metrics.jsonl",
    "model.safetensors",
    "predictions.csv",
    "report.html",
    "results.json",
    "split.csv",
}
RANDOM: dict[str, Any] = {"dropout": 0.2, "drop_path": 0.2, "mixup": 0.4, "ema": 0.9}


def train(data: Path, out: Path, **settings: Any) -> Path:
    return train_fn(tiny_config(data, out, **settings), show=False)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as table:
        return list(csv.DictReader(table))


def read_metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos") / "clips", clips=7)


@pytest.fixture(scope="module")
def video_run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(videos, tmp_path_factory.mktemp("run") / "run", baseline=True, epochs=4)


# ---- what a run leaves


def test_every_promised_file_is_there_and_nothing_else(video_run: Path) -> None:
    assert {path.name for path in video_run.iterdir()} == FILES


def test_the_results_are_those_of_the_predictions(video_run: Path) -> None:
    check_results(video_run)
    results = read_json(video_run / "results.json")
    assert (results["split"], results["views"], results["clips"]) == ("val", "auto", 2)
    assert 0 <= results["single_frame"]["accuracy"] <= 1
    assert results["seconds_total"] > 0


def check_results(run: Path) -> None:
    results, rows = read_json(run / "results.json"), read_csv(run / "predictions.csv")
    read = [row for row in rows if row["status"] == "ok"]
    assert results["clips"] == len(read)
    assert results["failed"] == len(rows) - len(read)
    right = sum(row["label"] == row["predicted"] for row in read)
    assert results["accuracy"] == pytest.approx(right / len(read))
    assert results["accuracy_all"] == pytest.approx(right / len(rows))
    for row in read:
        chances = {name[2:]: float(chance) for name, chance in row.items() if name.startswith("p:")}
        assert row["predicted"] == max(chances, key=lambda name: chances[name])
        assert float(row["probability"]) == max(chances.values())
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)


def test_the_split_covers_every_clip_and_the_predictions_the_held_out_ones(videos: Path, video_run: Path) -> None:
    split = {row["path"]: (row["label"], row["split"]) for row in read_csv(video_run / "split.csv")}
    assert set(split) == {path.relative_to(videos).as_posix() for path in videos.glob("*/*.mp4")}
    assert all(label == path.split("/")[0] for path, (label, _) in split.items())
    held_out = {path: label for path, (label, which) in split.items() if which == "val"}
    assert {row["path"]: row["label"] for row in read_csv(video_run / "predictions.csv")} == held_out


def test_the_metrics_tell_of_every_look(video_run: Path) -> None:
    records = read_metrics(video_run)
    looks = [record["step"] for record in records if record["kind"] == "val"]
    assert [record["step"] for record in records if record["kind"] == "train"] == looks
    assert 5 <= len(looks) <= 12
    assert (looks[-1], sorted(set(looks))) == (12, looks)
    assert records[-1]["epoch"] == 4
    assert all(math.isfinite(value) for record in records for value in record.values() if value != record["kind"])
    assert all(0 <= record["accuracy"] <= 1 for record in records)


def test_the_configuration_can_be_used_again(videos: Path, video_run: Path) -> None:
    config = read_json(video_run / "config.json")
    again = TrainConfig.from_json(config["train"])
    assert (again.data, again.out, again.size, again.baseline) == (videos, video_run, (32, 32), True)
    assert config["model_name"] == "vivit1-P/16x4"
    assert config["data"]["counts"] == {"train": {"bright": 6, "dark": 6}, "val": {"bright": 1, "dark": 1}}
    assert any(line.startswith("memory: about") for line in config["plan"])


def test_the_weights_alone_are_enough_to_predict(videos: Path, video_run: Path, tmp_path: Path) -> None:
    shutil.copy(video_run / "model.safetensors", tmp_path / "w.safetensors")
    alone, run = Predictor.load(tmp_path / "w.safetensors", device="cpu"), Predictor.load(video_run, device="cpu")
    file = videos / "bright" / "3.mp4"
    assert alone.predict(file) == run.predict(file)
    assert alone.classes == ["bright", "dark"]


def test_it_learns_what_one_look_tells(videos: Path, tmp_path: Path) -> None:
    run = train(videos, tmp_path / "run", epochs=8)
    assert read_json(run / "results.json")["accuracy"] == 1
    assert {Predictor.load(run, device="cpu").predict(file).label for file in (videos / "dark").iterdir()} == {"dark"}


def test_the_same_training_gives_the_same_weights(videos: Path, tmp_path: Path) -> None:
    runs = [train(videos, tmp_path / name, workers=workers, **RANDOM) for name, workers in (("a", 1), ("b", 3))]
    one, same = (load_file(run / "model.safetensors") for run in runs)
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert (runs[0] / "predictions.csv").read_bytes() == (runs[1] / "predictions.csv").read_bytes()


def test_what_is_shown_keeps_names_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = ("[bold]", ":cat: [red]")
    data = write_videos(tmp_path / "clips [red]", clips=2, classes=classes)
    train_fn(tiny_config(data, tmp_path / "run [blue]", epochs=1), show=True)
    shown = capsys.readouterr().out
    assert ":cat: [red], [bold]" in shown
    assert "[red]" in shown.split("classes")[0]
    assert f"tubelet predict {shlex.quote(str(tmp_path / 'run [blue]'))} FILE" in shown
    for name in ("task", "clips", "clip", "model", "memory", "time", "run", "note", "this model", "baseline"):
        assert f"\n{name} " in shown


# ---- other data


@pytest.mark.parametrize(
    ("write", "suffix", "settings"),
    [
        (write_images, "png", {"model": "vit-P/16", "frames": None}),
        (write_sounds, "wav", {"model": "vit-P/16", "frames": None}),
        (write_images, "png", {"model": None, "frames": None, "size": (36, 36), "baseline": True}),
        (write_sounds, "wav", {"model": None, "frames": None, "size": (24, 48)}),
        (write_videos, "mp4", {"model": None, "frames": None, "size": None, "baseline": True}),
    ],
)
def test_images_and_sounds_train_as_videos_do(
    tmp_path: Path, write: Callable[[Path], Path], suffix: str, settings: dict[str, Any]
) -> None:
    data = write(tmp_path / "data")
    run = train(data, tmp_path / "run", epochs=1, **settings)
    starts = {"init.txt"} if suffix == "mp4" else set()  # the package has weights for the default model of videos
    assert {path.name for path in run.iterdir()} == FILES | starts
    check_results(run)
    file = next(data.glob(f"*/*.{suffix}"))
    assert Predictor.load(run, device="cpu").predict(file).status == "ok"
    assert (read_json(run / "results.json")["single_frame"] is not None) == (write is write_videos)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_the_report_shows_mistakes(tmp_path: Path, kind: str) -> None:
    for name in ("one", "same"):  # two classes of the same look: half of the answers are wrong
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            frames = pictures(100, [7])
            frames[:, :8, :8] = 30 * number + 5 * len(name)  # no two files are the same
            if kind == "image":
                write_image(tmp_path / "data" / name / f"{number}.png", frames[0])
            else:
                write_video(tmp_path / "data" / name / f"{number}.mp4", frames)
    settings = {} if kind == "video" else {"model": "vit-P/16", "frames": None}
    run = train(tmp_path / "data", tmp_path / "run", epochs=1, augment=False, **settings)
    assert read_json(run / "results.json")["accuracy"] == 0.5
    assert "data:image/" in (run / "report.html").read_text()


def test_a_table_gives_splits_and_times(tmp_path: Path) -> None:
    write_video(tmp_path / "all.mp4", pictures(190, [0], frames=40), frames_per_second=10)
    write_video(tmp_path / "more.mp4", pictures(60, [1], frames=40), frames_per_second=10)
    lines = [
        f"{file},{label},{start},{start + 0.4},{'test' if start > 2.5 else 'train'}"
        for file, label in (("all.mp4", "day"), ("more.mp4", "night"))
        for start in (0.0, 0.5, 1.0, 1.5, 2.0, 2.6)
    ]
    (tmp_path / "set.csv").write_text("path,label,start,end,split\n" + "\n".join(lines))
    run = train(tmp_path / "set.csv", tmp_path / "run")
    check_results(run)
    config = read_json(run / "config.json")
    assert config["data"]["counts"] == {"train": {"day": 5, "night": 5}, "test": {"day": 1, "night": 1}}
    assert config["clip_spec"]["seconds_between_frames"] == pytest.approx(0.1)
    assert [(row["start"], row["end"]) for row in read_csv(run / "split.csv") if row["split"] == "test"] == [
        ("2.6", "3.0"),
        ("2.6", "3.0"),
    ]


def test_the_report_shows_the_part_of_a_file_that_was_asked_about(tmp_path: Path) -> None:
    frames = pictures(100, [0], frames=20)
    frames[10:] = 250  # the second half is white
    write_video(tmp_path / "a.mp4", frames, frames_per_second=10)
    rows = [f"a.mp4,{label},{start},{start + 0.4},{split}" for label, start, split in HALVES]
    (tmp_path / "set.csv").write_text("path,label,start,end,split\n" + "\n".join(rows))
    plan = make_plan(tiny_config(tmp_path / "set.csv", tmp_path), torch.device("cpu"))
    strip = strip_frames(plan)("a.mp4#t=1.5,1.9")
    assert strip is not None
    assert strip.shape == (4, 96, 120, 3)
    assert strip.min() > 200


HALVES = [("dark", 0.0, "train"), ("dark", 0.4, "train"), ("white", 1.0, "train"), ("white", 1.5, "test")]


def test_the_test_split_is_what_is_reported(tmp_path: Path) -> None:
    for split, first, clips in (("train", 0, 4), ("val", 10, 2), ("test", 20, 3)):
        write_videos(tmp_path / "data" / split, clips, first=first)
    run = train(tmp_path / "data", tmp_path / "run")
    check_results(run)
    assert read_json(run / "results.json")["split"] == "test"
    assert {row["path"] for row in read_csv(run / "predictions.csv")} == {
        f"test/{name}/{number}.mp4" for name in LEVELS for number in (20, 21, 22)
    }
    assert read_json(run / "config.json")["data"]["counts"]["val"] == {"bright": 2, "dark": 2}


# ---- starting from an image model


def image_vit(file: Path) -> Path:
    """Weights of a small image ViT in timm's names, for pictures of 64 x 64 px."""
    (dim, depth, _), patch = SIZES["P"], 16
    torch.manual_seed(1)
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 17, dim), "patch_embed.proj.weight": (dim, 3, patch, patch)}
    shapes |= {"patch_embed.proj.bias": (dim,), "norm.weight": (dim,), "norm.bias": (dim,)}
    for i in range(depth):
        for name, (out, into) in {
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "mlp.fc1": (4 * dim, dim),
            "mlp.fc2": (dim, 4 * dim),
        }.items():
            shapes |= {f"blocks.{i}.{name}.weight": (out, into), f"blocks.{i}.{name}.bias": (out,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (dim,), f"blocks.{i}.{name}.bias": (dim,)}
    save_file({name: 0.05 * torch.randn(shape) for name, shape in shapes.items()}, file)
    return file


def test_a_run_can_start_from_an_image_model(videos: Path, tmp_path: Path) -> None:
    init = image_vit(tmp_path / "vit.safetensors")
    run = train(videos, tmp_path / "run", init=str(init), model=None, frames=None, size=None, lr=1e-9, epochs=1)
    config = read_json(run / "config.json")
    assert config["model_name"] == "vivit2-P/16x2"
    assert {path.name for path in run.iterdir()} == FILES | {"init.txt"}
    assert "4 blocks: taken" in (run / "init.txt").read_text()
    image, ours = load_file(init), load_file(run / "model.safetensors")
    taken = ours["encoders.0.blocks.2.mlp.fc1.weight"]
    torch.testing.assert_close(taken, image["blocks.2.mlp.fc1.weight"], rtol=0, atol=1e-6)


def test_an_image_model_is_taken_again_when_no_checkpoint_is_whole(videos: Path, tmp_path: Path) -> None:
    init = str(image_vit(tmp_path / "vit.safetensors"))
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(videos, straight, init=init)
    with stopping_after(2), pytest.raises(Stopped):
        train(videos, stopped, init=init)
    for folder in (stopped / "checkpoints").iterdir():
        spoil(folder / "state.safetensors")
    train(videos, stopped, init=init)
    assert_same_training(straight, stopped)


def test_image_models_that_do_not_fit_are_refused(videos: Path, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    for init, expected in (
        ("missing.safetensors", "hf-hub:owner/name"),
        (str(tmp_path / "other.safetensors"), "weight"),
    ):
        with pytest.raises(ValueError, match=naming(init, expected)):
            train(videos, tmp_path / "run", init=init, model=None)


# ---- files that cannot be read


def test_a_few_bad_files_are_left_out_of_training_and_counted_when_held_out(videos: Path, tmp_path: Path) -> None:
    data = shutil.copytree(videos, tmp_path / "data")
    split = {row["path"]: row["split"] for row in read_csv(first_split(data, tmp_path))}
    bad_train = next(path for path, which in split.items() if which == "train")
    bad_held_out = next(path for path, which in split.items() if which == "val")
    spoil(data / bad_train)
    spoil(data / bad_held_out)
    run = train(data, tmp_path / "run", max_bad="10%")
    check_results(run)
    plan = "\n".join(read_json(run / "config.json")["plan"])
    assert re.search(naming("2 files", "1 left out", data / bad_train), plan)
    assert set(split) - {row["path"] for row in read_csv(run / "split.csv")} == {bad_train}
    results = read_json(run / "results.json")
    assert (results["clips"], results["failed"]) == (1, 1)
    failed = [row for row in read_csv(run / "predictions.csv") if row["status"] != "ok"]
    assert [(row["path"], row["predicted"]) for row in failed] == [(bad_held_out, "")]
    assert failed[0]["code"] == "not-video"


def first_split(data: Path, tmp_path: Path) -> Path:
    return train(data, tmp_path / "first", epochs=0.1) / "split.csv"


def test_a_training_file_of_another_kind_is_left_out(videos: Path, tmp_path: Path) -> None:
    data = shutil.copytree(videos, tmp_path / "data")
    train_path = next(row["path"] for row in read_csv(first_split(data, tmp_path)) if row["split"] == "train")
    write_sounds(tmp_path / "sounds", 1)
    shutil.copy(tmp_path / "sounds" / "low" / "0.wav", data / train_path)
    run = train(data, tmp_path / "run", max_bad="10%")
    assert train_path not in (run / "split.csv").read_text()
    plan = "\n".join(read_json(run / "config.json")["plan"])
    assert f"{train_path}: " in plan


@pytest.mark.parametrize("keep", [True, False])
def test_a_held_out_file_of_another_kind_counts_as_failed(
    videos: Path, tmp_path: Path, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(videos, tmp_path / "data")
    held_out = next(row["path"] for row in read_csv(first_split(data, tmp_path)) if row["split"] == "val")
    write_image(tmp_path / "a.png", pictures(100, [0])[0])
    shutil.copy(tmp_path / "a.png", data / held_out)
    if not keep:
        monkeypatch.setattr("tubelet.train.plan.KEEP_SHARE", 0.0)
    run = train(data, tmp_path / "run")
    assert read_json(run / "config.json")["data"]["keep"] == keep
    check_results(run)
    statuses = {row["path"]: row["status"] for row in read_csv(run / "predictions.csv")}
    assert "the file is of kind 'image', the model takes 'video'" in statuses[held_out]


@pytest.mark.parametrize(
    ("bad", "values"),
    [
        ("*/*.mp4", ("12 of 12", "bright", "dark")),
        ("dark/*.mp4", ("6 of 12", "dark")),
        ("*/[0-2].mp4", ("5 of 12", "41.7%", "--max-bad", "5%")),
    ],
)
def test_too_many_bad_files_are_an_error(videos: Path, tmp_path: Path, bad: str, values: tuple[str, ...]) -> None:
    data = shutil.copytree(videos, tmp_path / "data")
    for file in data.glob(bad):
        spoil(file)
    with pytest.raises(ValueError, match=naming(data, *values)):
        train(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_test_without_a_file_that_can_be_read_is_an_error(videos: Path, tmp_path: Path) -> None:
    shutil.copytree(videos, tmp_path / "data" / "train")
    write_videos(tmp_path / "data" / "test", 1, first=20)
    for file in (tmp_path / "data" / "test").glob("*/*.mp4"):
        spoil(file)
    files = [tmp_path / "data" / "test" / name / "20.mp4" for name in LEVELS]
    with pytest.raises(ValueError, match=naming(tmp_path / "data", "test", *files)):
        train(tmp_path / "data", tmp_path / "run")


def test_data_of_which_nothing_can_be_held_out_is_an_error(tmp_path: Path) -> None:
    write_videos(tmp_path, 2)
    rows = [f"{name}/{number}.mp4,{name},{name}" for name in LEVELS for number in (0, 1)]
    (tmp_path / "set.csv").write_text("path,label,group\n" + "\n".join(rows))
    with pytest.raises(ValueError, match=naming(tmp_path, "val", "test")):
        train(tmp_path / "set.csv", tmp_path / "run")


def test_times_after_the_end_of_a_file_are_a_bad_clip(videos: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.parent.name},," for path in sorted(videos.glob("*/*.mp4"))]
    rows[0] = rows[0].replace(",,", ",9.5,")
    (tmp_path / "set.csv").write_text("path,label,start,end\n" + "\n".join(rows))
    run = train(tmp_path / "set.csv", tmp_path / "run", max_bad="10%")
    plan = "\n".join(read_json(run / "config.json")["plan"])
    assert re.search(naming("9.5 s", "0.32 s") + ".*bright/0.mp4: ", plan)


# ---- interruptions


class stopping_after:  # read as a phrase
    """While inside, a signal comes in the middle of the step after `steps`."""

    def __init__(self, steps: int, number: int = signal.SIGINT):
        self.steps, self.number, self.patch = steps, number, pytest.MonkeyPatch()

    def __enter__(self) -> None:
        learn = Fit.take_step

        def learn_and_signal(fit: Fit, parts: Any) -> dict[str, float]:
            if fit.step == self.steps:
                signal.raise_signal(self.number)
            return learn(fit, parts)

        self.patch.setattr(Fit, "take_step", learn_and_signal)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


def assert_same_training(one: Path, other: Path) -> None:
    first, second = (load_file(run / "model.safetensors") for run in (one, other))
    assert set(first) == set(second)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert (one / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()
    looks = [[r for r in read_metrics(run) if r["kind"] == "val"] for run in (one, other)]
    assert looks[0] == looks[1]


@pytest.mark.parametrize(("steps", "settings"), [(1, RANDOM), (4, {}), (5, RANDOM)])
def test_a_stopped_training_goes_on_as_if_nothing_had_been(
    videos: Path, tmp_path: Path, steps: int, settings: dict[str, Any]
) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(videos, straight, **settings)
    with stopping_after(steps), pytest.raises(Stopped, match=naming(stopped)) as it:
        train(videos, stopped, **settings)
    assert it.value.signal == signal.SIGINT
    assert [folder.name for folder in Run(stopped).checkpoints()] == [f"step-{steps + 1:08d}"]
    assert not Run(stopped).finished
    train(videos, stopped, **{**settings, "minutes": 1.0, "epochs": 9.0})  # the steps are those decided at first
    assert_same_training(straight, stopped)
    assert {path.name for path in stopped.iterdir()} == FILES


def test_a_training_goes_on_from_the_last_whole_checkpoint(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(videos, straight, **RANDOM)
    with stopping_after(4, signal.SIGTERM), pytest.raises(Stopped) as it:
        train(videos, stopped, save_minutes=0.0, **RANDOM)
    assert it.value.signal == signal.SIGTERM
    newest, before = Run(stopped).checkpoints()
    assert (newest.name, before.name) == ("step-00000005", "step-00000004")
    spoil(newest / "state.safetensors")
    train_fn(tiny_config(videos, stopped, **RANDOM), show=True)
    shown = capsys.readouterr().out
    assert re.search(naming(newest, "state.safetensors", "step 4 of 6"), shown)
    assert_same_training(straight, stopped)


def test_a_training_stopped_in_its_evaluation_need_not_learn_again(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(videos, straight)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name in ("settle.answer", "finish.write_card"):
        with monkeypatch.context() as patch:
            patch.setattr(f"tubelet.train.{name}", interrupt)
            with pytest.raises(KeyboardInterrupt):
                train(videos, stopped)
        assert not Run(stopped).finished
    with monkeypatch.context() as patch:
        patch.setattr(Fit, "take_step", interrupt)
        train(videos, stopped)
    assert_same_training(straight, stopped)


def test_clips_stay_kept_or_not_when_a_run_goes_on(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(videos, straight)
    with stopping_after(2), pytest.raises(Stopped):
        train(videos, stopped)
    monkeypatch.setattr("tubelet.train.plan.KEEP_SHARE", 0.0)  # as if the memory had been filled meanwhile
    train(videos, stopped)
    assert_same_training(straight, stopped)


def test_after_a_mistake_the_run_directory_can_be_used(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=naming("missing.safetensors")):
        train(videos, tmp_path / "run", init="missing.safetensors")
    train(videos, tmp_path / "run", epochs=0.1)


@pytest.mark.parametrize("keep_share", [0.4, 0.0])
def test_the_last_look_at_held_out_clips_sees_what_the_evaluation_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_share: float
) -> None:
    """Files longer than a clip and not by whole frames of it: frames kept in memory or read anew, the same are seen."""
    monkeypatch.setattr("tubelet.train.plan.KEEP_SHARE", keep_share)
    for label, name in enumerate(LEVELS):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            frames = pictures(110 + 10 * label, [label, number], frames=9 + 3 * number)
            write_video(tmp_path / "data" / name / f"{number}.mp4", frames, frames_per_second=25)
    run = train(tmp_path / "data", tmp_path / "run", views="1x1", seconds_between_frames=0.07, epochs=1)
    assert json.loads((run / "config.json").read_text())["data"]["keep"] == (keep_share > 0)
    looked = [record for record in read_metrics(run) if record["kind"] == "val"][-1]
    with open(run / "predictions.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert looked["loss"] == pytest.approx(
        -sum(math.log(float(row[f"p:{row['label']}"])) for row in rows) / len(rows), abs=1e-5
    )
    assert looked["accuracy"] == sum(row["predicted"] == row["label"] for row in rows) / len(rows)


# ---- the time budget


def test_the_steps_fill_the_time_and_no_more_epochs_than_help(videos: Path, tmp_path: Path) -> None:
    run = train(videos, tmp_path / "run", epochs=None, minutes=0.003)
    steps = max(record["step"] for record in read_metrics(run))
    assert 1 <= steps < 100
    assert read_json(run / "results.json")["seconds_total"] < 200


# ---- settings that cannot work


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"model": "vivit9-S/16x2"}, ("'vivit9-S/16x2'", "vivit2-S/16x2")),
        ({"size": (8, 8)}, ("H = 8", 16)),
        ({"frames": 2}, ("T = 2", 4)),
        ({"model": "vivit4-P/16x4"}, ("'vivit4-P/16x4'", "vivit4-S/16x4")),
        ({"model": "vit-P/16"}, ("'vit-P/16'", "clip=(4, 32, 32)", "clip=(1, H, W)")),
        ({"views": "2x2"}, ("views", "'2x2'")),
        ({"batch": 5, "accumulate": 2}, ("batch", 5, 1, 2)),
        ({"shard": "fsdp2"}, ("--shard fsdp2", "torchrun")),
        ({"device": "tpu"}, ("device", "'tpu'", "auto", "cpu", "cuda", "mps")),
        ({"device": "cuda:99"}, ("device", "'cuda:99'", "--device cpu")),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    videos: Path, tmp_path: Path, settings: dict[str, Any], values: tuple[object, ...]
) -> None:
    with pytest.raises(ValueError, match=naming(*values)):
        train(videos, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_stills_are_for_videos_alone(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 2)
    with pytest.raises(ValueError, match=naming("--stills", "'image'")):
        train(data, tmp_path / "run", model="vit-P/16", frames=None, stills=0.5)
    assert not (tmp_path / "run").exists()


def test_views_that_the_kind_does_not_have_are_refused_before_the_training(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 2)
    with pytest.raises(ValueError, match=naming("views", "'4x1'", "image")):
        train(data, tmp_path / "run", model="vit-P/16", frames=None, views="4x1")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "bound"),
    [
        ({"batch": 0}, 0),
        ({"accumulate": 0}, 0),
        ({"mixup": -0.1}, 0),
        ({"ema": 1.0}, 1),
        ({"stills": 1.0}, 1),
        ({"lr": 0.0}, 0),
        ({"lr": math.nan}, 0),
        ({"epochs": math.inf}, 0),
        ({"minutes": -1}, 0),
        ({"workers": 0}, 0),
        ({"seed": -1}, 0),
        ({"seed": 2**32}, 4294967295),
        ({"val_share": 1.0}, 1),
        ({"val_share": 0.0}, 0),
    ],
)
def test_numbers_out_of_range_are_refused(settings: dict[str, Any], bound: int) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=naming(name, value, bound)):
        TrainConfig(data=Path("x"), **settings)


def test_settings_survive_json_and_unknown_ones_are_named() -> None:
    config = TrainConfig(data=Path("a/b"), out=Path("c"), size=(32, 48), lr=1e-3, label_swaps=Path("d.csv"))
    values = json.loads(json.dumps(config.to_json()))
    assert TrainConfig.from_json(values) == config
    older = {key: value for key, value in values.items() if key != "label_swaps"}
    assert TrainConfig.from_json(older).label_swaps is None
    with pytest.raises(ValueError, match=naming("learning_rate")):
        TrainConfig.from_json({("learning_rate" if k == "lr" else k): v for k, v in values.items()})


def test_tensorboard_is_asked_for_before_the_training(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tubelet.train.clips.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=naming("--tensorboard", "pip install 'tubelet[tensorboard]'")):
        train(videos, tmp_path / "run", tensorboard=True)


# ---- what is chosen, and by which clips


@pytest.fixture(scope="module")
def three_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("three")
    for split, clips in (("train", 5), ("val", 3), ("test", 2)):
        write_videos(root / split, clips=clips, first=10 * len(split))
    return root


def look_as(accuracies: list[float], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Looks that give these accuracies in turn, the last one for ever; and the weights that each of them saw."""
    seen: list[dict[str, torch.Tensor]] = []

    def look(fit: Fit, held: Any) -> tuple[float, float]:
        assert {item.split for item in held.items} == {fit.plan.data.validation_split}
        seen.append({name: value.detach().clone() for name, value in fit.model.named_parameters()})
        return 0.5, accuracies[min(len(seen), len(accuracies)) - 1]

    monkeypatch.setattr("tubelet.train.loop.validate", look)
    return seen


def test_the_weights_of_the_best_look_at_validation_clips_are_kept(
    three_splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = look_as([0.1, 0.9, 0.9, 0.2], monkeypatch)
    run = train(three_splits, tmp_path / "run", epochs=4)
    kept, results = load_file(run / "model.safetensors"), read_json(run / "results.json")
    assert all(torch.equal(kept[name], value) for name, value in seen[1].items())
    assert any(not torch.equal(kept[name], value) for name, value in seen[-1].items())
    looks = [record for record in read_metrics(run) if record["kind"] == "val"]
    assert results["kept"] == {
        "which": "best",
        "step": looks[1]["step"],
        "epoch": looks[1]["epoch"],
        "accuracy": 0.9,
    }
    assert (results["split"], results["clips"]) == ("test", 4)


def test_without_clips_to_choose_by_the_last_weights_are_kept(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = look_as([0.9, 0.1], monkeypatch)
    run = train(videos, tmp_path / "run", epochs=2)
    kept = load_file(run / "model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in seen[-1].items())
    results = read_json(run / "results.json")
    assert results["kept"] == {"which": "last", "step": 6, "epoch": 2.0, "accuracy": None}
    learned = [record["accuracy"] for record in read_metrics(run) if record["kind"] == "train"]
    assert results["on_training_clips"] == learned[-1]


def test_a_stopped_training_keeps_the_same_best_weights(
    three_splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"epochs": 4, **RANDOM}
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    look_as([0.1, 0.9, 0.3, 0.3, 0.3, 0.3], monkeypatch)
    train(three_splits, straight, **settings)
    look_as([0.1, 0.9, 0.3, 0.3, 0.3, 0.3], monkeypatch)
    with stopping_after(6), pytest.raises(Stopped):
        train(three_splits, stopped, **settings)
    train(three_splits, stopped, **settings)
    assert read_json(straight / "results.json")["kept"] == read_json(stopped / "results.json")["kept"]
    assert_same_training(straight, stopped)


def test_patience_ends_a_training_that_gets_no_better(
    three_splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = look_as([0.1, 0.9, 0.2], monkeypatch)
    run = train(three_splits, tmp_path / "run", epochs=20, patience=3)
    assert len(seen) == 2 + 3
    assert max(record["step"] for record in read_metrics(run)) < 50
    assert read_json(run / "results.json")["kept"]["accuracy"] == 0.9


def test_patience_needs_clips_that_the_result_is_not_measured_on(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=naming("--patience", "val", "test")):
        train(videos, tmp_path / "run", patience=3)
    assert not (tmp_path / "run").exists()


def test_a_model_with_stages_has_no_baseline_of_one_frame_and_is_told_so_first(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=naming("--baseline", "swin2-Ti/4x2")):
        train(videos, tmp_path / "run", model="swin2-Ti/4x2", size=(32, 32), baseline=True)
    assert not (tmp_path / "run").exists()


# ---- clips that suit the data and the time


def plan_of(root: Path, **settings: Any) -> Any:
    return make_plan(TrainConfig(data=root, device="cpu", **settings), torch.device("cpu"))


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("long")
    for label, name in enumerate(LEVELS):
        for number in range(3):
            (root / name).mkdir(exist_ok=True)
            frames = pictures(LEVELS[name], [label, number], frames=40)
            write_video(root / name / f"{number}.mp4", frames, frames_per_second=2)
    return root


def test_frames_of_long_items_are_no_further_apart_than_motion_allows(long_videos: Path) -> None:
    plan = plan_of(long_videos)
    assert plan.spec.seconds_between_frames == 0.25
    assert plan.spec.span_seconds == 4.0
    assert plan.clips_an_item == 5.0  # items of 20 s
    assert any("4 s of items of 20 s" in note for note in plan.notes)
    assert plan_of(long_videos, seconds_between_frames=1.0).spec.span_seconds == 16.0


def test_the_size_of_a_clip_grows_with_the_time_and_falls_with_the_data(videos: Path) -> None:
    def side(**given: Any) -> int:
        known = {"native_px": 1000.0, "clips": 200, "frames": 16, "side": 12} | given
        config = TrainConfig(data=videos, minutes=known.pop("minutes", 15.0), epochs=known.pop("epochs", None))
        return affordable_side(config, 16 / 9, **known)

    assert side() % 12 == 0
    assert side(minutes=1.0) == side(clips=100_000) == side(epochs=3.0) == 48
    assert side(minutes=30.0) >= side() >= side(minutes=10.0)
    assert side(clips=50) == side(minutes=1e6) == 96
    assert side(clips=50, native_px=70.0) == 60
    assert side(native_px=20.0) == 48
