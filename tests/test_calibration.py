"""Calibration: laws on answers whose truth is known, the temperature against a search of a grid, faults."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from tubelet.tasks import Classification, MultiLabel, task_from_json
from tubelet.tasks.calibration import (
    COVERAGE,
    EXTREME,
    FEWEST_CLIPS,
    FEWEST_GROUPS,
    FOLDS,
    Calibrated,
    Calibration,
    calibration_error,
    cross_fit,
    find_shortage,
    fit_calibration,
    fit_temperature,
    log,
    measure_calibration,
    raise_to,
    reliability,
)

NAMES = ("left", "right", "up", "down")


def drawn(clips: int, *, seed: int, classes: int = 4, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and classes drawn from just these: answers that are calibrated by construction."""
    rng = np.random.default_rng(seed)
    chances = raise_to(np.exp(rng.standard_normal((clips, classes))), sharpness)
    return chances, (chances.cumsum(1) > rng.random((clips, 1))).argmax(1)


def apart(clips: int) -> list[str]:
    return [str(i) for i in range(clips)]


def likelihood(answers: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean negative log likelihood, with the one clip more that is of all classes."""
    n, tempered = len(labels), log(raise_to(answers, 1 / temperature))
    each = -tempered[np.arange(n), labels] * n / (n + 1) - tempered.mean(1) / (n + 1)
    return float(each.mean())


@pytest.mark.parametrize("seed", range(3))
def test_answers_that_are_calibrated_stay_as_they_are(seed):
    answers, labels = drawn(20_000, seed=seed)
    fit = fit_calibration(answers, labels, apart(20_000))
    assert fit.temperature == pytest.approx(1, abs=0.04)
    assert np.abs(fit.temper(answers) - answers).max() < 0.02


@pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
@pytest.mark.parametrize(("clips", "classes"), [(30, 2), (200, 4), (200, 30)])
def test_the_temperature_is_the_best_of_a_grid(power, clips, classes):
    answers, labels = drawn(clips, seed=clips, classes=classes)
    wrong = raise_to(answers, power)  # sharper or flatter than they should be
    grid = np.geomspace(1 / EXTREME, EXTREME, 4001)
    best = grid[np.argmin([likelihood(wrong, labels, one) for one in grid])]
    assert fit_temperature(wrong, labels) == pytest.approx(best, rel=2e-3)


def test_a_temperature_undoes_the_sharpness_of_answers():
    answers, labels = drawn(20_000, seed=5)
    for power in (0.4, 2.5):
        assert fit_temperature(raise_to(answers, power), labels) == pytest.approx(power, rel=0.05)


@pytest.mark.parametrize("all_right", [True, False])
def test_answers_all_right_or_all_wrong_have_a_temperature(all_right):
    answers, _ = drawn(40, seed=0)
    labels = answers.argmax(1) if all_right else answers.argmin(1)
    found = fit_temperature(answers, labels)
    assert 1 / EXTREME <= found <= EXTREME
    assert raise_to(answers, 1 / found).max() < 1  # never certain


@pytest.mark.parametrize("temperature", [1 / EXTREME, 0.5, 1.0, 3.0, EXTREME])
def test_tempering_keeps_the_order_sums_to_one_and_is_undone(temperature):
    answers, _ = drawn(200, seed=1, sharpness=1.0)
    fit = Calibration(temperature, 0.5, 40, 40)
    tempered = fit.temper(answers)
    assert np.allclose(tempered.sum(1), 1)
    assert (np.argsort(tempered, axis=1) == np.argsort(answers, axis=1)).all()
    if 0.5 <= temperature <= 3:
        assert np.allclose(fit.undo(tempered.astype(np.float32)), answers, atol=1e-5)
    logits = np.log(answers)
    by_torch = Classification(NAMES, fit).answer(torch.from_numpy(logits))
    assert np.allclose(by_torch, tempered, atol=1e-12)
    assert np.allclose(Classification(NAMES, fit).calibrate(answers), tempered, atol=1e-7)


def test_a_certain_answer_stays_one():
    answer = np.array([1.0, 0.0, 0.0], np.float32)
    assert Calibration(2.0, 0.5, 40, 40).temper(answer) == pytest.approx(answer, abs=1e-9)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_sets_hold_the_right_class_of_new_clips_as_often_as_promised(power):
    """Over many draws of 99 clips to fit on and 200 new ones: within five deviations of 90 %, whatever the answers."""
    held, draws = [], 200
    for seed in range(draws):
        answers, labels = drawn(299, seed=seed, sharpness=1.0)
        answers = raise_to(answers, power)
        fit = fit_calibration(answers[:99], labels[:99], apart(99))
        held.append(fit.sets(fit.temper(answers[99:]))[np.arange(200), labels[99:]].mean())
    # the coverage of a fit on n clips is a draw of Beta(k, n + 1 - k), k = 90 of 100
    deviation = math.sqrt(0.9 * 0.1 / 101 + 0.9 * 0.1 / 200)
    assert np.mean(held) == pytest.approx(COVERAGE, abs=5 * deviation / math.sqrt(draws))


def test_coverage_by_cross_fits_is_that_of_new_clips():
    answers, labels = drawn(1000, seed=3, sharpness=1.0)
    found = cross_fit(answers, labels, apart(1000))
    held = found.sets[np.arange(1000), labels].mean()
    assert held == pytest.approx(COVERAGE, abs=4 * math.sqrt(0.9 * 0.1 / 1000) + 0.02)


def test_a_set_is_never_empty_and_grows_as_classes_get_likelier():
    answers, _ = drawn(300, seed=2)
    sizes = [Calibration(1.0, least, 40, 40).sets(answers).sum(1) for least in (0.0, 0.1, 0.3, 0.6, 1.0)]
    assert all((more >= fewer).all() for more, fewer in pairwise(sizes))
    assert (sizes[0] == 4).all()
    assert (sizes[-1] == 1).all()
    sets = Calibration(1.0, 0.2, 40, 40).sets(answers)
    assert sets[np.arange(300), answers.argmax(1)].all()
    outside = np.where(sets, np.inf, answers)
    assert (np.where(sets, answers, -np.inf).max(1) >= np.where(np.isinf(outside), -1, outside).max(1)).all()
    assert (Calibration(1.0, 0.2, 40, 40).sets(answers[0]) == sets[0]).all()


def test_a_cross_fit_sees_no_clip_of_the_groups_that_it_is_measured_on():
    """Whatever stands in the labels of a group, its own answers are calibrated the same."""
    answers, labels = drawn(90, seed=4)
    groups = [f"day {i // 6}" for i in range(90)]
    found = cross_fit(answers, labels, groups)
    for group in sorted(set(groups)):
        own = np.array([one == group for one in groups])
        others = np.where(own, (labels + 1) % 4, labels)
        again = cross_fit(answers, others, groups)
        assert (again.answers[own] == found.answers[own]).all()
        assert (again.sets[own] == found.sets[own]).all()
        assert (again.answers[~own] != found.answers[~own]).any()


def test_clips_of_one_group_are_calibrated_by_one_fit():
    answers, labels = drawn(60, seed=6)
    groups = [str(i % 12) for i in range(60)]
    found = cross_fit(answers, labels, groups)
    ratios = np.log(found.answers[:, 0] / found.answers[:, 1]) / np.log(answers[:, 0] / answers[:, 1])  # 1 / T
    assert all(np.ptp(ratios[number::12]) < 1e-9 for number in range(12))
    assert 1 < len(set(ratios.round(9))) <= FOLDS


def test_errors_are_those_of_bins_and_what_calibration_mends():
    answers, labels = drawn(4000, seed=7)
    sharp = raise_to(answers, 3.0)
    figures = measure_calibration(sharp, Calibrated(answers, Calibration(1.0, 0.2, 9, 9).sets(answers)), labels)
    assert figures["error_before"] > 0.08 > 0.03 > figures["error"]
    assert figures["error"] == calibration_error(answers.max(1), answers.argmax(1) == labels)
    assert sum(clips for *_, clips in figures["bins"]) == sum(clips for *_, clips in figures["bins_before"]) == 4000
    low, high = figures["coverage_interval"]
    assert low < figures["coverage"] < high
    assert figures["set_size"] == (answers >= np.minimum(0.2, answers.max(1, keepdims=True))).sum(1).mean()
    assert json.loads(json.dumps(figures)) == figures


def test_a_diagram_has_the_bins_that_hold_clips():
    confidence, right = np.array([0.5, 0.52, 1.0, 0.1]), np.array([True, False, True, False])
    assert reliability(confidence, right) == [[0.1, 0.0, 1], [pytest.approx(0.51), 0.5, 2], [1.0, 1.0, 1]]


@pytest.mark.parametrize(
    ("clips", "groups"), [(0, 0), (FEWEST_CLIPS - 1, FEWEST_CLIPS - 1), (500, FEWEST_GROUPS - 1), (500, 1)]
)
def test_too_few_clips_or_groups_are_no_calibration(clips, groups):
    names = [str(i % groups) for i in range(clips)]
    words = find_shortage(names)
    assert {str(clips), str(groups), str(FEWEST_CLIPS), str(FEWEST_GROUPS)} <= set(words.replace(",", "").split())
    answers, labels = drawn(clips, seed=0)
    task = Classification(NAMES)
    assert task.settle(torch.from_numpy(labels), answers, names) == task


def test_enough_clips_of_enough_groups_are_one():
    groups = [str(i % FEWEST_GROUPS) for i in range(FEWEST_CLIPS)]
    assert find_shortage(groups) == ""
    answers, labels = drawn(FEWEST_CLIPS, seed=0)
    task = Classification(NAMES).settle(torch.from_numpy(labels), answers, groups)
    assert task.calibration
    assert (task.calibration.clips, task.calibration.groups) == (FEWEST_CLIPS, FEWEST_GROUPS)


def test_settling_again_forgets_what_was_settled_before():
    answers, labels = drawn(200, seed=8)
    targets, groups = torch.from_numpy(labels), apart(200)
    once = Classification(NAMES).settle(targets, raise_to(answers, 2.0), groups)
    again = once.settle(targets, once.calibrate(raise_to(answers, 2.0)), groups)
    assert once.calibration
    assert again.calibration
    assert again.calibration.temperature == pytest.approx(once.calibration.temperature, rel=1e-4)


def test_figures_of_the_clips_it_was_settled_by_are_those_of_other_fits():
    answers, labels = drawn(120, seed=9)
    targets, groups, raw = torch.from_numpy(labels), [str(i // 4) for i in range(120)], raise_to(answers, 3.0)
    task = Classification(NAMES).settle(targets, raw, groups)
    found = task.measure(targets, task.calibrate(raw), groups=groups, settled_by=True)
    expected = measure_calibration(raw, cross_fit(raw, labels, groups), labels)
    assert found.calibration
    assert found.calibration["error"] == pytest.approx(expected["error"], abs=1e-4)
    assert found.calibration["coverage"] == expected["coverage"]
    assert found.calibration_error == pytest.approx(found.calibration["error"])
    plain = Classification(NAMES).measure(targets, raw, groups=groups)
    assert found.accuracy == plain.accuracy
    assert found.calibration["error_before"] == pytest.approx(plain.calibration_error, abs=1e-4)
    new = task.measure(targets, task.calibrate(raw), groups=groups)
    assert new.calibration
    assert new.calibration["error"] != found.calibration["error"]
    few = task.measure(targets[:8], task.calibrate(raw[:8]), groups=groups[:8], settled_by=True)
    assert few.calibration is None  # no other fit can be had


def test_a_set_in_words_begins_with_the_likeliest():
    answer = np.array([0.1, 0.5, 0.05, 0.35])
    assert Classification(NAMES, Calibration(1.0, 0.3, 40, 40)).likely(answer) == ["right", "down"]
    assert Classification(NAMES, Calibration(1.0, 0.9, 40, 40)).likely(answer) == ["right"]
    assert Classification(NAMES).likely(answer) is None
    assert MultiLabel(NAMES).likely(answer) is None


def test_a_calibration_travels_with_its_task_and_old_files_have_none():
    task = Classification(NAMES, Calibration(0.75, 0.125, 40, 12))
    assert task_from_json(json.loads(json.dumps(task.to_json()))) == task
    old = {"kind": "classification", "names": list(NAMES)}
    assert task_from_json(old) == Classification(NAMES)
    assert Classification(NAMES).to_json() == old


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": 2 * EXTREME},
        {"temperature": "1"},
        {"temperature": True},
        {"least": -0.1},
        {"least": 1.5},
        {"least": None},
        {"clips": 0},
        {"clips": 2.5},
        {"groups": "9"},
    ],
)
def test_a_damaged_calibration_is_refused(change):
    good = Calibration(1.0, 0.5, 40, 40).to_json()
    values = {"kind": "classification", "names": list(NAMES), "calibration": good | change}
    with pytest.raises(ValueError, match=next(iter(change))):
        task_from_json(values)
    for wrong in ([], "no", 1, {}):
        with pytest.raises(ValueError, match="calibration"):
            task_from_json(values | {"calibration": wrong})
