"""Segments as pictures, pages and cards: bars that stand where segments are, the worst first, hostile names."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from huggingface_hub import ModelCard
from matplotlib.colors import to_hex
from test_report import Page

from tubelet.data.segments import Recording, Span
from tubelet.evaluate.segments import SegmentEvaluation, rows
from tubelet.predict.tables import SEGMENTS, write_segments
from tubelet.report.segments import FinishedSegments, choose_recordings, write_segment_card, write_segment_report
from tubelet.stream.canvas import drawing
from tubelet.stream.lanes import BAR, Inks, draw_lanes, make_lanes
from tubelet.stream.segments import Segment
from tubelet.system.text import read_path_cell, read_text_cell
from tubelet.tasks.detection import MET_TIOU, Found, Row, highest_tious, mean_average_precision, precision_curves
from tubelet.tasks.segments import measure_segments

NAMES = ("run", "walk", "wave")
HOSTILE = ("</style><script>alert(1)</script>", "{{ 7 * 7 }} & $x_1$", "gpj.\u202egnp", "שלום ימין")
Truth = dict[str, Sequence[Span]]
VOID = {"meta", "img", "br", "input", "link", "hr"}


def frames_of(path: str, start: float, end: float) -> np.ndarray:
    return np.full((7, 24, 32, 3), 90, np.uint8)


def finish(
    path: Path,
    truth: Truth,
    found: list[Found],
    *,
    names: tuple[str, ...] = NAMES,
    seconds: float = 60.0,
    threshold: float = 0.5,
    failed: dict[str, str] | None = None,
    baselines: dict[str, list[Found]] | None = None,
    losses: Sequence[float] = (2.0, 1.0, 0.5),
) -> FinishedSegments:
    """A run at its end that was tested on recordings with these segments."""
    path.mkdir()
    recordings = tuple(Recording(name, seconds, tuple(there), "test") for name, there in truth.items())
    files = {one.path: seconds for one in recordings}
    results = measure_segments(
        rows(recordings),
        found,
        names=names,
        threshold=threshold,
        files=files,
        groups={name: name for name in files},
        baselines=baselines or {"hysteresis on windows": []},
        failed=len(failed or {}),
    )
    evaluation = SegmentEvaluation("test", recordings, rows(recordings), found, results, failed or {})
    counts = {"train": dict.fromkeys(names, 9), "test": Counter(label for *_, label in rows(recordings))}
    data = {"root": "/home/ada/films", "kind": "video", "fingerprint": "9f", "notes": ["no val clips for 'run'"]}
    config: dict[str, Any] = {"tubelet": "0.1.0", "model_name": "vivit1-P/16x2", "model": {"family": "vivit1"}}
    config |= {"data": data | {"counts": counts, "recordings": {"train": 8, "test": len(files)}}}
    config |= {"clip_spec": {"frames": 16}, "train": {"data": "/home/ada/films/t.csv", "epochs": 3}}
    return FinishedSegments(path, config, names, evaluation, results.to_json(), list(losses))


def draw_rows(seed: int, *, files: int, names: Sequence[str], seconds: float, each: int) -> tuple[Truth, list[Found]]:
    """True segments, most of which are found, and others that are not true."""
    rng, found = np.random.default_rng(seed), list[Found]()
    truth: Truth = {}
    for number in range(files):
        file, spans = f"{number:02d}.mp4", []
        for _ in range(each):
            start, length, label = rng.uniform(0, seconds - 9), rng.uniform(0.5, 8), str(rng.choice(names))
            spans.append((float(start), float(start + length), label))
            if rng.random() < 0.8:
                start = max(0.0, start + rng.normal())
            else:
                start = rng.uniform(0, seconds - 9)
            found.append((file, float(start), float(start + length), label, float(rng.random())))
        truth[file] = tuple(spans)
    return truth, found


def tiou(one: Sequence[Any], other: Sequence[Any]) -> float:
    both = max(0.0, min(one[2], other[2]) - max(one[1], other[1]))
    whole = one[2] - one[1] + other[2] - other[1] - both
    return both / whole if whole > 0 else 0.0


def report(run: FinishedSegments) -> Page:
    return Page(write_segment_report(run, frames=frames_of))


class Nesting(HTMLParser):
    """Fails where an element of a page is closed that is not the one opened last."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# ---- measures


