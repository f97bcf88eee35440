"""Measures of segments: the golden cases of ActivityNet, loops that count by hand, laws, and faults."""

import gzip
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tubelet.system.text import dumps
from tubelet.tasks.detection import AMBIGUOUS, Found, Row
from tubelet.tasks.intervals import group_interval
from tubelet.tasks.segments import (
    STRICT_TIOUS,
    TIOUS,
    SegmentResults,
    guess_segments,
    mean_average_precision,
    measure_segments,
    point_f1,
    time_f1,
    usual_segments,
)

GOLDEN = Path(__file__).parent / "golden" / "activitynet_segments.json.gz"
PROTOCOLS = ("activitynet", "thumos")
THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 1.0)


# ---- average precision


def test_the_program_of_activitynet_says_the_same() -> None:
    with gzip.open(GOLDEN, "rt") as file:
        cases = json.load(file)
    assert len(cases) == 300
    for case in cases:
        ours = mean_average_precision(case["truth"], case["found"], case["tious"])
        assert ours["mAP"] == pytest.approx(case["mAP"], abs=1e-6)
        assert ours["per_tiou"] == pytest.approx(case["per_tiou"], abs=1e-6)
        assert set(ours["per_class"]) == set(case["per_class"])
        for label, precisions in case["per_class"].items():
            assert ours["per_class"][label] == pytest.approx(precisions, abs=1e-6)


def draw_rows(seed: int, *, labels: str = "abc") -> tuple[list[Row], list[Found]]:
    """A few files with few or many segments, whole seconds or any, scores that are often equal; classes may lack."""
    rng = np.random.default_rng(seed)
    videos, seconds, whole = rng.integers(1, 4), rng.choice([6, 20, 60]), rng.random() < 0.5
    weights = rng.dirichlet(np.full(len(labels), 0.7))

    def draw(count: int) -> list[Row]:
        times = np.sort(rng.uniform(0, seconds, (count, 2)), axis=1)
        times = np.sort(rng.integers(0, seconds, (count, 2)), axis=1).astype(float) if whole else times
        files, kinds = rng.integers(0, videos, count), rng.choice(list(labels), count, p=weights)
        names = {label: AMBIGUOUS if label == "?" else label for label in labels}
        return [
            (f"{9 - file}.mp4", float(start), float(end), names[str(label)])
            for file, (start, end), label in zip(files, times, kinds, strict=True)
        ]

    truth = draw(int(rng.choice([0, 1, 4, 12])))
    near = [(file, start, max(start, end + rng.normal()), label) for file, start, end, label in truth]
    rows = [*draw(int(rng.choice([0, 1, 5, 25]))), *truth[::3], *(row for row in near if rng.random() < 0.5)]
    scores = rng.integers(0, 8, len(rows)) / 8 if rng.random() < 0.5 else rng.random(len(rows))
    found = [(*row, float(score)) for row, score in zip(rows, scores, strict=True)]
    return truth, [found[place] for place in rng.permutation(len(found))]


def activitynet_by_loops(truth: list[Row], found: list[Found], label: str, threshold: float) -> float:
    truth = [row for row in truth if row[3] == label]
    taken, right = set(), []
    for file, start, end, *_ in sorted((one for one in found if one[3] == label), key=lambda one: -one[4]):
        offers = []
        for number, row in enumerate(truth):
            if row[0] == file:
                both = max(0.0, min(end, row[2]) - max(start, row[1]))
                union = (end - start) + (row[2] - row[1]) - both
                offers.append((both / union if union else 0.0, number))
        right.append(0)
        for tiou, number in sorted(offers, reverse=True):
            if tiou < threshold:
                break
            if number not in taken:
                taken.add(number)
                right[-1] = 1
                break
    precision = [sum(right[: n + 1]) / (n + 1) for n in range(len(right))]
    recall = [sum(right[: n + 1]) / len(truth) for n in range(len(right))]
    area, reached = 0.0, 0.0
    for n in range(len(right)):
        area += (recall[n] - reached) * max(precision[n:])
        reached = recall[n]
    return area


