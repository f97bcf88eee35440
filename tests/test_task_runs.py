"""Several classes and numbers from a table to a report, a prediction and an export, by what a user types."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naming import naming
from small_sets import FRAMES_PER_SECOND, TINY_FLAGS, command, pictures, write_videos
from tiny import tiny

import tubelet
from tubelet.data.clips import views
from tubelet.evaluate import evaluate
from tubelet.export.writer import export, measure_agreement
from tubelet.media.writer import write_video
from tubelet.predict.predictor import Predictor
from tubelet.system.text import percent
from tubelet.tasks import Classification, MultiLabel, Regression, Task

SPLITS = {"train": 12, "val": 12, "test": 6}
CPU = ("--device", "cpu", "--dtype", "float32")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NUMBER.mp4 of 30 videos, dark and bright in turn, and two tables of them: tags.csv and numbers.csv."""
    folder = tmp_path_factory.mktemp("clips")
    tags, numbers = [["path", "label", "split", "group"]], [["path", "Speed", "angle", "split", "group"]]
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    for i, split in enumerate(splits):
        level = 190 if i % 2 else 60
        write_video(folder / f"{i}.mp4", pictures(level, [i]), frames_per_second=FRAMES_PER_SECOND)
        label = {0: "(none)", 1: "bright", 2: "any", 3: "any; bright"}[i % 4]
        group = f"{split} {i // 2}"
        tags.append([f"{i}.mp4", "" if i in (2, 3) else label, split, group])
        numbers.append([f"{i}.mp4", "" if i % 5 == 1 else f"{level / 100}", "" if i % 5 == 2 else i % 7, split, group])
    for name, rows in (("tags.csv", tags), ("numbers.csv", numbers)):
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def train(data: Path, out: Path, *more: str) -> Path:
    assert command("train", data, "--out", out, *TINY_FLAGS, *more) == 0
    return out


