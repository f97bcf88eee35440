"""Tasks: what each one owes the rest, its losses and figures against brute force, and trainings from end to end."""

import json
import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from asked import Asked
from naming import naming
from torch.nn import functional as F

from tubelet.tasks import TASKS, Classification, MultiLabel, Regression, Results, Task, task_from_json
from tubelet.tasks.intervals import group_interval, student_t, wilson_interval
from tubelet.tasks.multilabel import LEAST_EXAMPLES, MOST_WEIGHT, THRESHOLD, Ranking, best_threshold
from tubelet.tasks.regression import explained_variance, spearman

torch.set_num_threads(1)
DIRECTIONS = ("left", "right", "up", "down")
NAN = math.nan


# ---- what every task owes the rest


@dataclass(frozen=True)
class Example:
    """Cells of a table that a task reads, what it must refuse, and a change of classes with the cell it makes."""

    cells: tuple[str, ...]
    bad: tuple[str, ...]
    swapped: tuple[str, str]
    columns: tuple[str, ...] = ("label",)


EXAMPLES = {
    "classification": Example(("walk", "run", "sit"), ("",), ("walk", "run")),
    "multilabel": Example(
        ("walk", "run; walk", "(none)", "sit", ""), (";", "walk;", "run;;walk", "run;run"), ("walk;sit", "run;sit")
    ),
    "regression": Example(
        ("1.5;2", "-3;", " 0.25 ;1e2", ";-1", "2;2"),
        ("", "1", "1;2;3", "x;1", "1;nan", "inf;1", "1,5;2"),
        ("1;2", "1;2"),
        ("speed", "angle"),
    ),
}


