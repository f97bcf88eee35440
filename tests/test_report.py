"""The report and the model card: what a reader is shown, hostile names, pages that stand alone."""

import ast
import base64
import io
import re
import wave
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from naming import naming
from PIL import Image
from test_tasks import random_answers

import tubelet.report
from tubelet.data.table import Item
from tubelet.evaluate.clips import measure_answers
from tubelet.predict.answer import Answer
from tubelet.report.page import Finished, write_card, write_report
from tubelet.report.plots import curve_svg, reliability_svg, sound_uri, strip_uri
from tubelet.tasks import Classification, MultiLabel, Regression, Task

DIRECTIONS = ["left", "right", "up", "down"]
NBSP = "\N{NO-BREAK SPACE}"


def make_run(
    path: Path,
    *,
    classes: list[str] | None = None,
    answers: tuple[np.ndarray, np.ndarray] | None = None,
    failed: tuple[str, ...] = (),
    items: tuple[str, ...] = (),
    kind: str = "video",
    split: str = "val",
    single_frame: float | None = None,
) -> Finished:
    classes = DIRECTIONS if classes is None else classes
    labels, probabilities = random_answers(len(classes), 60, seed=0) if answers is None else answers
    names = [*items, *(f"clips/{i:03d}.mp4" for i in range(len(items), len(labels)))]
    given = [Answer(Item(name, classes[label]), row) for name, label, row in zip(names, labels, probabilities)]
    given += [
        Answer(Item(name, classes[i % len(classes)]), None, "E-EMPTY: the file is empty", "empty")
        for i, name in enumerate(failed)
    ]
    counts = {"train": {name: 40 + i for i, name in enumerate(classes)}, "val": {classes[0]: 7}}
    found = finish(path, Classification(tuple(classes)), given, counts=counts, kind=kind, split=split)
    single = None if single_frame is None else {"accuracy": single_frame}
    return replace(found, results={**found.results, "single_frame": single})


def finish(
    path: Path, task: Task, answers: list[Answer], *, counts: dict[str, Any], kind: str = "video", split: str = "val"
) -> Finished:
    """A run at its end with these answers, and records of a training that went well."""
    path.mkdir()
    for name in ("results.json", "config.json", "predictions.csv"):
        (path / name).touch()
    evaluation = measure_answers(answers, task, split=split, views="1x1")
    data = {"root": "/home/ada/clips", "kind": kind, "fingerprint": "9f3a", "counts": counts, "notes": ["2 left out"]}
    data["clips"] = {split: sum(of.values()) for split, of in counts.items()}
    config = {"tubelet": "0.1.0", "data": data, "plan": ["time  about 12 minutes", "split 4:1"]}
    config |= {
        "model_name": "vivit2-Ti/16x2",
        "model": {"family": "vivit2"},
        "clip_spec": {"frames": 16},
        "train": {"lr": 0.0005, "augment": True},
    }
    score = task.figure_name
    metrics = [{"kind": "train", "step": s, "epoch": s / 10, "loss": 9 / s, score: 1 - 1 / s} for s in range(1, 300)]
    metrics += [{"kind": "val", "step": 10 * e, "epoch": e, "loss": 1 / e, score: 0.5 + e / 100} for e in range(1, 30)]
    kept = {"which": "last", "step": 299, "epoch": 29.9, score: None}
    results = {
        **evaluation.to_json(),
        "kept": kept,
        "single_frame": None,
        "frozen": None,
        "settled": None,
        "clips_per_second": 7.5,
    }
    return Finished(path, config, metrics, task, evaluation, results)


# A soft picture with grain, the like of a camera's, (16, 90, 160, 3).
GRAIN = np.random.default_rng(0).normal(0, 6, (16, 90, 160, 3))
FRAMES = (np.linspace(40, 200, 160)[:, None] + GRAIN).clip(0, 255).astype(np.uint8)


def frames_of(path: str) -> np.ndarray:
    return FRAMES