def thumos_by_loops(truth: list[Row], found: list[Found], label: str, threshold: float) -> float:
    scored = []  # score and whether right, as the files come, each with its best first
    for file in sorted({row[0] for row in (*truth, *found)}):
        there = sorted((one for one in found if one[0] == file and one[3] == label), key=lambda one: -one[4])
        state = ["free"] * len(there)
        for row in truth:
            if row[0] == file and row[3] == label:
                best, best_tiou = None, threshold
                for n, one in enumerate(there):
                    both = min(row[2], one[2]) - max(row[1], one[1])
                    tiou = both / (max(row[2], one[2]) - min(row[1], one[1])) if both > 0 else 0.0
                    if state[n] == "free" and tiou > best_tiou:
                        best, best_tiou = n, tiou
                if best is not None:
                    state[best] = "right"
        for row in truth:
            if row[0] == file and row[3] == AMBIGUOUS:
                for n, one in enumerate(there):
                    if state[n] == "free" and min(row[2], one[2]) > max(row[1], one[1]):
                        state[n] = "left out"
        scored += [(one[4], what == "right") for one, what in zip(there, state, strict=True) if what != "left out"]
    total, hits = 0.0, 0
    for n, (_, right) in enumerate(sorted(scored, key=lambda one: -one[0])):
        if right:
            hits += 1
            total += hits / (n + 1)
    return total / sum(row[3] == label for row in truth)


@pytest.mark.parametrize(("protocol", "labels"), [("activitynet", "abc"), ("thumos", "abc"), ("thumos", "ab?")])
def test_loops_by_hand_say_the_same(protocol: str, labels: str) -> None:
    count = {"activitynet": activitynet_by_loops, "thumos": thumos_by_loops}[protocol]
    values = []
    for seed in range(1000):
        truth, found = draw_rows(seed, labels=labels)
        ours = mean_average_precision(truth, found, THRESHOLDS, protocol=protocol)
        classes = sorted({row[3] for row in truth} - ({AMBIGUOUS} if protocol == "thumos" else set()))
        by_hand = {label: [count(truth, found, label, tiou) for tiou in THRESHOLDS] for label in classes}
        assert list(ours["per_class"]) == classes
        for label in classes:
            assert ours["per_class"][label] == pytest.approx(by_hand[label], abs=1e-12)
        if classes:
            table = np.array(list(by_hand.values()))
            assert ours["per_tiou"] == pytest.approx(table.mean(0))
            assert ours["mAP"] == pytest.approx(table.mean())
        else:
            assert math.isnan(ours["mAP"])
            assert len(ours["per_tiou"]) == len(THRESHOLDS)
            assert np.isnan(ours["per_tiou"]).all()
        values.append(ours["mAP"])
    assert 0.1 < np.nanmean(values) < 0.9  # of cases that could tell