def example(kind: str) -> tuple[Task, list[str]]:
    """A task as a training has it, and the cells that it was learned from."""
    given = EXAMPLES[kind]
    cells = list(given.cells) * 6
    task = TASKS[kind].from_cells(cells, given.columns)
    task = task.learn_from(task.targets(cells))
    logits = torch.randn(len(cells), outputs(task), generator=torch.Generator().manual_seed(0))
    groups = [str(i // 2) for i in range(len(cells))]
    return task.settle(task.targets(cells), task.answer(logits), groups), cells


def outputs(task: Task) -> int:
    return len(task.names)


def fitted(task: Task, cells: list[str]) -> torch.Tensor:
    """Logits that the loss has led to: (N, outputs)."""
    targets = task.soften(task.targets(cells), 0.0)
    logits = torch.zeros(len(cells), outputs(task), requires_grad=True)
    steps = torch.optim.Adam([logits], lr=0.3)
    for _ in range(200):
        steps.zero_grad()
        task.loss(logits, targets).backward()
        steps.step()
    return logits.detach()


def attributes(protocol: type) -> set[str]:
    return {name for name in (*vars(protocol), *protocol.__annotations__) if name[0] != "_"}


def test_every_task_has_an_example() -> None:
    assert set(EXAMPLES) == set(TASKS)
    assert all(kind == task.kind for kind, task in TASKS.items())


@pytest.mark.parametrize("kind", TASKS)
def test_a_loss_and_a_score_ask_their_device_for_nothing(kind: str) -> None:
    task, cells = example(kind)
    targets, logits = task.targets(cells), torch.zeros(len(cells), outputs(task), requires_grad=True)
    with Asked() as asked:
        task.loss(logits, task.soften(targets, 0.1)).backward()
        task.score(logits.detach(), targets)
    assert asked.times == 0


@pytest.mark.parametrize("kind", TASKS)
def test_cells_are_read_and_bad_ones_refused(kind: str) -> None:
    task, cells = example(kind)
    given, columns = EXAMPLES[kind], EXAMPLES[kind].columns
    assert attributes(Task) <= set(dir(task))
    assert all(task.find_fault(cell, columns) == "" for cell in cells)
    for cell in given.bad:
        fault = task.find_fault(cell, columns)
        assert fault
        assert cell == "" or any(repr(part) in fault for part in (cell, *cell.split(";")))
    assert len(set(task.names)) == outputs(task) > 0
    assert all(name in task.names for cell in cells for name in task.classes_in(cell))
    assert len(task.targets(cells)) == len(cells)
    assert len(task.targets([])) == 0
    before, after = given.swapped
    partners = dict(zip(("walk", "run"), ("run", "walk")))
    assert torch.equal(task.targets([task.swap(before, partners)]), task.targets([after]))
    for cell in cells:
        assert torch.equal(
            task.targets([task.swap(task.swap(cell, partners), partners)]).nan_to_num(9),
            task.targets([cell]).nan_to_num(9),
        )
        assert (
            task.swap(cell, {}) == cell or task.targets([task.swap(cell, {})]).tolist() == task.targets([cell]).tolist()
        )
    assert task.describe()
    assert len(set(task.columns())) == outputs(task)


@pytest.mark.parametrize("kind", TASKS)
def test_the_loss_leads_to_answers_that_are_right(kind: str) -> None:
    task, cells = example(kind)
    targets, logits = task.targets(cells), fitted(task, cells)
    loss, before = (task.loss(one, task.soften(targets, 0.0)).item() for one in (logits, torch.zeros_like(logits)))
    assert 0 <= loss < 0.1 * before
    scores, untaught = task.score(logits, targets), task.score(torch.randn(logits.shape), targets)
    assert scores.shape == untaught.shape == (len(cells),)
    assert scores.min() > 0.98
    assert untaught.max() <= 1
    answers = task.answer(logits)
    assert (answers.dtype, answers.shape) == (np.float32, (len(cells), outputs(task)))
    errors = task.errors(targets, answers)
    assert errors.shape == (len(cells),)
    assert 0 <= errors.min() <= errors.max() < 0.05
    for row in answers:
        word, certainty = task.word(row), task.certainty(row)
        assert task.find_fault(word, EXAMPLES[kind].columns) == "", "an answer could stand in a table"
        assert certainty is None or 0 <= certainty <= 1
    if task.gives_probabilities:
        assert 0 <= answers.min() <= answers.max() <= 1
    found = task.measure(targets, answers, groups=[str(i // 2) for i in range(len(cells))], failed=3)
    assert found.figure == pytest.approx(1, abs=0.01)
    assert found.interval == pytest.approx([1, 1], abs=0.2)


@pytest.mark.parametrize("kind", TASKS)
def test_softened_targets_are_float_and_smoothing_moves_what_is_known_a_little(kind: str) -> None:
    task, cells = example(kind)
    hard, soft = (task.soften(task.targets(cells), smoothing) for smoothing in (0.0, 0.1))
    assert hard.dtype == soft.dtype == torch.float32
    assert hard.shape == soft.shape == (len(cells), outputs(task))
    assert torch.equal(hard.isnan(), soft.isnan())
    assert (hard - soft).nan_to_num().abs().max() <= 0.1


@pytest.mark.parametrize("kind", TASKS)
def test_results_say_what_they_are_worth(kind: str) -> None:
    task, cells = example(kind)
    targets = task.targets(cells)
    answers = task.answer(torch.randn(len(cells), outputs(task), generator=torch.Generator().manual_seed(1)))
    found = task.measure(targets, answers, groups=[str(i // 2) for i in range(len(cells))], failed=3)
    assert attributes(Results) <= set(dir(found))
    low, high = found.interval
    assert low <= found.figure <= high <= 1
    assert (found.failed, 0 < found.clips <= len(cells)) == (3, True)
    values = found.to_json()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert (values[found.figure_name], values["clips"], values["failed"]) == (found.figure, found.clips, 3)
    words, reached = found.baseline()
    assert isinstance(words, str)
    assert reached <= 1
    assert found.number(found.figure) in found.say(found.figure)
    for name, value in found.facts():
        assert (type(name), type(value)) == (str, str)
    columns, rows = found.table()
    assert [row[0] for row in rows] == list(task.names)
    assert all(len(row) == len(columns) for row in rows)
    assert all(one is None or isinstance(one, float | int | str) for row in rows for one in row)
    assert all(isinstance(warning, str) for warning in found.warnings())
    counts = found.confusion
    assert (counts is not None) == task.exclusive
    assert counts is None or np.sum(counts) == found.clips


@pytest.mark.parametrize("kind", TASKS)
def test_a_task_travels_and_damaged_ones_are_refused(kind: str) -> None:
    task, _ = example(kind)
    assert task_from_json(json.loads(json.dumps(task.to_json()))) == task
    values = task.to_json()
    for key in values.keys() - {"kind"}:
        for damage in (
            None,
            "walk",
            3,
            {},
            [1, [2]],
            [None],
            ["x", "x"],
            [NAN],
            [math.inf],
            [0.5] * 7,
            [10**400] * 3,
            True,
        ):
            if key == "names" or damage != ["x", "x"]:
                with pytest.raises(ValueError, match="names" if key == "names" else "task"):
                    task_from_json(values | {key: damage})
        with pytest.raises(ValueError, match="names" if key == "names" else "task"):
            task_from_json({name: value for name, value in values.items() if name != key})
    assert TASKS[kind].from_json(values) == task
    # what held-out clips made of it is left out where there were too few; see test_calibration.py
    assert {one.name for one in fields(task)} - {"calibration"} | {"kind"} == set(values)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [None, [], "classification", {}, {"kind": "segments", "names": []}, {"kind": ["x"]}])
def test_a_task_that_is_not_known_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match=naming(*TASKS)):
        task_from_json(values)


# ---- intervals


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (119, 128), (7, 1000)])
def test_wilson_interval_ends_where_the_score_test_just_rejects(right: int, n: int) -> None:
    low, high = wilson_interval(right, n)
    share = right / n
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        if 1e-9 < end < 1 - 1e-9:
            assert (share - end) ** 2 == pytest.approx(1.959963984540054**2 * end * (1 - end) / n)


def test_clips_of_one_group_count_as_what_they_are() -> None:
    """Many copies of a recording tell nothing new: the interval is that of one of each. Taken for independent clips
    they would seem to."""

    def interval(groups: list[str], values: np.ndarray) -> list[float]:
        return group_interval(groups, lambda rows: float(values[rows].mean()))

    values = np.random.default_rng(0).random(12)
    names = [f"recording {i}" for i in range(12)]
    alone = interval(names, values)
    for copies in (2, 9):
        many = values.repeat(copies)
        assert interval([name for name in names for _ in range(copies)], many) == pytest.approx(alone)
        low, high = interval([str(i) for i in range(len(many))], many)
        assert high - low < 0.8 * (alone[1] - alone[0])
    order = np.random.default_rng(1).permutation(12)
    assert interval([names[i] for i in order], values[order]) == pytest.approx(alone), (
        "the order of clips does not matter"
    )
    assert alone[0] < values.mean() < alone[1]
    deviation = values.std() / math.sqrt(12)
    assert alone == pytest.approx([values.mean() - 1.96 * deviation, values.mean() + 1.96 * deviation], abs=0.05)


def test_a_group_that_leaves_nothing_to_measure_is_passed_over() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.4])

    def measure(rows: np.ndarray) -> float:
        return float("nan") if 3 not in rows else float(values[rows].mean())

    low, high = group_interval(list("abcd"), measure)
    assert -math.inf < low < values.mean() < high <= 1
    assert group_interval(["a", "b"], lambda rows: float("nan"))[0] == -math.inf


@pytest.mark.parametrize(("freedom", "known"), [(1, 12.706), (2, 4.303), (3, 3.182), (10, 2.228), (49, 2.010)])
def test_students_t(freedom: int, known: float) -> None:
    assert student_t(freedom) == pytest.approx(known, rel=0.01)


# ---- one of several classes


def random_answers(k: int, n: int, *, seed: int, right: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and probabilities (n, k), the label the likeliest in about `right` of the rows."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    probabilities = rng.dirichlet(np.ones(k), n)
    probabilities[np.arange(n), np.where(rng.random(n) < right, labels, rng.integers(0, k, n))] += 1.5
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def summarise(classes: Any, labels: np.ndarray, probabilities: np.ndarray, *, failed: int = 0) -> dict[str, Any]:
    return Classification(tuple(classes)).measure(torch.from_numpy(labels), probabilities, failed=failed).to_json()


@pytest.mark.parametrize(("k", "n"), [(1, 3), (2, 5), (4, 60), (9, 300), (40, 200)])
def test_summary_agrees_with_counting(k: int, n: int) -> None:
    classes = [f"class {i}" for i in range(k)]
    labels, probabilities = random_answers(k, n, seed=k)
    summary = summarise(classes, labels, probabilities, failed=3)
    rows = [(int(label), list(row)) for label, row in zip(labels, probabilities)]
    answers = [(label, row.index(max(row))) for label, row in rows]

    right = sum(label == answer for label, answer in answers)
    assert summary["clips"] == n
    assert summary["accuracy"] == pytest.approx(right / n)
    assert summary["accuracy_all"] == pytest.approx(right / (n + 3))
    matrix = [[sum(pair == (i, j) for pair in answers) for j in range(k)] for i in range(k)]
    assert summary["confusion"] == matrix
    assert [sum(row) for row in matrix] == [row["support"] for row in summary["per_class"]]

    f1 = []
    for i, row in enumerate(summary["per_class"]):
        support, said, hit = sum(matrix[i]), sum(line[i] for line in matrix), matrix[i][i]
        assert row["recall"] == (pytest.approx(hit / support) if support else None)
        assert row["precision"] == (pytest.approx(hit / said) if said else None)
        assert row["f1"] == (pytest.approx(2 * hit / (support + said)) if support + said else None)
        f1 += [2 * hit / (support + said)] if support else []
    assert summary["macro"]["f1"] == pytest.approx(sum(f1) / len(f1))
    majority = max(sum(row) for row in matrix)
    assert summary["majority"]["accuracy"] == pytest.approx(majority / n)
    assert sum(matrix[classes.index(summary["majority"]["label"])]) == majority
    first_five = sum(label in sorted(range(k), key=lambda j: -row[j])[:5] for label, row in rows)
    assert summary["top5"] == (pytest.approx(first_five / n) if k > 5 else None)


def test_calibration_error_is_the_mean_gap_of_fifteen_bins() -> None:
    labels, probabilities = random_answers(4, 500, seed=1)
    total = 0.0
    for b in range(15):
        rows = [(lab, row) for lab, row in zip(labels, probabilities) if b / 15 < max(row) <= (b + 1) / 15]
        if rows:
            confidence = sum(max(row) for _, row in rows) / len(rows)
            accuracy = sum(row.argmax() == lab for lab, row in rows) / len(rows)
            total += len(rows) / 500 * abs(confidence - accuracy)
    assert summarise(DIRECTIONS, labels, probabilities)["calibration_error"] == pytest.approx(total)


def test_small_integers_are_labels_too() -> None:
    labels, probabilities = random_answers(40, 200, seed=2)
    assert summarise(range(40), labels.astype(np.uint8), probabilities) == summarise(range(40), labels, probabilities)


def test_certain_and_right_is_perfectly_calibrated() -> None:
    summary = summarise(DIRECTIONS, np.arange(4), np.eye(4))
    assert (summary["accuracy"], summary["calibration_error"], summary["mean_confidence"]) == (1, 0, 1)


def test_summary_is_plain_json_even_with_classes_never_seen_or_answered() -> None:
    summary = summarise(["a", "b", "c"], np.array([0, 0, 1]), np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.6, 0.4, 0]]))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    a, b, c = summary["per_class"]
    assert (a["recall"], b["recall"], c["recall"]) == (1, 0, None)
    assert (b["precision"], c["precision"], b["f1"], c["f1"]) == (None, None, 0, None)
    assert summary["macro"]["recall"] == 0.5


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        (np.array([0]), np.array([[3.0, -1, 2, 0]])),
        (np.array([0]), np.full((1, 4), np.nan)),
    ],
)
def test_summarise_says_what_is_wrong(labels: np.ndarray, probabilities: np.ndarray) -> None:
    with pytest.raises(ValueError, match=naming("probabilities", 1)):
        summarise(DIRECTIONS, labels, probabilities, failed=7)