class Page(HTMLParser):
    """The tags with their attributes, the text, and the rows of the confusion table of a report."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def section(self, name: str) -> str:
        return re.search(rf'<section id="{name}".*?</section>', self.source, re.DOTALL)[0]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def cell(self, label: int, answer: int) -> str:
        """What opens at a click on a cell of the confusion table."""
        return re.search(rf'<div class="cell" id="cell-{label}-{answer}">.*?</ul>\s*</div>', self.source, re.DOTALL)[0]


def plain(html: str) -> str:
    return re.sub(r"<.*?>", "", html)


def report(run: Finished) -> Page:
    return Page(write_report(run, frames=frames_of))


def with_data(run: Finished, **values: object) -> Finished:
    return replace(run, config=run.config | {"data": run.config["data"] | values})


# --------------------------------------------------------------------------------------------------------- headline


def test_headline_says_the_accuracy_its_interval_and_the_baselines(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(4), 32)
    answers = np.where(np.arange(128) < 9, (labels + 1) % 4, labels)
    page = report(make_run(tmp_path / "run", answers=(labels, np.eye(4)[answers] * 0.6 + 0.1), single_frame=0.31))
    assert "<title>93.0" in page.source
    assert f"95{NBSP}% interval: 87.2{NBSP}% to 96.3{NBSP}%" in page.text
    sentence = re.search('<p class="sentence">(.*?)</p>', page.source)[1]
    for value in (f"93.0{NBSP}%", "128 clips it never saw", "“left”", f"25.0{NBSP}%", "one frame", f"31.0{NBSP}%"):
        assert value in sentence
    widths = re.findall(r'<i (?:class="model" )?style="width:([\d.]+)%', page.source)
    assert [float(width) for width in widths] == [92.97, 31, 25]
    assert "Not clearly better" not in page.text


@pytest.mark.parametrize(("single_frame", "warned"), [(0.40, False), (0.60, True), (0.75, True)])
def test_a_baseline_inside_or_above_the_interval_is_a_warning(
    tmp_path: Path, single_frame: float, warned: bool
) -> None:
    labels = np.repeat(np.arange(4), 15)
    answers = np.where(np.arange(60) % 3 == 0, (labels + 1) % 4, labels)  # two thirds right: 54 to 77 %
    page = report(make_run(tmp_path / "run", answers=(labels, np.eye(4)[answers]), single_frame=single_frame))
    assert ("Not clearly better than a model given one frame of each clip" in page.text) == warned
    assert "Not clearly better than always" not in page.text


@pytest.mark.parametrize(("learned", "warned"), [(None, False), (0.80, False), (0.97, True)])
def test_what_was_learned_by_heart_is_said(tmp_path: Path, learned: float | None, warned: bool) -> None:
    labels = np.repeat(np.arange(4), 15)
    answers = np.where(np.arange(60) % 3 == 0, (labels + 1) % 4, labels)  # two thirds right
    run = make_run(tmp_path / "run", answers=(labels, np.eye(4)[answers]))
    page = report(replace(run, results={**run.results, "on_training_clips": learned}))
    assert ("Learned by heart" in page.text) == warned
    assert (f"97.0{NBSP}%" in page.text) == warned


def test_files_that_failed_are_counted_and_listed(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run", failed=tuple(f"bad {i}.mp4" for i in range(203))))
    labels, probabilities = random_answers(4, 60, seed=0)
    right = (probabilities.argmax(1) == labels).sum()
    assert f"<dd>{100 * right / 263:.1f}{NBSP}%</dd>" in page.source
    assert "203 more files could not be read" in page.text
    assert "bad 0.mp4" in page.section("failed")
    assert page.section("failed").count("E-EMPTY: the file is empty") == 200
    assert "And 3 more in predictions.csv." in page.section("failed")


def test_no_failed_file_is_said_too(tmp_path: Path) -> None:
    assert "all 60 could be read" in report(make_run(tmp_path / "run")).section("failed")


def test_classes_without_a_clip_are_named(tmp_path: Path) -> None:
    labels, probabilities = np.array([0, 1, 0]), np.eye(4)[[0, 1, 1]]
    page = report(make_run(tmp_path / "run", answers=(labels, probabilities)))
    assert "Not tested, for want of clips that could be read: up, down." in page.text
    assert "–" in page.section("classes")


def test_figures_on_the_training_split_say_so(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run", split="train", kind="sound"))
    assert "60 recordings it was trained on" in page.text
    assert "These recordings were used for training: the figures say nothing about new ones." in page.text


def test_nearly_all_is_not_called_all(tmp_path: Path) -> None:
    labels = np.zeros(3000, int)
    probabilities = np.eye(2)[(np.arange(3000) == 5).astype(int)]
    page = report(make_run(tmp_path / "run", classes=["yes", "no"], answers=(labels, probabilities)))
    assert f"99.97{NBSP}% right on 3000 clips" in page.text


# --------------------------------------------------------------------------------------------- curves, tables, strips


@pytest.mark.parametrize("k", [2, 20, 21, 50])
def test_confusion_table_holds_every_count(tmp_path: Path, k: int) -> None:
    classes = [f"class {i:02d}" for i in range(k)]
    answers = random_answers(k, 150, seed=k, right=0.4)
    table = report(make_run(tmp_path / "run", classes=classes, answers=answers)).section("confusion")
    shown = {(a, b): int(n) for a, b, n in re.findall(r'title="(class \d\d) → (class \d\d): (\d+)"', table)}
    for i, label in enumerate(classes):
        for j, answer in enumerate(classes):
            count = ((answers[0] == i) & (answers[1].argmax(1) == j)).sum()
            assert shown.get((label, answer), 0) == count
    assert table.count("<td") == k * k
    assert bool(re.search(r'">\d+</a></td>', table)) == (k <= 20)


def test_with_very_many_classes_the_confusions_are_a_list(tmp_path: Path) -> None:
    classes = [f"class {i:02d}" for i in range(51)]
    labels = np.arange(51)
    answers = np.where(labels == 7, 8, labels)
    run = make_run(tmp_path / "run", classes=classes, answers=(labels, np.eye(51)[answers]))
    section = report(run).section("confusion")
    assert "<table" not in section
    pairs = re.search('<ul class="pairs">.*?</ul>', section, re.DOTALL)[0]
    assert [plain(line) for line in re.findall("<li>.*</li>", pairs)] == ["1&nbsp;×class 07 taken for class 08"]
    assert re.findall('class="cell" id="(.*?)"', section) == ["cell-7-8"]  # no other can be reached


def test_the_weakest_class_comes_first_with_what_it_is_mistaken_for(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(4), 5)
    answers = labels.copy()
    answers[[10, 11, 12]] = 3  # "up": two of five found
    answers[0] = 1  # "left": four of five
    table = report(make_run(tmp_path / "run", answers=(labels, np.eye(4)[answers]))).section("classes")
    rows = re.findall(r"<tr><td>(.*?)</td>\s*<td>(.*?)<", re.sub("</?a.*?>", "", table))
    assert [name.split("<")[0] for name, _ in rows] == ["up", "left", "down", "right"]  # "down" also has false answers
    assert rows[0] == ("up<small>most often mistaken for down</small>", f"40.0{NBSP}%")
    assert rows[1] == ("left<small>most often mistaken for right</small>", f"80.0{NBSP}%")


def test_the_twelve_most_confident_mistakes_are_shown_as_strips(tmp_path: Path) -> None:
    labels, probabilities = random_answers(4, 80, seed=3, right=0.3)
    run = make_run(tmp_path / "run", answers=(labels, probabilities))
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    expected = [f"clips/{i:03d}.mp4" for i in sorted(wrong, key=lambda i: -probabilities[i].max())[:12]]
    asked: list[str] = []

    def frames(path: str) -> np.ndarray:
        asked.append(path)
        return frames_of(path)

    page = Page(write_report(run, frames=frames))
    assert asked[:12] == expected
    assert len(set(asked)) == len(asked)
    assert re.findall(r"<code>(clips.*?)</code>", page.section("mistakes")) == expected
    assert page.section("mistakes").count("<img") == 12
    assert f"{len(wrong)} clips not answered right, the 12" in page.text


@pytest.mark.parametrize(("k", "n"), [(4, 300), (12, 300), (20, 2000)])
def test_each_cell_opens_its_clips_in_order(tmp_path: Path, k: int, n: int) -> None:
    classes = [f"class {i:02d}" for i in range(k)]
    labels, probabilities = random_answers(k, n, seed=k, right=0.2)
    answers = probabilities.argmax(axis=1)
    page = report(make_run(tmp_path / "run", classes=classes, answers=(labels, probabilities)))
    pictures = 0
    for i in range(k):
        for j in range(k):
            rows = np.flatnonzero((labels == i) & (answers == j))
            assert page.source.count(f'href="#cell-{i}-{j}"') >= (len(rows) > 0)
            assert page.source.count(f'id="cell-{i}-{j}"') == (len(rows) > 0)
            if not len(rows):
                continue
            cell, sign = page.cell(i, j), 1 if i == j else -1
            chances = probabilities[rows, answers[rows]]
            order = [f"clips/{row:03d}.mp4" for row in rows[np.argsort(sign * chances, kind="stable")]]
            shown = re.findall(r"<code>(.*?)</code>", cell)
            if len(rows) <= 100:
                assert sorted(shown) == sorted(order)
            else:
                assert f"{len(rows) - 100} more in predictions.csv" in cell
            listed = re.findall(r"<code>(.*?)</code>", cell[cell.index("<ul") :])
            pictured = re.findall(r"<code>(.*?)</code>", cell[: cell.index("<ul")])
            assert pictured + listed == sorted(pictured, key=order.index) + sorted(listed, key=order.index)
            assert len(pictured) == cell.count("<img") <= (0 if i == j else len(rows))
            assert not pictured or pictured[0] == order[0]
            pictures += len(pictured)
            for path, chance in re.findall(r"<b>(\d+)\S%</b><span><code>(.*?)</code>", cell):
                assert abs(float(path) / 100 - probabilities[int(chance[6:9])].max()) <= 0.006
    assert pictures <= 60 + 12


def test_a_file_that_is_still_there_is_linked_from_the_page(tmp_path: Path) -> None:
    names = ["a b#1.mp4", "javascript:alert(1).mp4", "part.mp4#t=1.5,4", "gone.mp4", "100%&amp;.mp4"]
    data = tmp_path / "my data"
    data.mkdir()
    for name in ("a b#1.mp4", "javascript:alert(1).mp4", "part.mp4", "100%&amp;.mp4"):
        (data / name).write_bytes(b"")
    answers = (np.zeros(5, int), np.eye(4)[[1, 1, 1, 2, 0]])
    run = make_run(tmp_path / "run", answers=answers, items=tuple(names))
    page = report(with_data(run, root=str(data)))
    links = {link["href"] for link in page.all("a") if not link["href"].startswith("#")}
    assert all(link.startswith("./") for link in links)
    targets = {urljoin(run.path.absolute().as_uri() + "/", link) for link in links}
    assert targets == {(data / name).as_uri() for name in (names[0], names[1], names[4])} | {
        (data / "part.mp4").as_uri() + "#t=1.5,4"
    }


def test_a_mistake_whose_file_is_gone_keeps_its_place(tmp_path: Path) -> None:
    answers = (np.array([0, 1, 1]), np.eye(4)[[0, 1, 2]])
    page = Page(write_report(make_run(tmp_path / "run", answers=answers), frames=lambda path: None))
    assert "1 clip not answered right" in page.text
    assert "could not be read again" in page.section("mistakes")
    assert "clips/002.mp4" in page.section("mistakes")
    assert not page.all("img")


def test_no_mistake_is_said(tmp_path: Path) -> None:
    labels = np.arange(4)
    page = report(make_run(tmp_path / "run", answers=(labels, np.eye(4))))
    assert "There are none: every clip that could be read was answered right." in page.section("mistakes")
    assert not page.all("img")


@pytest.mark.parametrize(("count", "shown"), [(1, [0]), (3, [0, 1, 2]), (7, range(7)), (25, range(0, 25, 4))])
def test_a_strip_shows_frames_from_the_first_to_the_last(count: int, shown: list[int]) -> None:
    levels = np.linspace(0, 240, count).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (count, 30, 40, 3))
    uri = strip_uri(frames)
    assert uri.startswith("data:image/jpeg;base64,")
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("L"))
    n = len(shown)
    centres = [int((i + 0.5) * strip.shape[1] / n) for i in range(n)]
    np.testing.assert_allclose(strip[strip.shape[0] // 2, centres], levels[list(shown)], atol=3)


@pytest.mark.parametrize("shape", [(1, 2, 2000, 3), (40, 2000, 2, 3), (16, 1080, 1920, 3), (1, 1, 1, 3)])
def test_a_strip_stays_inside_its_size(shape: tuple[int, ...]) -> None:
    strip = Image.open(io.BytesIO(base64.b64decode(strip_uri(np.zeros(shape, np.uint8)).split(",")[1])))
    assert strip.width <= 1120
    assert strip.height <= 200


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((4, 8, 8, 3)),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((3, 4, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_frames_of_another_shape_or_type_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match=naming(frames.dtype, frames.shape, "uint8", "(T, H, W, 3)")):
        strip_uri(frames)


def test_curves_take_colour_and_type_from_the_page_and_stay_small() -> None:
    train = [(step / 1000, 1 / (1 + step)) for step in range(100_000)]
    svg = curve_svg(train, [(1.0, 0.5), (2.0, 0.25)], name="loss")
    assert len(svg) < 20_000
    assert not re.search(r"#[0-9a-f]{6}|font-family|<metadata|<style|xmlns", svg)
    assert {"var(--train)", "var(--accent)", "var(--muted)"} <= set(re.findall(r"var\(--\w+\)", svg))
    line = re.search(r'<path d="([^"]*)"[^>]*var\(--train\)', svg)[1]
    assert len(re.findall(r"[ML] ", line)) <= 120


def test_best_epoch_and_losses_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.metrics.append({"kind": "train", "step": 300, "epoch": 30, "loss": None, "accuracy": 0.1})
    page = report(run)
    told = re.search("<p>(.*?)</p>", page.section("curves"), re.DOTALL)[1]
    for value in ("30 epochs", f"79.0{NBSP}%", "epoch 29", "not a finite number in 1 record"):
        assert value in told
    assert page.section("curves").count("<svg") == 2


@pytest.mark.parametrize(
    ("kept", "values"),
    [
        ({"which": "best", "step": 120, "epoch": 12.04, "accuracy": 0.781}, ("step 120", "epoch 12", f"78.1{NBSP}%")),
        (
            {"which": "last", "step": 299, "epoch": 29.9, "accuracy": None},
            ("last weights", "step 299", f"79.0{NBSP}%", "epoch 29", "chose nothing"),
        ),
    ],
)
def test_which_weights_are_kept_is_told(tmp_path: Path, kept: dict[str, object], values: tuple[str, ...]) -> None:
    run = make_run(tmp_path / "run")
    run = replace(run, results=run.results | {"kept": kept})
    told = re.search("<p>(.*?)</p>", report(run).section("curves"), re.DOTALL)[1]
    assert all(value in told for value in values)
    assert ("chose nothing" in told) == (kept["which"] == "last")
    run = replace(run, metrics=[{"kind": "val", "epoch": 1, "accuracy": None}])
    assert kept["which"] == "best" or "chose" not in report(run).section("curves")  # nobody looked


def test_a_run_without_records_is_drawn_without_curves(tmp_path: Path) -> None:
    section = report(replace(make_run(tmp_path / "run"), metrics=[])).section("curves")
    assert "no record" in section
    assert "<svg" not in section


def test_data_plan_and_settings_are_shown(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run"))
    rows = re.findall(r"<tr><t[dh]>(\w+)</t[dh]><td>(\d+)</td><td>(\d+)</td></tr>", page.section("data"))
    assert rows == [
        ("left", "40", "7"),
        ("right", "41", "0"),
        ("up", "42", "0"),
        ("down", "43", "0"),
        ("all", "166", "7"),
    ]
    assert "2 left out" in page.section("data")
    assert "time  about 12 minutes\nsplit 4:1" in page.section("settings")
    assert '<th scope="row">lr</th><td>0.0005</td>' in page.section("settings")
    assert '<th scope="row">augment</th><td>yes</td>' in page.section("settings")


def calibrated_run(path: Path, **settled: object) -> Finished:
    labels, probabilities = random_answers(4, 60, seed=0)
    groups = [str(i) for i in range(60)]
    task = Classification(tuple(DIRECTIONS)).settle(torch.from_numpy(labels), probabilities, groups)
    items = [Item(f"clips/{i}.mp4", DIRECTIONS[label]) for i, label in enumerate(labels)]
    values = task.calibrate(probabilities)
    given = [Answer(item, row) for item, row in zip(items, values, strict=True)]
    run = finish(path, task, given, counts={"train": {"left": 4}, "val": {"left": 60}})
    about = {"split": "val", "clips": 61, "groups": 59, "shortage": "", "measured": True, "distance": True}
    return replace(run, results=run.results | {"settled": about | settled})


def test_what_a_probability_is_worth_is_said_and_drawn(tmp_path: Path) -> None:
    run = calibrated_run(tmp_path / "run")
    found = run.summary.calibration
    assert found
    text, card = plain(report(run).section("calibration")), write_card(run).read_text()
    for said in (text, card):
        for value in ("61 clips of 59 groups", "other groups", f"{100 * found['coverage']:.1f}", "--unknown"):
            assert value in said.replace("\\", "")
    figure = re.search(r"<svg.*?</svg>", report(run).section("calibration"), re.DOTALL)[0]
    assert figure == reliability_svg(found["bins_before"], found["bins"]).strip()
    assert "#" not in re.sub(r"(url\(|href=\")#", "", figure), "all colours are the page's"
    plainer = report(calibrated_run(tmp_path / "other", measured=False, distance=False)).section("calibration")
    assert "other groups" not in plainer
    assert "--unknown" not in plainer


def test_probabilities_that_are_not_calibrated_are_called_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "own estimate." in plain(report(run).section("calibration"))
    about = {
        "split": "val",
        "clips": 7,
        "groups": 7,
        "shortage": "7 held-out clips",
        "measured": True,
        "distance": False,
    }
    run = replace(run, results=run.results | {"settled": about})
    for said in (plain(report(run).section("calibration")), write_card(run).read_text()):
        assert "7 held-out clips" in said.replace("\\", "")


def test_settings_that_are_not_set_are_not_listed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    train = {"lr": 0.0005, "init": None, "balance": "weights", "drop_path": 0.0, "new": {"a": None, "b": 2}, "none": []}
    run = replace(run, config=run.config | {"train": train})
    rows = dict(re.findall('<th scope="row">(.*?)</th><td>(.*?)</td>', report(run).section("settings")))
    shown = {"lr": "0.0005", "balance": "weights", "drop_path": "0.0", "new": "b 2"}
    assert {name: rows.get(name) for name in train} == dict.fromkeys(train) | shown
    card = write_card(run).read_text()
    assert "| train.balance | weights |" in card.replace("\\", "")
    assert not re.search(r"\| train\.(init|none) ", card)
    section = report(replace(run, config=run.config | {"train": {}, "clip_spec": {"patch": None}})).section("settings")
    assert "<summary>Model" in section
    assert not re.search("<summary>(Training|Clip)", section)


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (MultiLabel(("left", "up")), ["(none)", "(none)"]),
        (Regression(("left", "up"), (1.0, 2.0), (1.0, 1.0)), ["2;", "2;"]),
    ],
)
def test_figures_that_are_not_known_are_no_numbers(tmp_path: Path, task: Task, labels: list[str]) -> None:
    """No test clip has a class, or all have one number: nothing can be said, and that is."""
    values = np.array([[0.75, 0.5], [0.5, 0.25]], np.float32)
    answers = [Answer(Item(f"{i}.mp4", label), row) for i, (label, row) in enumerate(zip(labels, values))]
    run = finish(tmp_path / "run", task, answers, counts={"train": {}, "val": {}})
    figure = run.results[run.summary.figure_name]
    assert np.isnan(figure)
    assert run.summary.number(figure) == "–"
    page, card = report(run), write_card(run).read_text()
    assert not re.search(r"\bnan\b|nan%", page.source + card.split("---")[2])
    assert page.section("classes").count("<tr>") >= 2


def test_one_is_no_plural(tmp_path: Path) -> None:
    answers = (np.array([0]), np.ones((1, 1)))
    run = make_run(tmp_path / "run", classes=["only"], answers=answers, failed=("bad.mp4",), kind="image")
    run = replace(run, metrics=[{"kind": "train", "epoch": 1, "loss": None}])
    text = report(run).text + write_card(run).read_text()
    assert not re.search(r"\b1 (images|classes|epochs|records|mistakes|more files)", text)
    for words in ("1 class", "1 image", "Over 1 epoch.", "1 record:", "1 more file"):
        assert words in text


# ------------------------------------------------------------------------------------------------------------- sounds


def tone(seconds: float, *, rate: int = 16_000) -> np.ndarray:
    return (0.5 * np.sin(np.arange(round(seconds * rate)) * 0.1)).astype(np.float32)


@pytest.mark.parametrize(("seconds", "rate"), [(0.01, 8000), (1.5, 16_000), (30, 16_000)])
def test_a_sound_is_a_wav_of_the_same_samples(seconds: float, rate: int) -> None:
    samples = tone(seconds, rate=rate)
    samples[:3] = 7, -7, np.nan  # too loud is cut off, no number is silence
    uri = sound_uri(samples, rate)
    assert uri.startswith("data:audio/wav;base64,")
    assert len(uri) < 430_000
    with wave.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, rate)
        found = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    assert len(found) == min(len(samples), 160_000)
    assert found[:3].tolist() == [32767, -32767, 0]
    np.testing.assert_allclose(found[3:] / 32767, samples[3 : len(found)], atol=2e-5)


@pytest.mark.parametrize(
    ("samples", "rate"), [(np.zeros(9), 8000), (np.zeros((2, 9), np.float32), 8000), (np.zeros(0, np.float32), 8000)]
)
def test_sound_of_another_type_or_shape_is_refused(samples: np.ndarray, rate: int) -> None:
    with pytest.raises(ValueError, match=naming(samples.dtype, samples.shape, "8000 Hz")):
        sound_uri(samples, rate)


def test_mistakes_can_be_heard_where_they_are_seen(tmp_path: Path) -> None:
    labels, probabilities = random_answers(4, 60, seed=3, right=0.3)
    run = make_run(tmp_path / "run", answers=(labels, probabilities), kind="sound")
    asked: list[str] = []

    def sounds(path: str) -> tuple[np.ndarray, int] | None:
        asked.append(path)
        return None if len(asked) == 2 else (tone(0.01 * len(asked)), 16_000)

    page = Page(write_report(run, frames=frames_of, sounds=sounds))
    heard = page.all("audio")
    assert len(set(asked)) == len(asked) > 12
    assert page.section("mistakes").count("<audio") == 11
    assert len(heard) == 11 + len(asked) - 1
    assert all(one["src"].startswith("data:audio/wav;base64,") and "controls" in one for one in heard)
    assert "autoplay" not in page.source
    assert len({one["src"] for one in heard}) == len(asked) - 1


def test_sounds_take_no_more_of_a_page_than_they_may(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", answers=random_answers(4, 300, seed=3, right=0.3), kind="sound")
    rng = np.random.default_rng(0)
    noise = rng.uniform(-1, 1, 160_000).astype(np.float32)
    path = write_report(run, frames=lambda path: None, sounds=lambda path: (noise, 16_000))
    assert path.stat().st_size < 6_500_000
    assert len(Page(path).all("audio")) == 14  # the first seven mistakes, here and in their cells


# --------------------------------------------------------------------------------------------------- safe and portable


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    classes = ["<b>x</b>", "say \"hi\" & 'bye'", "</style><script>alert(1)</script>", "{{ 7 * 7 }}"]
    items = ('a"onerror="alert(1).mp4', "<img src=x>.mp4", "new\nline \x1b[31m \u202egpj.mp4")
    answers = (np.array([1, 2, 3, 0]), np.eye(4)[[0, 0, 0, 1]])
    page = report(make_run(tmp_path / "run", classes=classes, answers=answers, items=items, failed=("<i>bad</i>",)))
    for name in (*classes, *items[:2], "<i>bad</i>", r"new\nline \x1b[31m \u202egpj.mp4"):
        assert name in page.text
    assert not page.all("script")
    assert page.source.count("<b>") == 4 + 4  # the counts of the four confusions and the chances in their cells
    assert len(page.all("img")) == 4 + 4  # among the mistakes, and in their cells
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert (
        page.all("meta")[3]["content"]
        == "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
    )


def test_a_file_name_that_is_no_utf8_is_asked_for_as_it_is_and_shown_spelled_out(tmp_path: Path) -> None:
    asked = []
    run = make_run(tmp_path / "run", answers=(np.array([0]), np.eye(4)[[1]]), items=("caf\udce9.mp4",))
    page = Page(write_report(run, frames=lambda path: asked.append(path)))
    assert asked == ["caf\udce9.mp4"]
    assert r"caf\udce9.mp4" in page.text


def test_the_page_stands_alone(tmp_path: Path) -> None:
    classes = [f"a rather long name of an activity, number {i}" for i in range(40)]
    path = write_report(
        make_run(tmp_path / "run", classes=classes, answers=random_answers(40, 900, seed=5)), frames=frames_of
    )
    page = Page(path)
    assert not re.search(r"https?:|@import|url\((?!#)|<link|<script|<iframe", page.source)
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert all(link["href"].startswith("#") for link in page.all("a"))
    assert path.stat().st_size < 1_500_000


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    first = write_report(run, frames=frames_of).read_bytes()
    assert write_report(run, frames=frames_of).read_bytes() == first
    assert write_card(run).read_bytes() == write_card(run).read_bytes()


def test_a_report_that_cannot_be_drawn_leaves_the_old_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    before = write_report(run, frames=frames_of).read_bytes()
    with pytest.raises(ValueError, match=naming("float64", "(3,)")):
        write_report(run, frames=lambda path: np.zeros(3))
    assert (run.path / "report.html").read_bytes() == before
    assert sorted(path.name for path in run.path.iterdir() if path.name.startswith(".")) == []


def test_importing_the_report_is_cheap() -> None:
    """What draws is imported when something is drawn."""
    for file in Path(tubelet.report.__file__).parent.glob("*.py"):
        first = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not re.search(r"\b(matplotlib|jinja2|PIL)\b", "\n".join(map(ast.unparse, first)))


# ------------------------------------------------------------------------------------------------------------- card


@pytest.mark.parametrize(
    ("kind", "task"),
    [("video", "video-classification"), ("image", "image-classification"), ("sound", "audio-classification")],
)
def test_the_card_is_one_that_the_hub_can_read(tmp_path: Path, kind: str, task: str) -> None:
    run = make_run(tmp_path / "run", kind=kind)
    card = ModelCard(write_card(run).read_text(encoding="utf-8"))
    assert (card.data.library_name, card.data.pipeline_tag) == ("tubelet", task)
    accuracy = card.data.eval_results[0]
    assert (accuracy.task_type, accuracy.metric_type, accuracy.dataset_name) == (task, "accuracy", "clips")
    assert accuracy.metric_value == pytest.approx(run.results["accuracy"], abs=1e-4)


def test_the_card_says_how_to_use_it_and_where_it_ends(tmp_path: Path) -> None:
    text = write_card(make_run(tmp_path / "run", split="train", single_frame=0.99)).read_text(encoding="utf-8")
    for line in (
        "tubelet predict RUN FILE",
        'predictor = tubelet.Predictor.load("RUN")',
        "## Limits",
        "- results.json: ",
    ):
        assert line in text
    assert "> **Warning.** Not clearly better than a model given one frame of each clip" in text
    assert "| left | 40 | 7 |" in text
    assert "/home/ada" not in text


def test_names_cannot_break_the_card(tmp_path: Path) -> None:
    classes = ["a|b", "<script>x</script>", "new\nline", "*[`_"]
    text = write_card(make_run(tmp_path / "run", classes=classes)).read_text(encoding="utf-8")
    assert r"| a\|b | 40 | 7 |" in text
    assert "<script>" not in text
    assert r"| new\\nline | 42 | 0 |" in text
    assert r"| \*\[\`\_ | 43 | 0 |" in text
    ModelCard(text)