def test_the_protocols_differ_where_they_say() -> None:
    truth = [("v", 0.0, 10.0, "a")]
    found = [("v", 0.0, 8.0, "a", 0.9), ("v", 0.0, 10.0, "a", 0.5)]  # the better place has the lower score
    both = [mean_average_precision(truth, found, [0.5], protocol=protocol)["mAP"] for protocol in PROTOCOLS]
    assert both == [1.0, 0.5]
    half = [("v", 0.0, 5.0, "a", 0.9)]  # at the threshold
    both = [mean_average_precision(truth, half, [0.5], protocol=protocol)["mAP"] for protocol in PROTOCOLS]
    assert both == [1.0, 0.0]
    truth = [("v", 0.0, 1.0, "a"), ("v", 2.0, 3.0, "a"), ("v", 4.0, 5.0, "a")]
    found = [("v", n + n, n + n + 1, "a", 0.9 - n / 10) for n in (0.0, 1.0, 2.0)]
    found.insert(1, ("v", 8.0, 9.0, "a", 0.85))  # right, wrong, right, right
    both = [mean_average_precision(truth, found, [0.5], protocol=protocol)["mAP"] for protocol in PROTOCOLS]
    assert both == pytest.approx([(1 + 3 / 4 + 3 / 4) / 3, (1 + 2 / 3 + 3 / 4) / 3])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_laws_of_average_precision(protocol: str) -> None:
    for seed in range(100):
        truth, found = draw_rows(seed)
        found = [(*one[:4], one[4] + n * 1e-6) for n, one in enumerate(found)]  # no two alike
        truth = [row for row in truth if row[1] < row[2]]
        if not truth:
            continue

        def measure(truth: list[Row], found: list[Found]) -> float:
            return float(mean_average_precision(truth, found, TIOUS, protocol=protocol)["mAP"])

        figure = measure(truth, found)
        assert 0 <= figure <= 1
        assert measure(truth, []) == 0
        assert measure(list(dict.fromkeys(truth)), [(*row, 0.5) for row in dict.fromkeys(truth)]) == 1
        assert measure(truth, found[::-1]) == figure
        assert measure(truth, [(*one[:4], math.exp(3 * one[4])) for one in found]) == figure
        assert measure(truth, [*found, ("9.mp4", 0.0, 1.0, "of no class", 2.0)]) == figure
        assert measure(truth, [*found, ("of no truth", 0.0, 1.0, truth[0][3], -1.0)]) == figure  # after all the rest
        assert measure(truth, [*found, ("of no truth", 0.0, 1.0, truth[0][3], 9.0)]) <= figure
        twice = [(f"again {row[0]}", *row[1:]) for row in truth]
        assert measure([*truth, *twice], found) <= figure


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"protocol": "coco"}, ("'coco'", "activitynet", "thumos")),
        ({"tious": [0.5, 1.5]}, ("1.5",)),
        ({"tious": []}, ("[]",)),
        ({"truth": [("v", 3.0, 2.0, "a")]}, ("'v'", "3.0", "2.0")),
        ({"truth": [("v", math.nan, 2.0, "a")]}, ("nan",)),
        ({"found": [("v", 1.0, math.inf, "a", 0.5)]}, ("inf",)),
        ({"found": [("v", 1.0, 2.0, "a", math.nan), ("v", 1.0, 2.0, "a", 0.5)]}, ("1 of 3", "nan")),
    ],
)
def test_what_cannot_be_measured_is_refused(given: dict[str, object], words: tuple[str, ...]) -> None:
    usual = {"truth": [("v", 1.0, 2.0, "a")], "found": [], "tious": [0.5]}
    with pytest.raises(ValueError) as error:
        mean_average_precision(**usual | given)  # type: ignore[arg-type]
    assert all(word in str(error.value) for word in words)


# ---- F1


def point_f1_by_loops(truth: list[Row], found: list[Found]) -> float:
    taken: set[int] = set()
    for one in sorted(found, key=lambda one: -one[4]):
        for number, row in enumerate(truth):
            middle = (one[1] + one[2]) / 2
            if number not in taken and (row[0], row[3]) == (one[0], one[3]) and row[1] <= middle <= row[2]:
                taken.add(number)
                break
    precision, recall = len(taken) / max(1, len(found)), len(taken) / max(1, len(truth))
    return 2 * precision * recall / max(1e-12, precision + recall)


def test_point_f1_is_that_of_loops() -> None:
    for seed in range(500):
        truth, found = draw_rows(seed)
        if truth or found:
            assert point_f1(truth, found) == pytest.approx(point_f1_by_loops(truth, found))
    assert math.isnan(point_f1([], []))


def test_time_f1_counts_seconds() -> None:
    def seconds(rows: list[Row]) -> set[tuple[str, int, str]]:
        return {(file, second, label) for file, a, b, label in rows for second in range(int(a), int(b))}

    for seed in range(500):
        truth, found = draw_rows(seed)
        truth, said = ([(r[0], float(int(r[1])), float(int(r[2])), r[3]) for r in rows] for rows in (truth, found))
        one, other = seconds(truth), seconds(said)
        ours = time_f1(truth, [(*row, 0.5) for row in said])
        if one or other:
            assert ours == pytest.approx(2 * len(one & other) / (len(one) + len(other)), abs=1e-12)
        else:
            assert math.isnan(ours)