@pytest.fixture(scope="module")
def tagged(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(clips / "tags.csv", tmp_path_factory.mktemp("runs") / "tags", "--task", "multilabel", "--epochs", "8")


@pytest.fixture(scope="module")
def measured(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    asked = ("--task", "regression", "--labels", "speed", "angle", "--baseline", "--mixup", "0.2", "--epochs", "8")
    return train(clips / "numbers.csv", tmp_path_factory.mktemp("runs") / "numbers", *asked)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as table:
        return list(csv.DictReader(table))


# ---- several classes at once


def test_a_run_of_several_classes_is_whole(tagged: Path) -> None:
    results, rows = read_json(tagged / "results.json"), read_csv(tagged / "predictions.csv")
    task = Predictor.load(tagged, device="cpu").task
    assert isinstance(task, MultiLabel)
    assert task.names == ("any", "bright")
    assert task.weights == pytest.approx((1.0, 1.0), abs=0.6)
    assert (results["split"], results["clips"], results["failed"], results["chosen_thresholds"]) == ("test", 6, 0, True)
    assert 0 <= results["interval"][0] <= results["mean_average_precision"] <= results["interval"][1] <= 1
    by_class = {row["label"]: row for row in results["per_class"]}
    assert by_class["bright"]["average_precision"] == 1, "one look tells"
    assert tuple(by_class[name]["threshold"] for name in task.names) == task.thresholds
    assert 0.5 not in task.thresholds, "six validation clips of each class chose others"
    for row in rows:
        said = ";".join(name for name, limit in zip(task.names, task.thresholds) if float(row[f"p:{name}"]) >= limit)
        assert row["predicted"] == (said or "(none)")
        assert row["probability"] == ""
    config = read_json(tagged / "config.json")
    assert config["task"]["names"] == ["any", "bright"]
    assert config["data"]["counts"]["val"] == {"any": 6, "bright": 6}
    assert config["data"]["clips"] == {"train": 10, "val": 12, "test": 6}
    assert any(line.startswith("clips: 10 train, 12 val, 6 test") for line in config["plan"])
    assert any("2 clips without a label" in note for note in config["data"]["notes"])
    splits = read_csv(tagged / "split.csv")
    assert len(splits) == 28, "all but two that are not labelled"
    assert {row["label"] for row in splits} == {"(none)", "bright", "any", "any; bright"}
    records = [json.loads(line) for line in (tagged / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= record["overlap"] <= 1 for record in records)


@pytest.mark.parametrize("run", ["tagged", "measured"])
def test_evaluation_gives_the_results_of_the_run(
    run: str, clips: Path, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its groups too: cuts of one recording are not independent."""
    folder = request.getfixturevalue(run)
    data, own = clips / {"tagged": "tags.csv", "measured": "numbers.csv"}[run], read_json(folder / "results.json")
    arguments = ("eval", folder, data, "--views", own["views"], "--csv", tmp_path / "p.csv", *CPU)
    capsys.readouterr()
    assert command(*arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: own[name] for name in own if name in found} == {name: found[name] for name in own if name in found}
    assert {"interval", "seconds_seen"} <= found.keys() & own.keys()
    assert (tmp_path / "p.csv").read_bytes() == (folder / "predictions.csv").read_bytes()
    assert command("eval", folder, data, "--split", "val", *CPU) == 0
    assert "Evaluation on val" in capsys.readouterr().out


def test_recordings_are_groups_in_an_evaluation_as_in_a_training(tagged: Path, clips: Path, tmp_path: Path) -> None:
    """By their names too."""
    predictor, intervals = Predictor.load(tagged, device="cpu"), []
    labels = {row["path"]: row["label"] for row in read_csv(clips / "tags.csv")}
    for name in ("v_Any_g{0}_c{1}.mp4", "{0}-{1}.mp4"):
        for group in ("", ",group"):
            folder = tmp_path / f"{len(intervals)}"
            folder.mkdir()
            rows = [f"path,label{group}"]
            for i in range(12, 30):
                file = name.format((i - 12) // 6, i)
                (folder / file).symlink_to(clips / f"{i}.mp4")
                rows.append(f"{file},{labels[f'{i}.mp4']}" + (f",Any/g{(i - 12) // 6}" if group else ""))
            (folder / "t.csv").write_text("\n".join(rows))
            found = evaluate(predictor, folder / "t.csv", show=False).results
            intervals.append((found.interval, found.to_json()["macro_f1_interval"]))
    named, named_and_told, alone, told = intervals
    assert named == named_and_told == told != alone


def test_tags_are_predicted(tagged: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [clips / "28.mp4", clips / "29.mp4"]
    dark, bright = Predictor.load(tagged, device="cpu").predict_files(files)
    assert "bright" not in str(dark.label)
    assert "bright" in str(bright.label).split(";")
    assert (bright.probability, bright.values) == (None, {})
    assert set(bright.probabilities) == {"any", "bright"}
    capsys.readouterr()
    assert command("predict", tagged, *files, "--json", *CPU) == 0
    assert [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()] == [dark.label, bright.label]
    assert command("predict", tagged, *files, "--csv", tmp_path / "p.csv", *CPU) == 0
    assert [row["predicted"] for row in read_csv(tmp_path / "p.csv")] == [dark.label, bright.label]
    assert command("predict", tagged, *files, *CPU) == 0
    assert str(bright.label) in capsys.readouterr().out


def test_without_validation_clips_of_their_own_no_thresholds_are_chosen(clips: Path, tmp_path: Path) -> None:
    rows = [line for line in (clips / "tags.csv").read_text().splitlines() if ",test," not in line]
    (clips / "less.csv").write_text("\n".join(rows))
    run = train(clips / "less.csv", tmp_path / "run", "--task", "multilabel", "--epochs", "1")
    results = read_json(run / "results.json")
    assert (results["split"], results["chosen_thresholds"], results["kept"]["which"]) == ("val", False, "last")
    assert {row["threshold"] for row in results["per_class"]} == {0.5}


def test_class_folders_name_several_classes_too(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "data", 3, classes=("dark", "bright;left", "(none)"))
    run = train(data, tmp_path / "run", "--task", "multilabel", "--epochs", "1")
    assert Predictor.load(run, device="cpu").task.names == ("bright", "dark", "left")


def test_features_of_an_encoder_teach_several_classes(tagged: Path, clips: Path, tmp_path: Path) -> None:
    asked = ("--task", "multilabel", "--init", str(tagged), "--freeze", "--freeze-views", "1")
    run = tmp_path / "run"
    flags = [*TINY_FLAGS[2:]]  # the model is that of --init
    assert command("train", clips / "tags.csv", "--out", run, *flags, *asked) == 0
    assert read_json(run / "results.json")["mean_average_precision"] > 0.5


# ---- numbers


def test_a_run_of_numbers_is_whole(measured: Path) -> None:
    results, rows = read_json(measured / "results.json"), read_csv(measured / "predictions.csv")
    task = Predictor.load(measured, device="cpu").task
    assert isinstance(task, Regression)
    assert task.names == ("speed", "angle")
    train = [row["label"].split(";") for row in read_csv(measured / "split.csv") if row["split"] == "train"]
    for c in range(2):
        known = [float(cells[c]) for cells in train if cells[c]]
        assert len(known) < len(train)
        assert (task.means[c], task.deviations[c]) == pytest.approx((np.mean(known), np.std(known)))
    assert {row["label"]: row["support"] for row in results["per_output"]} == {"speed": 5, "angle": 5}
    speed = results["per_output"][0]
    assert speed["mae"] < 0.5 * speed["mae_of_mean"], "one look tells dark from bright"
    assert results["interval"][0] <= results["r2"] <= results["interval"][1]
    assert results["r2_of_mean"] <= 0
    assert set(results["single_frame"]) == {"r2"}
    for row in rows:
        assert row["predicted"] == ";".join(f"{float(row[f'value:{name}']):.4g}" for name in task.names)
    assert read_json(measured / "config.json")["data"]["counts"]["train"] == {}


def test_numbers_are_predicted(measured: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [clips / "28.mp4", clips / "29.mp4"]
    dark, bright = Predictor.load(measured, device="cpu").predict_files(files)
    assert dark.values["speed"] + 0.5 < bright.values["speed"]
    assert (bright.probability, bright.probabilities) == (None, {})
    capsys.readouterr()
    assert command("predict", measured, *files, "--json", *CPU) == 0
    assert [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()] == [dark.label, bright.label]
    assert command("predict", measured, *files, "--csv", tmp_path / "p.csv", *CPU) == 0
    rows = read_csv(tmp_path / "p.csv")
    assert [float(row["value:speed"]) for row in rows] == pytest.approx(
        [one.values["speed"] for one in (dark, bright)], abs=1e-5
    )
    assert command("predict", measured, *files, *CPU) == 0
    assert str(bright.label) in capsys.readouterr().out


def test_columns_of_another_name_are_asked_for(measured: Path, clips: Path, tmp_path: Path) -> None:
    table = (clips / "numbers.csv").read_text().replace("Speed,angle", "v,a")
    (clips / "others.csv").write_text(table)
    predictor = Predictor.load(measured, device="cpu")
    with pytest.raises(
        ValueError, match=naming(clips / "others.csv", "'path,v,a,split,group'", "path", "speed", "angle")
    ):
        evaluate(predictor, clips / "others.csv", show=False)
    results = evaluate(predictor, clips / "others.csv", labels=("V", "a"), show=False).results
    assert results.figure == evaluate(predictor, clips / "numbers.csv", show=False).results.figure
    arguments = ("eval", measured, clips / "others.csv", "--labels", "v", "a", *CPU)
    assert command(*arguments) == 0


# ---- exports and pages


def test_an_export_answers_as_the_run_does(
    tagged: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tubelet.export.writer.TIMING_SECONDS", 0.0)
    files = [clips / f"{i}.mp4" for i in range(24, 30)]
    about = export(tagged, tmp_path / "out", clips=4, show=False)
    assert about["report"]["rows"][1]["agreement"] == 1
    exported, own = (Predictor.load(one, device="cpu") for one in (tmp_path / "out", tagged))
    assert exported.task == own.task
    for one, other in zip(exported.predict_files(files), own.predict_files(files)):
        assert one.label == other.label
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    # the same logits, read as numbers
    task = Regression(("speed", "angle"), means=(5.0, -1.0), deviations=(0.5, 30.0))
    (tmp_path / "out" / "tubelet.json").write_text(json.dumps(about | {"task": task.to_json()}))
    numbers = Predictor.load(tmp_path / "out", device="cpu")
    found = numbers.predict(files[0], views="1x1").values
    logits = numbers.answers(views(files[0], numbers.spec))[0].tolist()
    assert found == pytest.approx({"speed": 5 + 0.5 * logits[0], "angle": -1 + 30 * logits[1]}, abs=1e-4)


@pytest.mark.parametrize(
    ("task", "logits", "agreement"),
    [
        (Classification(("a", "b")), [[3.0, 2.0], [1.0, 2.0], [0.0, -1.0], [4.0, 5.0]], 0.5),
        (MultiLabel(("a", "b")), [[3.0, 2.0], [-1.0, 2.0], [2.0, 1.0], [-4.0, -5.0]], 0.5),
        (Regression(("a", "b"), (0.0, 0.0), (1.0, 9.0)), [[1.04, 2.0], [1.0, 1.94], [1.0, 2.04], [1.0, 1.0]], 0.5),
    ],
)
def test_answers_agree_where_their_words_do_and_numbers_where_they_are_close(
    task: Task, logits: list[list[float]], agreement: float
) -> None:
    reference = {"classification": [4.0, -2.0], "multilabel": [1.0, 9.0], "regression": [1.0, 2.0]}[task.kind]
    assert measure_agreement(torch.tensor(logits), torch.tensor([reference] * 4), task) == agreement


@pytest.mark.parametrize("run", ["tagged", "measured"])
def test_the_report_and_the_card_have_the_figures(run: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(run)
    results = read_json(folder / "results.json")
    figures = {
        "tagged": [percent(results.get(name)) for name in ("mean_average_precision", "macro_f1", "micro_f1")],
        "measured": [f"{results.get('r2') or 0:.3f}"] + [f"{row['mae']:.4g}" for row in results.get("per_output", [])],
    }[run]
    page, card = ((folder / name).read_text() for name in ("report.html", "README.md"))
    for name in {"tagged": ("any", "bright"), "measured": ("speed", "angle")}[run]:
        assert re.search(rf"<tr><td>{name}</td>", page)
        assert re.search(rf"^\| {name} \|", card, re.MULTILINE)
    for text in (page, card):
        assert all(figure in text for figure in figures)
        assert "What is taken for what" not in text
        assert "nan" not in re.sub(r"data:image.*?\"", "", text).replace("finance", "").lower().split()
    assert ("probability" in card) == ("weakest first" in page) == (run == "tagged")
    kept = next(value for name, value in results["kept"].items() if name in ("overlap", "r2"))
    assert (percent(kept) if run == "tagged" else f"{kept:.3f}") in page


# ---- what cannot work


def test_all_bad_cells_are_named_at_once(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = ("a;;b,1", "a,x", "b;b,2", "a,nan", ",", "b,")
    (clips / "bad.csv").write_text("path,label,speed\n" + "".join(f"{i}.mp4,{one}\n" for i, one in enumerate(cells)))
    for task, columns, lines in (("multilabel", "label", (2, 4)), ("regression", "speed", (3, 5))):
        asked = ("--task", task, "--labels", columns, *TINY_FLAGS)
        assert command("train", clips / "bad.csv", "--out", tmp_path / "run", *asked) == 2
        said = capsys.readouterr().err
        assert [int(one) for one in re.findall(r"bad\.csv line (\d+):", said)] == list(lines)
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("table", "asked", "values"),
    [
        ("tags.csv", ("--task", "multilabel", "--balance"), ("--balance", "multilabel")),
        ("numbers.csv", ("--task", "regression", "--labels", "speed", "--balance"), ("--balance", "regression")),
        ("numbers.csv", ("--task", "regression"), ("path and label",)),
        ("numbers.csv", ("--labels", "speed", "angle"), ("--task regression",)),
        ("numbers.csv", ("--task", "regression", "--labels", "speed", "speed"), ("speed speed",)),
        ("none.csv", ("--task", "multilabel"), ("0 classes", "at least 1 ")),
        ("same.csv", ("--task", "regression", "--labels", "angle"), ("angle", "leave it out")),
    ],
)
def test_what_cannot_be_learned_is_refused(
    table: str,
    asked: tuple[str, ...],
    values: tuple[str, ...],
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (clips / "none.csv").write_text("path,label\n" + "".join(f"{i}.mp4,(none)\n" for i in range(6)))
    (clips / "same.csv").write_text("path,angle\n" + "".join(f"{i}.mp4,2\n" for i in range(6)))
    assert command("train", clips / table, "--out", tmp_path / "run", *TINY_FLAGS, *asked) == 2
    said = capsys.readouterr().err
    assert all(value in said for value in values)
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_class_that_the_model_does_not_know_is_named(
    tagged: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / "new.csv").write_text("path,label\n0.mp4,bright;new\n1.mp4,(none)\n")
    assert command("eval", tagged, clips / "new.csv", *CPU) == 2
    assert re.search(naming("new", "any", "bright"), capsys.readouterr().err)


@pytest.mark.parametrize("run", ["tagged", "measured"])
def test_stream_tells_one_class_after_the_other_and_no_more(
    run: str, clips: Path, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(run)
    assert command("stream", folder, clips / "0.mp4", "--out", tmp_path / "out", *CPU) == 2
    assert "tubelet predict" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---- checkpoints of before


def test_a_checkpoint_of_class_names_alone_is_one_of_classification(clips: Path, tmp_path: Path) -> None:
    spec = tubelet.ClipSpec(
        frames=8, seconds_between_frames=0.04, resize=(8, 12), crop=(8, 12), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    model = tiny("vivit1", num_classes=3)
    tubelet.save(model, tmp_path, about={"classes": ["a", "b", "c"], "clip_spec": spec.to_json()})
    predictor = Predictor.load(tmp_path, device="cpu")
    assert predictor.task == Classification(("a", "b", "c"))
    assert sum(predictor.predict(clips / "0.mp4").probabilities.values()) == pytest.approx(1, abs=1e-5)
    for wrong in ({"classes": ["a", "b"]}, {"classes": ["a", "a", "c"]}, {"task": {"kind": "new"}}, {"task": []}):
        tubelet.save(model, tmp_path / "wrong", about={"clip_spec": spec.to_json(), **wrong})
        with pytest.raises(ValueError, match=naming(tmp_path / "wrong")):
            Predictor.load(tmp_path / "wrong", device="cpu")
