"""Calibration and "none of these" by what a user types: in a run, its report, predictions, evaluations, exports."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_sets import FRAMES_PER_SECOND, TINY_FLAGS, command, pictures, write_videos

import tubelet
from tubelet.evaluate import evaluate
from tubelet.export.writer import export
from tubelet.media.writer import write_video
from tubelet.predict.predictor import Predictor
from tubelet.predict.tables import CALIBRATED
from tubelet.tasks import Classification, MultiLabel
from tubelet.tasks.calibration import FEWEST_CLIPS, Calibration, raise_to
from tubelet.weights.store import open_model, save

CPU = ("--device", "cpu", "--dtype", "float32")
CLIPS, HELD_OUT = 40, 32


def write_stripes(folder: Path, clips: int) -> Path:
    """FOLDER/stripes/NUMBER.mp4: grey of all levels at once, unlike anything bright or dark."""
    (folder / "stripes").mkdir(parents=True)
    for number in range(clips):
        frames = pictures(125, [9, number]).astype(int)
        frames[:, :, ::2] += 120
        frames[:, :, 1::2] -= 120
        path = folder / "stripes" / f"{number}.mp4"
        write_video(path, frames.clip(0, 255).astype(np.uint8), frames_per_second=FRAMES_PER_SECOND)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unknown")


@pytest.fixture(scope="module")
def clips(place: Path) -> Path:
    return write_videos(place / "clips", CLIPS)


@pytest.fixture(scope="module")
def more(place: Path) -> Path:
    """Clips that no training saw, some of a class that it did not know."""
    return write_stripes(write_videos(place / "more", 6, first=CLIPS), 5)


@pytest.fixture(scope="module")
def run(clips: Path, place: Path) -> Path:
    out = place / "run"
    assert command("train", clips, "--out", out, *TINY_FLAGS, "--val-share", "0.4", "--epochs", "4") == 0
    return out


@pytest.fixture(scope="module")
def tagged(clips: Path, place: Path) -> Path:
    """A run of several classes at once; of the clips that it is measured on and settled by, two had no label."""
    labels, rows = {"bright": "bright;lit", "dark": "(none)"}, ["path,label,split"]
    for name, label in labels.items():
        for i in range(CLIPS):
            known, split = i != CLIPS - 1, "train" if i < CLIPS - HELD_OUT // 2 else "val"
            rows.append(f"{clips}/{name}/{i}.mp4,{label if known else ''},{split}")
    (place / "tags.csv").write_text("\n".join(rows))
    out = place / "tagged"
    flags = ("--task", "multilabel", "--epochs", "4")
    assert command("train", place / "tags.csv", "--out", out, *TINY_FLAGS, *flags) == 0
    return out


@pytest.fixture(scope="module")
def old(run: Path, place: Path) -> Path:
    """The same weights as a version without calibration wrote them."""
    about = open_model(run).about
    del about["task"]["calibration"]
    save(tubelet.load(run), place / "old", about=about)
    return place / "old"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as table:
        return list(csv.DictReader(table))


def calibration_of(run: Path) -> Calibration:
    task = Predictor.load(run, device="cpu").task
    assert isinstance(task, Classification)
    assert task.calibration
    return task.calibration


# ---- a run


def test_a_run_carries_what_its_held_out_clips_settled(run: Path) -> None:
    predictor, results = Predictor.load(run, device="cpu"), read_json(run / "results.json")
    assert (calibration_of(run).clips, calibration_of(run).groups) == (HELD_OUT, HELD_OUT)
    assert predictor.distance
    assert results["settled"] == {
        "split": "val",
        "clips": HELD_OUT,
        "groups": HELD_OUT,
        "shortage": "",
        "measured": True,
        "distance": True,
    }
    assert results["calibration_error"] == pytest.approx(results["calibration"]["error"])
    assert {row["known"] for row in read_csv(run / "predictions.csv")} <= {"yes", "no"}
    assert sum(one.nbytes for one in open_model(run).beside().values()) < 2**20
    assert tubelet.load(run).state_dict().keys() == open_model(run).tensors().keys()


def test_report_and_card_say_what_a_probability_is_worth(run: Path) -> None:
    page, card = (run / "report.html").read_text(), (run / "README.md").read_text()
    assert page.count("<svg") == 3
    for text in (page, card):
        assert f"{HELD_OUT} clips of {HELD_OUT} groups" in text
        assert "by fits on other groups" in text


def test_few_held_out_clips_settle_nothing_and_it_is_said(tmp_path: Path) -> None:
    data, out = write_videos(tmp_path / "few", 6), tmp_path / "run"
    assert command("train", data, "--out", out, *TINY_FLAGS) == 0
    settled, predictor = read_json(out / "results.json")["settled"], Predictor.load(out, device="cpu")
    assert predictor.task == Classification(("bright", "dark"))
    assert predictor.distance is None
    assert not settled["distance"]
    assert {str(settled["clips"]), str(FEWEST_CLIPS)} <= set(settled["shortage"].split())
    for name in ("report.html", "README.md"):
        assert settled["shortage"] in (out / name).read_text()


def test_validation_clips_settle_what_test_clips_measure(clips: Path, tmp_path: Path) -> None:
    splits = ["train"] * 18 + ["val"] * 16 + ["test"] * 6
    rows = [f"{clips}/{name}/{i}.mp4,{name},{splits[i]}" for name in ("bright", "dark") for i in range(CLIPS)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    assert command("train", tmp_path / "t.csv", "--out", tmp_path / "run", *TINY_FLAGS) == 0
    results = read_json(tmp_path / "run" / "results.json")
    assert (results["split"], results["clips"], results["calibration"]["bins"][0][2] <= 12) == ("test", 12, True)
    assert (results["settled"]["split"], results["settled"]["clips"], results["settled"]["measured"]) == (
        "val",
        32,
        False,
    )
    assert "by fits on other groups" not in (tmp_path / "run" / "report.html").read_text()
    found = evaluate(Predictor.load(tmp_path / "run", device="cpu"), tmp_path / "t.csv", show=False)
    assert found.results.to_json().items() <= results.items()


def test_evaluation_of_the_clips_that_settled_it_gives_the_results_of_the_run(
    run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert command("eval", run, clips, "--csv", tmp_path / "p.csv", *CPU, "--json") == 0
    found, own = json.loads(capsys.readouterr().out), read_json(run / "results.json")
    shared = (own.keys() & found.keys()) - {"split"}
    assert {"calibration", "accuracy", "mean_confidence"} <= shared
    close = {name for name in shared if isinstance(own[name], float)}
    assert {name: found[name] for name in close} == pytest.approx({name: own[name] for name in close}, abs=1e-5)
    assert found["calibration"]["coverage"] == own["calibration"]["coverage"]
    for there, here in zip(read_csv(tmp_path / "p.csv"), read_csv(run / "predictions.csv"), strict=True):
        assert float(there.pop("probability")) == pytest.approx(float(here.pop("probability")), abs=2e-6)
        words = [name for name in here if name[:2] != "p:" and name != "distance"]
        assert {name: there[name] for name in words} == {name: here[name] for name in words}


# ---- several classes at once


def test_a_run_of_several_classes_carries_what_its_held_out_clips_settled(tagged: Path) -> None:
    predictor, results = Predictor.load(tagged, device="cpu"), read_json(tagged / "results.json")
    labelled = HELD_OUT - 2
    settled = {"split": "val", "clips": labelled, "groups": labelled, "shortage": "", "measured": True}
    assert results["settled"] == settled | {"distance": True}
    assert isinstance(predictor.task, MultiLabel)
    assert predictor.task.calibration
    assert (predictor.task.calibration.clips, predictor.task.thresholds) == (labelled, ())
    assert (results["clips"], results["unlabelled"], results["chosen_thresholds"]) == (labelled, 0, False)
    assert sum(clips for *_, clips in results["calibration"]["bins"]) == 2 * labelled
    assert predictor.distance
    for name in ("report.html", "README.md"):
        text = (tagged / name).read_text()
        assert f"{labelled} clips of {labelled} groups" in text
        assert "by fits on other groups" in text


def test_probabilities_of_several_classes_are_tempered_and_a_set_goes_with_them(
    tagged: Path, more: Path, tmp_path: Path
) -> None:
    file, files = open_model(tagged), sorted(more.rglob("*.mp4"))
    about = file.about
    fit = Calibration.from_json(about["task"].pop("calibration"))
    save(file.load(), tmp_path / "old", about=about)
    before, after = (Predictor.load(one, device="cpu").predict_files(files) for one in (tmp_path / "old", tagged))
    for raw, one in zip(before, after, strict=True):
        assert (raw.label, raw.likely, raw.known) == (one.label, [], None)
        for name, p in raw.probabilities.items():
            logit = np.log(p / (1 - p)) / fit.temperature
            assert one.probabilities[name] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
        assert one.likely == ([name for name, p in one.probabilities.items() if p >= fit.least] or ["(none)"])


def test_files_unlike_the_training_are_told_and_the_likeliest_class_named(
    tagged: Path, more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    strange, usual = "stripes/0.mp4", f"dark/{CLIPS}.mp4"
    monkeypatch.chdir(more)
    capsys.readouterr()
    assert command("predict", tagged, strange, usual, *CPU) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if ".mp4" in line)
    assert "none of these (nearest: " in first
    assert "none of these (nearest: (none))" not in first
    assert "none of these" not in second
    assert command("predict", tagged, strange, usual, *CPU, "--csv", tmp_path / "p.csv") == 0
    rows = read_csv(tmp_path / "p.csv")
    assert [row["known"] for row in rows] == ["no", "yes"]
    assert rows[1]["predicted"] == rows[1]["likely"] == "(none)"


def test_evaluation_of_several_classes_gives_the_results_of_the_run_and_tells_unknown_ones(
    tagged: Path, more: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert command("eval", tagged, place / "tags.csv", *CPU, "--json") == 0
    found, own = json.loads(capsys.readouterr().out), read_json(tagged / "results.json")
    for name in ("mean_average_precision", "macro_f1"):
        assert found[name] == pytest.approx(own[name], abs=1e-5)
    for name in ("error", "error_before", "coverage", "set_size"):
        assert found["calibration"][name] == pytest.approx(own["calibration"][name], abs=1e-4)
    labels = {"bright": "bright;lit", "dark": "(none)", "stripes": "lit;stripes"}
    rows = [f"{file},{labels[file.parent.name]}" for file in sorted(more.rglob("*.mp4"))]
    (more / "tags.csv").write_text("\n".join(["path,label", *rows]))
    assert command("eval", tagged, more / "tags.csv", *CPU) != 0
    assert "--unknown" in capsys.readouterr().err
    assert command("eval", tagged, more / "tags.csv", "--unknown", *CPU, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    (more / "tags.csv").unlink()
    assert (found["clips"], found["unknown"]["clips"], found["unknown"]["told"]) == (12, 5, 1.0)


# ---- predictions


def test_probabilities_are_tempered_and_a_set_goes_with_them(run: Path, old: Path, more: Path) -> None:
    files, fit = sorted(more.rglob("*.mp4")), calibration_of(run)
    before, after = (Predictor.load(one, device="cpu").predict_files(files) for one in (old, run))
    for raw, one in zip(before, after, strict=True):
        assert raw.label == one.label
        chances = raise_to(np.array([raw.probabilities[name] for name in one.probabilities]), 1 / fit.temperature)
        assert list(one.probabilities.values()) == pytest.approx(list(chances), abs=1e-5)
        expected = [name for name, p in one.probabilities.items() if p >= min(fit.least, one.probability or 0)]
        assert one.likely == expected


def test_files_like_none_of_the_training_are_told(
    run: Path, more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    strange, usual = "stripes/0.mp4", f"dark/{CLIPS}.mp4"
    monkeypatch.chdir(more)
    capsys.readouterr()
    assert command("predict", run, strange, usual, *CPU) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if ".mp4" in line)
    assert "none of these (nearest: " in first
    assert "none of these" not in second
    assert command("predict", run, strange, "--no-abstain", *CPU) == 0
    assert "none of these" not in capsys.readouterr().out
    assert command("predict", run, strange, usual, *CPU, "--json") == 0
    told, kept = map(json.loads, capsys.readouterr().out.splitlines())
    assert (told["known"], kept["known"]) == (False, True)
    assert told["distance"] > 1 >= kept["distance"]
    assert told["label"] in ("bright", "dark")
    assert kept["likely"][0] == kept["label"] == "dark"
    assert command("predict", run, strange, usual, *CPU, "--csv", tmp_path / "p.csv") == 0
    rows = read_csv(tmp_path / "p.csv")
    assert [row["known"] for row in rows] == ["no", "yes"]
    assert [row["likely"] for row in rows] == [";".join(one["likely"]) for one in (told, kept)]
    assert float(rows[0]["distance"]) == pytest.approx(told["distance"], abs=1e-4)


def test_checkpoints_without_calibration_answer_as_before(
    old: Path, more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert command("predict", old, more, *CPU, "--json") == 0
    for line in capsys.readouterr().out.splitlines():
        answer = json.loads(line)
        assert (answer["likely"], answer["distance"], answer["known"]) == ([], None, None)
        clip = Predictor.load(old, device="cpu").predict(answer["path"])
        assert answer["probability"] == pytest.approx(clip.probability)
    assert command("predict", old, more, *CPU, "--csv", tmp_path / "p.csv") == 0
    assert {row[name] for row in read_csv(tmp_path / "p.csv") for name in CALIBRATED} == {""}
    with pytest.raises(ValueError, match="--unknown"):
        evaluate(Predictor.load(old, device="cpu"), more, unknown=True, show=False)


@pytest.mark.parametrize("change", ["distance.mean", "distance.limit", "task"])
def test_a_damaged_checkpoint_is_named(run: Path, tmp_path: Path, change: str) -> None:
    file = open_model(run)
    about, beside = file.about, file.beside()
    if change == "task":
        about["task"]["calibration"]["temperature"] = 0
    else:
        beside[change] = beside[change] * torch.nan
    save(file.load(), tmp_path, about=about, beside=beside)
    with pytest.raises(ValueError, match="temperature" if change == "task" else change) as error:
        Predictor.load(tmp_path, device="cpu")
    assert str(tmp_path) in str(error.value)


# ---- evaluations


def test_how_well_unknown_classes_are_told_is_measured(
    run: Path, more: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert command("eval", run, more, *CPU) != 0
    assert "--unknown" in capsys.readouterr().err
    assert command("eval", run, more, "--unknown", *CPU, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["clips"], found["unknown"]["clips"]) == (12, 5)
    assert (found["unknown"]["auroc"], found["unknown"]["told"], found["unknown"]["false_alarms"]) == (1.0, 1.0, 0.0)
    assert {row["label"]: row["support"] for row in found["per_class"]} == {"bright": 6, "dark": 6}
    assert command("eval", run, more, "--unknown", *CPU) == 0
    assert "AUROC 1.000" in capsys.readouterr().out


def test_unknown_classes_need_some_and_a_model_that_tells_them(run: Path, more: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(run, device="cpu")
    for name in ("bright", "dark"):
        shutil.copytree(more / name, tmp_path / "known" / name)
    with pytest.raises(ValueError, match="--unknown"):
        evaluate(predictor, tmp_path / "known", unknown=True, show=False)
    shutil.copytree(more / "stripes", tmp_path / "foreign" / "stripes")
    with pytest.raises(ValueError, match="bright, dark"):
        evaluate(predictor, tmp_path / "foreign", unknown=True, show=False)


# ---- exports


@pytest.mark.parametrize("name", ["run", "tagged"])
def test_an_exported_model_is_calibrated_and_says_that_it_never_abstains(
    name: str, more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    run: Path = request.getfixturevalue(name)
    about = export(run, tmp_path / "onnx", clips=2, show=False)
    assert about["left_out"] == ["distance"]
    assert any("none of these" in note for note in about["report"]["notes"])
    files = sorted(more.rglob("*.mp4"))
    exported, own = (Predictor.load(one, device="cpu") for one in (tmp_path / "onnx", run))
    assert exported.task == own.task
    for there, here in zip(exported.predict_files(files), own.predict_files(files), strict=True):
        assert there.probabilities == pytest.approx(here.probabilities, abs=1e-4)
        assert replace(there, probabilities={}, probability=None) == replace(
            here, probabilities={}, probability=None, distance=None, known=None
        )
    capsys.readouterr()
    assert command("predict", tmp_path / "onnx", files[0]) == 0
    assert "none of these" in capsys.readouterr().err