def test_time_f1_is_exact_where_all_is_right_or_nothing() -> None:
    for seed in range(200):
        truth, _ = draw_rows(seed)
        if any(row[1] < row[2] for row in truth):
            assert time_f1(truth, [(*row, 0.5) for row in (*truth, *truth[::2])]) == 1
            assert time_f1(truth, [(row[0], row[1] + 99, row[2] + 99, row[3], 0.5) for row in truth]) == 0


# ---- results


FILES = {f"{number}.mp4": 100.0 for number in range(8)}
GROUPS = {file: f"day {number // 2}" for number, file in enumerate(FILES)}


def draw_results(seed: int = 0, **given: object) -> tuple[SegmentResults, list[Row], list[Found]]:
    rng = np.random.default_rng(seed)
    truth = guess_segments(FILES, usual_segments([("x", 0.0, 9.0, "walk"), ("x", 0.0, 5.0, "run")], 30.0), rng)
    found = [(f, a + rng.normal(), b + rng.normal() + 3, label, score) for f, a, b, label, score in truth]
    rows = [one[:4] for one in truth]
    usual = {
        "names": ("run", "sit", "walk"),
        "threshold": 0.3,
        "files": FILES,
        "groups": GROUPS,
        "baselines": {"nothing at all": [], "half of the truth": [(*row, 0.5) for row in rows[::2]]},
    }
    return measure_segments(rows, found, **usual | given), rows, found  # type: ignore[arg-type]


def test_being_ahead_is_measured_on_the_same_groups() -> None:
    """Nothing is ahead of itself, however unlike the groups are; of nothing it is as far ahead as it is good."""
    _, truth, found = draw_results()
    results, *_ = draw_results(
        baselines={"itself": found, "nothing at all": [], "all of the truth": [(*row, 0.5) for row in truth]}
    )
    assert results.ahead["itself"] == [0.0, 0.0]
    assert results.ahead["nothing at all"] == pytest.approx(results.interval)
    low, high = results.ahead["all of the truth"]
    assert low < results.map - 1 < high <= 0.5
    assert results.interval_above("itself", results.map) == [0.0, 0.0]
    assert results.interval_above("another", 0.25) == [bound - 0.25 for bound in results.interval]


def test_results_are_those_of_the_measures() -> None:
    results, truth, found = draw_results(failed=2)
    shown = [one for one in found if one[4] >= 0.3]
    whole, strict = (mean_average_precision(truth, found, tious) for tious in (TIOUS, STRICT_TIOUS))
    assert np.allclose(STRICT_TIOUS, np.arange(50, 100, 5) / 100)
    assert (results.clips, results.failed, results.segments, results.seconds) == (8, 2, len(truth), 800)
    assert results.figure == results.map == pytest.approx(whole["mAP"])
    assert 0.1 < results.figure < 0.99
    assert results.per_tiou == pytest.approx(whole["per_tiou"])
    assert results.map_strict == pytest.approx(strict["mAP"])
    assert results.point_f1 == point_f1(truth, shown)
    assert results.frame_f1 == time_f1(truth, shown)
    best = max(found, key=lambda one: one[4])
    assert draw_results(threshold=best[4])[0].point_f1 == point_f1(truth, [best]) > 0  # a score that is the threshold
    rows = {row["label"]: row for row in results.per_class}
    assert list(rows) == ["run", "sit", "walk"]
    assert rows["run"]["ap_50"] == pytest.approx(whole["per_class"]["run"][TIOUS.index(0.5)])
    assert rows["run"]["ap"] == pytest.approx(np.mean(whole["per_class"]["run"]))
    assert rows["run"]["ap_strict"] == pytest.approx(np.mean(strict["per_class"]["run"]))
    assert set(rows["sit"].values()) == {"sit", None, 0}
    hits = sum(row["recall"] * row["support"] for row in rows.values() if row["support"])
    assert 2 * hits / (len(truth) + len(shown)) == pytest.approx(results.point_f1)