# ---- several classes at once


def several(n: int, k: int, *, seed: int, grid: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Which classes hold, bool (n, k), and scores (n, k) on a coarse grid, many of them equal."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, k)) < rng.uniform(0.05, 0.9, k)
    return truth, np.round((0.3 * truth + 0.7 * rng.random((n, k))) * grid) / grid


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """By its definition: the sum, over falling thresholds, of precision times what recall has grown by."""
    found, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        said = [hold for hold, score in zip(truth.tolist(), scores.tolist()) if score >= threshold]
        found += sum(said) / len(said) * (sum(said) / truth.sum() - recall)
        recall = sum(said) / truth.sum()
    return found


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_is_that_of_its_definition_with_ties(seed: int) -> None:
    n, k = 3 + 7 * seed, 4
    truth, scores = several(n, k, seed=seed)
    truth[:, 0] = False
    ranking = Ranking(truth, scores)
    found = ranking.precisions(np.ones(n))
    assert np.isnan(found[0]), "no example, no precision"
    for c in range(1, k):
        if truth[:, c].any():
            assert found[c] == pytest.approx(average_precision(truth[:, c], scores[:, c]))
    drawn = np.random.default_rng(seed).integers(0, n, n)  # a draw of the bootstrap is its clips as often as drawn
    weighted = ranking.precisions(np.bincount(drawn, minlength=n))
    again = Ranking(truth[drawn], scores[drawn]).precisions(np.ones(n))
    np.testing.assert_allclose(weighted, again)
    order = np.random.default_rng(seed + 1).permutation(n)
    np.testing.assert_allclose(Ranking(truth[order], scores[order]).precisions(np.ones(n)), found)


def test_average_precision_without_ties_is_the_mean_precision_at_each_example() -> None:
    rng = np.random.default_rng(5)
    truth, scores = rng.random(40) < 0.3, rng.permutation(40).astype(float)
    ranked = truth[np.argsort(-scores)]
    expected = np.mean([ranked[: i + 1].mean() for i in np.flatnonzero(ranked)])
    assert Ranking(truth[:, None], scores[:, None]).precisions(np.ones(40)) == pytest.approx([expected])
    assert Ranking(truth[:, None], np.zeros((40, 1))).precisions(np.ones(40)) == pytest.approx([truth.mean()])


@pytest.mark.parametrize("seed", range(12))
def test_a_threshold_has_the_best_f1_that_any_has(seed: int) -> None:
    truth, scores = several(30, 1, seed=seed, grid=(4, 1000)[seed % 2])
    truth, scores = truth[:, 0].astype(np.float32), scores[:, 0].astype(np.float32)
    found = best_threshold(truth, scores)
    if truth.sum() < LEAST_EXAMPLES:
        assert found == THRESHOLD
        return

    def f1(threshold: float) -> float:
        said = scores >= threshold
        return 2 * (said * truth).sum() / (said.sum() + truth.sum())

    assert f1(found) == max(f1(threshold) for threshold in scores)
    assert found not in scores.tolist(), "between two scores, where rounding does no harm"


def test_few_examples_choose_no_threshold() -> None:
    task = MultiLabel(("a", "b"))
    targets = torch.tensor([[1.0, float(i < LEAST_EXAMPLES - 1)] for i in range(9)] + [[NAN, NAN]] * 5)
    settled = task.settle(targets, np.full((14, 2), 0.25, np.float32), [""] * 14)
    assert settled.thresholds == (0.125, THRESHOLD)
    assert task.thresholds == ()
    assert [settled.word(np.array(row, np.float32)) for row in ([0.2, 0.4], [0.1, 0.6], [0.1, 0.1], [1, 1])] == [
        "a",
        "b",
        "(none)",
        "a;b",
    ]


def test_figures_of_several_classes_agree_with_counting() -> None:
    truth, scores = several(60, 5, seed=3)
    truth[:, 4] = False
    task = MultiLabel(tuple("abcde"), thresholds=(0.2, 0.5, 0.6, 0.9, 0.5))
    targets = torch.from_numpy(truth.astype(np.float32))
    targets[7:10] = NAN
    known = [i for i in range(60) if not 7 <= i < 10]
    found = task.measure(targets, scores.astype(np.float32), groups=[str(i // 3) for i in range(60)], failed=2)
    assert (found.clips, found.failed, found.unlabelled, found.chosen_thresholds) == (57, 2, 3, True)
    precisions, f1s, hits, sizes = [], [], 0, 0
    for c, row in enumerate(found.per_class):
        said = {i for i in known if np.float32(scores[i, c]) >= np.float32(task.thresholds[c])}
        holds = {i for i in known if truth[i, c]}
        hits, sizes = hits + len(said & holds), sizes + len(said) + len(holds)
        assert row["precision"] == (pytest.approx(len(said & holds) / len(said)) if said else None)
        assert row["recall"] == (pytest.approx(len(said & holds) / len(holds)) if holds else None)
        assert (row["support"], row["threshold"]) == (len(holds), task.thresholds[c])
        if holds:
            precisions.append(average_precision(truth[known, c], scores[known, c]))
            f1s.append(2 * len(said & holds) / (len(said) + len(holds)))
            assert (row["average_precision"], row["f1"]) == pytest.approx((precisions[-1], f1s[-1]))
        else:
            assert (row["average_precision"], row["f1"]) == (None, None)
    assert found.mean_average_precision == pytest.approx(np.mean(precisions))
    assert found.macro_f1 == pytest.approx(np.mean(f1s))
    assert found.micro_f1 == pytest.approx(2 * hits / sizes)
    assert found.at_random == pytest.approx(truth[known][:, :4].mean())
    assert found.interval[0] < found.mean_average_precision < found.interval[1]
    assert "e" in found.warnings()[0]
    errors = task.errors(targets, scores.astype(np.float32))
    for i in range(60):
        said = {c for c in range(5) if np.float32(scores[i, c]) >= np.float32(task.thresholds[c])}
        holds = set(np.flatnonzero(truth[i]))
        assert errors[i] == pytest.approx(len(said ^ holds) / max(1, len(said | holds)) if i in known else 0)
        if i in known:
            logits = torch.where(torch.tensor([c in said for c in range(5)]), 1.0, -1.0)
            jaccard = len(said & holds) / len(said | holds) if said | holds else 1.0
            assert task.score(logits[None], targets[[i]]).item() == pytest.approx(jaccard)


def test_more_clips_of_the_same_recordings_do_not_narrow_the_interval_of_several_classes() -> None:
    truth, scores = several(15, 3, seed=1)
    task, intervals = MultiLabel(tuple("abc")), []
    for copies in (1, 4):
        targets = torch.from_numpy(truth.repeat(copies, axis=0).astype(np.float32))
        groups = [f"{i:02d}" for i in range(15) for _ in range(copies)]
        found = task.measure(targets, scores.repeat(copies, axis=0).astype(np.float32), groups=groups)
        intervals.append([*found.interval, *found.macro_f1_interval])
    assert intervals[0] == pytest.approx(intervals[1])


def test_rare_classes_weigh_more_in_the_loss() -> None:
    targets = torch.zeros(100, 4)
    targets[:1, 0], targets[:20, 1], targets[:50, 2], targets[:90, 3] = 1, 1, 1, 1
    unlabelled = torch.full((7, 4), NAN)
    task = MultiLabel(tuple("abcd")).learn_from(torch.cat([targets, unlabelled]))
    assert task.weights == pytest.approx((MOST_WEIGHT, 4, 1, 1))
    assert MultiLabel(tuple("abcd")).learn_from(torch.zeros(3, 4)).weights == pytest.approx((3,) * 4)
    logits = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    chance = logits.sigmoid()
    each = -(torch.tensor(task.weights) * targets * chance.log() + (1 - targets) * (1 - chance).log())
    torch.testing.assert_close(task.loss(logits, targets), each.mean())
    plain = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(replace(task, weights=()).loss(logits, targets), plain)


def test_nobody_means_no_class_and_nothing_that_it_is_not_known() -> None:
    task = MultiLabel.from_cells(["a;b", "(none)", "", "b"])
    assert task.names == ("a", "b")
    expected = torch.tensor([[0, 0], [NAN, NAN], [1, 1], [0, 1]])
    torch.testing.assert_close(task.targets(["(none)", "", "b ; a", "b"]), expected, equal_nan=True)
    swap = {"a": "b", "b": "a"}
    assert [task.swap(cell, swap) for cell in ("a", "(none)", "")] == ["b", "(none)", ""]


# ---- numbers


def test_numbers_go_to_the_model_and_come_back() -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal([3, -500], [0.01, 70], (50, 2))).float()
    values[::7, 0] = NAN
    task = Regression(("speed", "angle")).learn_from(values)
    soft = task.soften(values, 0.0)
    torch.testing.assert_close(soft.nanmean(0), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(soft.square().nanmean(0), torch.ones(2), atol=1e-3, rtol=0)
    np.testing.assert_allclose(task.answer(soft), values.numpy(), rtol=1e-5)
    known = values[~values.isnan()[:, 0]]
    errors = (known - torch.tensor(task.means)).square().mean(0)
    torch.testing.assert_close(torch.tensor(task.deviations).square(), errors, rtol=0.2, atol=0)


@pytest.mark.parametrize("column", [[2.0, 2.0, 2.0], [NAN, NAN, NAN], [NAN, 1.0, NAN]])
def test_a_column_that_says_nothing_is_refused(column: list[float]) -> None:
    with pytest.raises(ValueError, match=naming("angle")):
        Regression(("speed", "angle")).learn_from(torch.tensor([[1.0, 2.0, 3.0], column]).T)


def ranks(values: list[float]) -> list[float]:
    return [sum(other < one for other in values) + (sum(other == one for other in values) + 1) / 2 for one in values]


def correlation(one: list[float], other: list[float]) -> float:
    a, b = (np.array(values) - np.mean(values) for values in (one, other))
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


@pytest.mark.parametrize("seed", range(6))
def test_figures_of_numbers_agree_with_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.round(rng.normal(5, 2, (30, 2)), 0)  # many equal ones
    given = np.round(truth + rng.normal(0, 1 + seed, (30, 2)), 1).astype(np.float32)
    truth[rng.random((30, 2)) < 0.2] = NAN
    truth[4] = NAN
    task = Regression(("speed", "angle"), means=(4.5, 6.0), deviations=(2.0, 1.0))
    found = task.measure(torch.from_numpy(truth).float(), given, groups=[str(i // 2) for i in range(30)], failed=1)
    r2s, r2s_of_mean = [], []
    for c, row in enumerate(found.per_output):
        known = [i for i in range(30) if not math.isnan(truth[i, c])]
        true, said = truth[known, c].tolist(), given[known, c].tolist()
        spread = sum((one - np.mean(true)) ** 2 for one in true)
        r2s.append(1 - sum((one - other) ** 2 for one, other in zip(true, said)) / spread)
        r2s_of_mean.append(1 - sum((one - task.means[c]) ** 2 for one in true) / spread)
        assert row["mae"] == pytest.approx(np.mean([abs(one - other) for one, other in zip(true, said)]))
        assert row["mae_of_mean"] == pytest.approx(np.mean([abs(one - task.means[c]) for one in true]))
        assert row["r2"] == pytest.approx(r2s[-1])
        assert row["spearman"] == pytest.approx(correlation(ranks(true), ranks(said)))
        assert row["support"] == len(known)
    assert found.r2 == pytest.approx(np.mean(r2s))
    assert found.r2_of_mean == pytest.approx(np.mean(r2s_of_mean))
    assert found.r2_of_mean < 0, "the mean of these clips would be 0, and it is another"
    assert found.interval[0] <= found.r2 <= found.interval[1]
    errors = task.errors(torch.from_numpy(truth).float(), given)
    for i in range(30):
        own = [abs(truth[i, c] - given[i, c]) / task.deviations[c] for c in range(2) if not math.isnan(truth[i, c])]
        assert errors[i] == pytest.approx(np.mean(own) if own else 0, abs=1e-5)


def test_numbers_that_do_not_vary_have_no_r2() -> None:
    truth, given = np.array([[2.0, 1.0], [2.0, 3.0]]), np.array([[1.0, 5.0], [3.0, 5.0]])
    assert np.isnan(explained_variance(truth, given)).tolist() == [True, False]
    assert (spearman(truth[:, 0], given[:, 0]), spearman(truth[:, 1], given[:, 1])) == (None, None)
    assert spearman(np.full(2, NAN), given[:, 0]) is None
    task = Regression(("a", "b"), (1.0, 1.0), (1.0, 1.0))
    found = task.measure(torch.from_numpy(truth).float(), given, groups=["x", "y"])
    assert [row["r2"] for row in found.per_output] == [None, pytest.approx(-9)]
    with pytest.raises(ValueError, match=naming("2 clips")):
        task.measure(torch.full((2, 2), NAN), given, groups=["x", "y"])


def test_the_mean_score_over_the_training_clips_is_r2() -> None:
    values = torch.from_numpy(np.random.default_rng(2).normal(5, 2, (40, 1))).float()
    task = Regression(("speed",)).learn_from(values)
    logits = torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
    r2 = explained_variance(values.numpy(), task.answer(logits))
    assert task.score(logits, values).mean().item() == pytest.approx(r2.item(), abs=1e-4)
    assert task.score(torch.zeros(40, 1), values).mean().item() == pytest.approx(0, abs=1e-4)


# ---- what is not known


@pytest.mark.parametrize(
    "task", [MultiLabel(("a", "b"), weights=(3.0, 1.5)), Regression(("a", "b"), (0.5, 1.0), (2.0, 3.0))]
)
def test_what_is_not_known_teaches_nothing(task: Task) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(6, 2, generator=generator).round()
    logits = torch.randn(6, 2, generator=generator)
    for unknown in (torch.tensor([[i in (1, 4)] * 2 for i in range(6)]), torch.rand(6, 2, generator=generator) < 0.4):
        hidden = torch.where(unknown, NAN, targets)
        one = logits.clone().requires_grad_()
        loss = task.loss(one, task.soften(hidden, 0.0))
        loss.backward()
        assert (one.grad[unknown] == 0).all()
        assert (one.grad[~unknown] != 0).all()
        other = torch.where(unknown, 7.0, logits)
        torch.testing.assert_close(task.loss(other, task.soften(hidden, 0.0)), loss.detach())
    rows = torch.tensor([0, 2, 3, 5])
    hidden = targets.clone()
    hidden[[1, 4]] = NAN
    torch.testing.assert_close(
        task.loss(logits, task.soften(hidden, 0.0)), task.loss(logits[rows], task.soften(targets[rows], 0.0))
    )
    nothing = torch.zeros(2, 2, requires_grad=True)
    task.loss(nothing, torch.full((2, 2), NAN)).backward()
    assert torch.equal(nothing.grad, torch.zeros(2, 2))


@pytest.mark.parametrize("damage", [{"means": []}, {"deviations": []}, {"deviations": [1.0, 0.0]}])
def test_numbers_without_their_scale_are_refused(damage: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match=naming("mean", "deviation")):
        task_from_json(Regression(("a", "b"), (0.0, 1.0), (1.0, 2.0)).to_json() | damage)