@pytest.mark.parametrize("seed", range(5))
def test_the_highest_tiou_is_that_of_all_pairs(seed: int) -> None:
    truth, found = draw_rows(seed, files=3, names=NAMES, seconds=40, each=8)
    true_rows: list[Row] = [(file, *span) for file, spans in truth.items() for span in spans]
    for ones, others in ((true_rows, found), (found, true_rows)):
        expected = [max([0.0, *(tiou(a, b) for b in others if a[0] == b[0] and a[3] == b[3])]) for a in ones]
        np.testing.assert_allclose(highest_tious(ones, others), expected, atol=1e-12)
    assert highest_tious(true_rows, []).tolist() == [0.0] * len(true_rows)
    assert highest_tious([], found).tolist() == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_the_area_under_a_curve_is_the_average_precision(seed: int, threshold: float) -> None:
    truth, found = draw_rows(seed, files=3, names=NAMES, seconds=40, each=8)
    true_rows: list[Row] = [(file, *span) for file, spans in truth.items() for span in spans]
    expected = mean_average_precision(true_rows, found, [threshold])["per_class"]
    curves = precision_curves(true_rows, found, threshold)
    assert curves.keys() == expected.keys()
    for label, (recall, precision) in curves.items():
        area = (np.diff(recall, prepend=0) * precision).sum()
        assert area == pytest.approx(expected[label][0], abs=1e-12)
        assert (np.diff(recall) > 0).all()
        assert (np.diff(precision) <= 0).all()
    assert precision_curves(true_rows, [], threshold)[NAMES[0]].shape == (2, 0)


# ---- lanes