def test_intervals_leave_out_whole_groups() -> None:
    results, truth, found = draw_results()

    def leave_out(tious: Sequence[float]) -> list[float]:
        def measure(rows: np.ndarray) -> float:
            kept = {list(FILES)[row] for row in rows}
            some = ([one for one in those if one[0] in kept] for those in (truth, found))
            return float(mean_average_precision(*some, tious)["mAP"])

        return group_interval(list(GROUPS.values()), measure)

    assert results.interval == pytest.approx(leave_out(TIOUS))
    assert results.map_strict_interval == pytest.approx(leave_out(STRICT_TIOUS))
    alone, *_ = draw_results(groups=dict.fromkeys(FILES, "one day"))
    assert alone.interval == [-math.inf, 1.0]
    assert (alone.number(alone.interval[0]), alone.say(math.nan)) == ("–", "mAP –")


def test_results_are_said() -> None:
    results, truth, _ = draw_results()
    assert results.baseline() == ("half of the truth", results.baselines["half of the truth"])
    assert results.baselines["nothing at all"] == 0
    assert draw_results(baselines={})[0].baseline()[1] == 0
    assert (results.number(0.8124), results.say(0.8124)) == ("0.812", "mAP 0.81")
    facts = results.facts()
    assert all(isinstance(text, str) for fact in facts for text in fact)
    assert ("nothing at all", "mAP 0.000") in facts
    assert "half of the truth" not in dict(facts)
    columns, rows = results.table()
    assert {len(row) for row in rows} == {len(columns)}
    assert sum(row[-1] for row in rows) == len(truth)
    assert rows[1] == ["sit", None, None, None, None, 0]
    (warning,) = results.warnings()
    assert "sit" in warning
    assert "walk" not in warning
    assert draw_results(names=("run", "walk"))[0].warnings() == []
    assert json.loads(dumps(results.to_json()))["map"] == results.map
    assert results.confusion is None


@pytest.mark.parametrize("place", ["truth", "found", "baseline"])
@pytest.mark.parametrize("row", [("strange.mp4", 0.0, 1.0, "run"), ("1.mp4", 0.0, 1.0, "fly")])
def test_what_is_not_named_is_refused(place: str, row: Row) -> None:
    given = {"names": ("run",), "threshold": 0.5, "files": FILES, "groups": GROUPS}
    truth, found = [("1.mp4", 0.0, 1.0, "run")], [(*row, 0.5)]
    with pytest.raises(ValueError) as error:
        measure_segments(
            [*truth, row] if place == "truth" else truth,
            found if place == "found" else [],
            baselines={"another": found if place == "baseline" else []},
            **given,
        )
    assert row[0] in str(error.value)
    assert row[3] in str(error.value)


def test_no_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="8 files"):
        measure_segments([], [], names=("run",), threshold=0.5, files=FILES, groups=GROUPS, baselines={})


# ---- guesses


def test_guesses_are_as_frequent_and_long_as_in_training() -> None:
    training = [("x", 0.0, n, "walk") for n in (2.0, 3.0, 50.0)] + [("y", 5.0, 6.0, "run")]
    files = {f"{n}": 10.0 + n % 7 for n in range(2000)} | {"short": 1.5}
    found = guess_segments(files, usual_segments(training, 60.0), np.random.default_rng(0))
    assert found == guess_segments(files, usual_segments(training, 60.0), np.random.default_rng(0))
    assert found != guess_segments(files, usual_segments(training, 60.0), np.random.default_rng(1))
    assert all(0 <= start <= end <= files[file] + 1e-9 for file, start, end, *_ in found)
    lengths = {(label, round(end - start, 6)) for file, start, end, label, _ in found if file != "short"}
    assert lengths == {("walk", 3.0), ("run", 1.0)}
    for label, share in (("walk", 3 / 60), ("run", 1 / 60)):
        assert sum(one[3] == label for one in found) == pytest.approx(share * sum(files.values()), rel=0.1)
    scores = [one[4] for one in found]
    assert 0 <= min(scores) < 0.05 < 0.95 < max(scores) < 1