@pytest.mark.parametrize("with_truth", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_bars_stand_where_the_segments_are_and_are_as_strong_as_their_scores(seed: int, with_truth: bool) -> None:
    drawn, found_rows = draw_rows(seed, files=1, names=NAMES, seconds=60, each=12)
    truth = drawn["00.mp4"] if with_truth else None
    found, inks = [Segment(*one[1:]) for one in found_rows], Inks()
    with drawing():
        (axes,) = make_lanes(found, NAMES, seconds=60, truth=truth, inks=inks).axes
    assert axes.get_xlim() == (0, 60)
    lane = axes.get_ylim()[1] / len(NAMES)
    bars = [patch for patch in axes.patches if patch.get_height() == BAR]
    shown = []
    for bar in bars:
        number, place = divmod(axes.get_ylim()[1] - bar.get_y() - BAR / 2, lane)
        upper = with_truth and place < lane / 2
        span = (bar.get_x(), bar.get_x() + bar.get_width(), NAMES[int(number)])
        shown.append((upper, *span, to_hex(bar.get_facecolor()), None if upper else bar.get_alpha()))
    expected = []
    true_rows: list[Row] = [("00.mp4", *span) for span in truth or ()]
    for row in true_rows:
        met = any(tiou(row, other) >= MET_TIOU for other in found_rows if other[3] == row[3])
        expected.append((True, *row[1:], inks.true if met else inks.wrong, None))
    for row in found_rows:
        met = truth is None or any(tiou(row, other) >= MET_TIOU for other in true_rows if other[3] == row[3])
        expected.append((False, *row[1:4], inks.right if met else inks.wrong, 0.25 + 0.75 * row[4]))
    assert len(shown) == len(expected)
    for one, other in zip(sorted(shown, key=str), sorted(expected, key=str), strict=True):
        assert one[:1] + one[3:5] == other[:1] + other[3:5]
        assert one[1:3] == pytest.approx(other[1:3])
        assert one[5] == pytest.approx(other[5])


@pytest.mark.parametrize("suffix", [".svg", ".png"])
@pytest.mark.parametrize(
    ("names", "seconds", "each"), [(HOSTILE, 20.0, 9), (tuple(map(str, range(50))), 4 * 3600, 300)]
)
def test_the_same_picture_has_the_same_bytes_and_an_svg_is_xml(
    tmp_path: Path, suffix: str, names: tuple[str, ...], seconds: float, each: int
) -> None:
    truth, found_rows = draw_rows(0, files=1, names=names, seconds=seconds, each=each)
    found = [Segment(*one[1:]) for one in found_rows]
    for file in ("a", "b"):
        title = "<b>&\u202e.mp4"
        draw_lanes(tmp_path / (file + suffix), found, names, seconds=seconds, truth=truth["00.mp4"], title=title)
    first = (tmp_path / f"a{suffix}").read_bytes()
    assert first == (tmp_path / f"b{suffix}").read_bytes()
    if suffix == ".svg":
        texts = ["".join(one.itertext()) for one in ElementTree.fromstring(first).iter() if one.tag.endswith("}text")]
        assert "<b>&\\u202e.mp4" in texts
        assert names[1] in texts
        assert any(text.startswith(names[0][:8]) for text in texts)  # as much of it as fits
        assert not any(letter in text for text in texts for letter in "\u202e\n")


@pytest.mark.parametrize(
    ("found", "names", "seconds", "value"),
    [
        ([Segment(0, 1, "jump", 0.5)], NAMES, 10.0, "jump"),
        ([], (), 10.0, "none"),
        ([], NAMES, 0.0, "0 seconds"),
    ],
)
def test_lanes_that_cannot_be_drawn(
    tmp_path: Path, found: list[Segment], names: tuple[str, ...], seconds: float, value: str
) -> None:
    with pytest.raises(ValueError, match=value):
        draw_lanes(tmp_path / "a.svg", found, names, seconds=seconds)
    with pytest.raises(ValueError, match="hop"):
        draw_lanes(tmp_path / "a.svg", [], NAMES, seconds=9, truth=[(0, 1, "hop")])
    assert list(tmp_path.iterdir()) == []


# ---- page


def test_the_page_of_a_perfect_run(tmp_path: Path) -> None:
    truth, _ = draw_rows(1, files=6, names=NAMES, seconds=60, each=6)
    found = [(file, *span, 0.9) for file, spans in truth.items() for span in spans]
    run = finish(tmp_path / "run", truth, found)
    page = report(run)
    Nesting(page.source)
    assert "<title>mAP 1.00" in page.source
    assert "6 recordings it never saw" in page.text
    assert not page.all("img")
    assert "There are none" in page.section("misses")
    assert "There are none" in page.section("alarms")
    assert "Not clearly better" not in page.text
    assert "groups" not in page.text
    assert page.section("timelines").count("<svg") == 6
    assert "rgb(var(--miss))" not in "".join(re.findall("<svg.*?</svg>", page.section("timelines"), re.DOTALL))
    assert page.section("classes").count("<polyline") == 3


def test_the_page_of_a_run_that_found_nothing(tmp_path: Path) -> None:
    truth: Truth = {"a.mp4": [(1, 4, "run"), (5, 30, "walk")], "b.mp4": []}
    run = finish(tmp_path / "run", truth, [], failed={"c.mp4": "E-EMPTY: it is empty"}, losses=())
    page = report(run)
    Nesting(page.source)
    for words in ("Not clearly better than hysteresis on windows", "Tested on 2 groups", "holds them: wave"):
        assert words in page.text
    assert "1 more file could not be read" in page.text
    assert "E-EMPTY: it is empty" in page.section("failed")
    assert "1 of 3" in page.section("failed")
    assert "Nothing happens in it" in page.section("timelines")
    assert not re.search(r"\bnan\b", page.text)
    labels = re.findall("<strong>(.*?)</strong>", page.section("misses"))
    assert labels == ["walk", "run"]  # the longest first
    assert "<svg" not in page.section("curves")
    assert "href" not in page.section("curves")


def test_names_are_text_and_never_markup_and_the_page_stands_alone(tmp_path: Path) -> None:
    truth, found = draw_rows(2, files=7, names=HOSTILE, seconds=3600, each=60)
    hostile = 'a"onerror="alert(1).mp4'
    truth[hostile] = truth["00.mp4"]
    run = finish(tmp_path / "run", truth, found, names=HOSTILE, seconds=3600, failed={"<i>bad</i>": "<b>"})
    (run.path / "encoder").mkdir()
    (run.path / "encoder" / "report.html").touch()
    page = report(run)
    Nesting(page.source)
    for name in (HOSTILE[0], HOSTILE[1], r"gpj.\u202egnp", HOSTILE[3], "<i>bad</i>", hostile):
        assert name in page.text
    assert not page.all("script")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not re.search(r"https?:|@import|url\((?!#)|<link|<iframe", page.source)
    assert all((image["src"] or "").startswith("data:image/") for image in page.all("img"))
    assert {link["href"] for link in page.all("a")} == {"#failed", "./encoder/report.html"}
    assert (run.path / "report.html").stat().st_size < 1_500_000
    assert report(run).source == page.source


def test_fifty_classes_and_many_recordings_stay_readable(tmp_path: Path) -> None:
    names = tuple(f"class {number:02d}" for number in range(50))
    truth, found = draw_rows(3, files=20, names=names, seconds=3600, each=80)
    run = finish(tmp_path / "run", truth, found, names=names, seconds=3600)
    page = report(run)
    assert page.section("timelines").count("<svg") == 6
    assert page.section("classes").count("<polyline") == 50
    assert len(page.all("img")) == 12
    assert (run.path / "report.html").stat().st_size < 3_000_000


def test_the_worst_recordings_misses_and_false_alarms_come_first(tmp_path: Path) -> None:
    truth, found = draw_rows(4, files=9, names=NAMES, seconds=60, each=6)
    run = finish(tmp_path / "run", truth, found)
    shown = [one for one in found if one[4] >= 0.5]

    def worth(file: str) -> float:
        free, hits = [*truth[file]], 0
        for _, start, end, label, _ in sorted((one for one in shown if one[0] == file), key=lambda one: -one[4]):
            near = [span for span in free if span[2] == label and span[0] <= (start + end) / 2 <= span[1]]
            hits += bool(near)
            free = [span for span in free if span not in near[:1]]
        count = len(truth[file]) + sum(one[0] == file for one in shown)
        return 2 * hits / count

    chosen = [one.path for one in choose_recordings(run)]
    ranked = sorted(truth, key=lambda file: (worth(file), file))
    assert chosen[:3] == ranked[:3]
    assert chosen == sorted(chosen, key=ranked.index)
    assert chosen[-1] == ranked[-1]
    assert len(chosen) == 6

    asked: list[tuple[str, float, float]] = []

    def frames(path: str, start: float, end: float) -> None:
        asked.append((path, start, end))

    page = Page(write_segment_report(run, frames=frames))
    true_rows: list[Row] = [(file, *span) for file, spans in truth.items() for span in spans]
    missed = [a for a in true_rows if all(tiou(a, b) < 0.1 for b in shown if a[0] == b[0] and a[3] == b[3])]
    false = [a for a in shown if all(tiou(a, b) < 0.1 for b in true_rows if a[0] == b[0] and a[3] == b[3])]
    missed.sort(key=lambda row: row[1] - row[2])
    false.sort(key=lambda row: -row[4])
    assert asked == [row[:3] for row in (*missed[:6], *false[:6])]
    assert len(missed) > 6
    assert f"{len(missed)} true segments" in page.section("misses")
    assert page.section("misses").count("could not be read again") == 6


# ---- card and table


def test_the_card_is_one_that_the_hub_can_read_and_says_how_to_use_it(tmp_path: Path) -> None:
    truth, found = draw_rows(5, files=6, names=HOSTILE, seconds=60, each=6)
    baseline = {"the usual length at random places": found[:3]}
    run = finish(tmp_path / "run", truth, found, names=HOSTILE, baselines=baseline)
    text = write_segment_card(run).read_text(encoding="utf-8")
    card = ModelCard(text)
    assert card.data.library_name == "tubelet"
    result = card.data.eval_results[0]
    assert (result.metric_type, result.dataset_name, result.dataset_split) == ("map", "films", "test")
    assert result.metric_value == pytest.approx(run.summary.map, abs=1e-4)
    for line in (
        "tubelet stream RUN FILE",
        "finds segments of 4 classes",
        "| recordings | 8 | 6 |",
        "by the usual length",
    ):
        assert line in text
    low, high = map(run.summary.number, run.summary.interval)
    assert f"| {low} to {high} |" in text
    assert "<script>" not in text
    assert "\u202e" not in text
    assert "/home/ada" not in text


def test_a_table_of_segments_is_read_back_as_it_was(tmp_path: Path) -> None:
    found: list[Found] = [("=1.mp4", 0.5, 2.25, "@home", 0.875), ("caf\udce9.mp4", 1.0, 1.0, "a,b\n", 0.0)]
    write_segments(found, tmp_path / "found.csv")
    with open(tmp_path / "found.csv", newline="", errors="surrogateescape") as file:
        header, *cells = csv.reader(file)
    assert tuple(header) == SEGMENTS
    assert found == [
        (read_path_cell(path), float(start), float(end), read_text_cell(label), float(score))
        for path, start, end, label, score in cells
    ]
