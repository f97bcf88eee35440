"""Calibration of several classes at once: laws on answers whose truth is known, a grid and counting for oracles."""

import json
import math

import numpy as np
import pytest
import torch

from tubelet.tasks import MultiLabel, task_from_json
from tubelet.tasks.calibration import (
    COVERAGE,
    EXTREME,
    FEWEST_CLIPS,
    FEWEST_GROUPS,
    FOLDS,
    Calibrated,
    Calibration,
    calibrate_each,
    cross_fit,
    fit_each,
    measure_each,
)
from tubelet.tasks.multilabel import NONE

NAMES = ("jump", "run", "walk", "wave")
ODDS = np.array([-2.5, -1.5, -0.5, 0.5])  # that a class holds, their logarithms in the middle


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


def drawn(clips: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K), and bool classes drawn from just their probabilities: calibrated by construction."""
    rng = np.random.default_rng(seed)
    logits = ODDS + 1.5 * rng.standard_normal((clips, len(ODDS)))
    return logits, rng.random(logits.shape) < sigmoid(logits)


def apart(clips: int) -> list[str]:
    return [str(i) for i in range(clips)]


def as_targets(truth: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(truth.astype(np.float32))


def cross_fit_each(answers: np.ndarray, truth: np.ndarray, groups: list[str]) -> Calibrated:
    return cross_fit(answers, truth, groups, fit=fit_each, calibrate=calibrate_each)


def likelihood(logits: np.ndarray, truth: np.ndarray, temperature: float) -> float:
    """Mean negative log likelihood of a clip, with the one clip more in which each class half holds."""
    n, tempered = len(truth), logits / temperature
    share = (truth * n + 0.5) / (n + 1)
    return float((share * np.logaddexp(0, -tempered) + (1 - share) * np.logaddexp(0, tempered)).sum(1).mean())


# ---- temperature


@pytest.mark.parametrize("seed", range(3))
def test_answers_that_are_calibrated_stay_as_they_are(seed):
    logits, truth = drawn(20_000, seed=seed)
    answers = sigmoid(logits)
    fit = fit_each(answers, truth, apart(20_000))
    assert fit.temperature == pytest.approx(1, abs=0.03)
    assert np.abs(calibrate_each(fit, answers).answers - answers).max() < 0.01


@pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("clips", [30, 300])
def test_the_temperature_is_the_best_of_a_grid(power, clips):
    logits, truth = drawn(clips, seed=clips)
    grid = np.geomspace(1 / EXTREME, EXTREME, 4001)
    best = grid[np.argmin([likelihood(power * logits, truth, one) for one in grid])]
    assert fit_each(sigmoid(power * logits), truth, apart(clips)).temperature == pytest.approx(best, rel=2e-3)


def test_a_temperature_undoes_the_sharpness_of_answers():
    logits, truth = drawn(20_000, seed=5)
    for power in (0.4, 2.5):
        assert fit_each(sigmoid(power * logits), truth, apart(20_000)).temperature == pytest.approx(power, rel=0.04)


@pytest.mark.parametrize("all_right", [True, False])
def test_answers_all_right_or_all_wrong_have_a_temperature(all_right):
    logits, _ = drawn(40, seed=0)
    fit = fit_each(sigmoid(logits), (logits > 0) == all_right, apart(40))
    assert 1 / EXTREME <= fit.temperature <= EXTREME
    assert calibrate_each(fit, sigmoid(logits)).answers.max() < 1  # never certain


@pytest.mark.parametrize("temperature", [1 / EXTREME, 0.5, 1.0, 3.0, EXTREME])
def test_tempering_divides_logits_and_is_undone(temperature):
    logits, _ = drawn(200, seed=1)
    answers, task = sigmoid(logits), MultiLabel(NAMES, calibration=Calibration(temperature, 0.5, 40, 40))
    tempered = task.calibrate(answers)
    assert tempered.dtype == np.float32
    assert np.allclose(tempered, sigmoid(logits / temperature), atol=2e-7)
    assert np.allclose(task.answer(torch.from_numpy(logits)), tempered, atol=2e-7)
    if 0.5 <= temperature <= 3:
        assert np.allclose(task.uncalibrate(tempered), answers, atol=1e-5)
    assert (task.holds(tempered) == (logits >= 0)).all(), "what is said without thresholds stays"


def test_certain_answers_stay_certain_and_finite():
    answers = np.array([0.0, 1.0, 1e-30, np.float32(1) - np.float32(2**-24)], np.float32)
    for temperature in (0.5, 2.0):
        tempered = MultiLabel(NAMES, calibration=Calibration(temperature, 0.5, 40, 40)).calibrate(answers)
        assert np.isfinite(tempered).all()
        assert tempered == pytest.approx(answers, abs=3e-4)
        assert tempered[1] >= tempered[3]


@pytest.mark.parametrize("weights", [(), (8.0, 3.0, 1.5, 1.0)])
def test_what_a_class_weighs_in_the_loss_is_taken_back(weights):
    """A weight multiplies the odds that the loss leads to: no temperature for all classes could mend that."""
    logits, truth = drawn(20_000, seed=12)
    targets, given = as_targets(truth), torch.from_numpy(logits + np.log(weights or 1))
    plain = MultiLabel(NAMES, weights)
    raw = plain.answer(given)
    task = plain.settle(targets, raw, apart(20_000), measured=True)
    assert task.calibration
    assert task.calibration.temperature == pytest.approx(1, abs=0.03)
    assert np.abs(task.answer(given) - sigmoid(logits)).max() < 0.01
    assert np.allclose(task.calibrate(raw), task.answer(given), atol=1e-6)
    assert np.allclose(task.uncalibrate(task.answer(given)), raw, atol=1e-5)
    found = task.measure(targets, task.answer(given), groups=apart(20_000))
    assert found.calibration
    assert found.calibration["error"] < 0.01
    assert (found.calibration["error_before"] > 0.1) == bool(weights)
    assert found.macro_f1 == pytest.approx(plain.measure(targets, raw, groups=apart(20_000)).macro_f1, abs=1e-6)


def test_the_loss_leads_to_probabilities_that_calibration_takes_for_weighed():
    """Of clips that all look the same, the best logits of the loss, found by descent, come to the shares that hold."""
    _, truth = drawn(400, seed=13)
    targets = as_targets(truth)
    task = MultiLabel(NAMES).learn_from(targets)
    assert max(task.weights) > 3
    logits = torch.zeros(4, requires_grad=True)
    steps = torch.optim.Adam([logits], lr=0.1)
    for _ in range(400):
        steps.zero_grad()
        task.loss(logits.expand(400, 4), targets).backward()
        steps.step()
    assert task.even_out(task.answer(logits.detach())) == pytest.approx(truth.mean(0), abs=1e-3)


# ---- sets


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_sets_hold_all_that_hold_in_new_clips_as_often_as_promised(power):
    """Over many draws of clips to fit on and new ones, of those in which any class holds, whatever the answers."""
    held, draws = [], 200
    for seed in range(draws):
        logits, truth = drawn(300, seed=seed)
        answers = sigmoid(power * logits)
        fit = fit_each(answers[:120], truth[:120], apart(120))
        inside = (calibrate_each(fit, answers[120:]).sets | ~truth[120:]).all(1)
        held.append(inside[truth[120:].any(1)].mean())
    # about 100 of the 120 clips have a class, and 150 of the 180: as in `test_calibration.py`, and at most 1 % above
    deviation = math.sqrt(0.9 * 0.1 / 101 + 0.9 * 0.1 / 150)
    assert np.mean(held) == pytest.approx(COVERAGE + 0.005, abs=0.005 + 5 * deviation / math.sqrt(draws))


def test_coverage_by_cross_fits_is_that_of_new_clips():
    logits, truth = drawn(1000, seed=3)
    found = measure_each(sigmoid(logits), cross_fit_each(sigmoid(logits), truth, apart(1000)), truth)
    assert found["coverage"] == pytest.approx(COVERAGE, abs=4 * math.sqrt(0.9 * 0.1 / 800) + 0.02)


def test_the_least_probability_is_found_by_counting():
    logits, truth = drawn(60, seed=2)
    fit = fit_each(sigmoid(logits), truth, apart(60))
    tempered = calibrate_each(fit, sigmoid(logits)).answers
    lowest = [min(p for p, holds in zip(row, here) if holds) for row, here in zip(tempered, truth) if any(here)]
    kept = sum(one >= fit.least for one in lowest)
    assert kept == math.ceil(COVERAGE * (len(lowest) + 1))
    assert any(0 <= one - fit.least < 1e-3 * one for one in lowest)


def test_clips_without_a_class_do_not_choose_the_sets():
    """They would be held by the empty set: where most are so, the sets would be empty, too."""
    logits, truth = drawn(60, seed=4)
    empty = np.zeros((600, 4), bool)
    many = np.concatenate([truth, empty])
    fit = fit_each(np.concatenate([sigmoid(logits), np.full((600, 4), 0.01)]), many, apart(660))
    held = (calibrate_each(fit, sigmoid(logits)).sets | ~truth).all(1)[truth.any(1)]
    assert held.mean() >= COVERAGE
    assert fit_each(sigmoid(logits), empty[:60], apart(60)).least == 0, "none says what may be ruled out"


def test_a_set_in_words_begins_with_the_likeliest_and_may_be_none():
    answer = np.array([0.1, 0.5, 0.05, 0.35])
    for least, expected in ((0.3, ["run", "wave"]), (0.04, ["run", "wave", "jump", "walk"]), (0.9, [NONE])):
        task = MultiLabel(NAMES, calibration=Calibration(1.0, least, 40, 40))
        assert task.likely(answer) == expected
        assert calibrate_each(Calibration(1.0, least, 40, 40), answer).sets.sum() == len(set(expected) - {NONE})


# ---- figures


def test_a_cross_fit_sees_no_clip_of_the_groups_that_it_is_measured_on():
    logits, truth = drawn(90, seed=4)
    answers, groups = sigmoid(logits), [f"day {i // 6}" for i in range(90)]
    found = cross_fit_each(answers, truth, groups)
    for group in sorted(set(groups)):
        own = np.array([one == group for one in groups])
        again = cross_fit_each(answers, np.where(own[:, None], ~truth, truth), groups)
        assert (again.answers[own] == found.answers[own]).all()
        assert (again.sets[own] == found.sets[own]).all()
        assert (again.answers[~own] != found.answers[~own]).any()


def test_clips_of_one_group_are_calibrated_by_one_fit():
    logits, truth = drawn(60, seed=6)
    found = cross_fit_each(sigmoid(logits), truth, [str(i % 12) for i in range(60)])
    ratios = logit(found.answers[:, 0]) / logits[:, 0]  # 1 / T
    assert all(np.ptp(ratios[number::12]) < 1e-7 for number in range(12))
    assert 1 < len(set(ratios.round(7))) <= FOLDS


def test_errors_are_of_all_pairs_of_class_and_clip():
    logits, truth = drawn(2000, seed=7)
    sharp, answers = sigmoid(3 * logits), sigmoid(logits)
    figures = measure_each(sharp, Calibrated(answers, answers >= 0.2), truth)
    for name, given in (("error", answers), ("error_before", sharp)):
        pairs = [(p, holds) for row, here in zip(given, truth) for p, holds in zip(row, here)]
        bins = [[one for one in pairs if b / 15 < one[0] <= (b + 1) / 15] for b in range(15)]
        gaps = [abs(sum(p for p, _ in one) - sum(holds for _, holds in one)) for one in bins]
        assert figures[name] == pytest.approx(sum(gaps) / len(pairs))
    assert figures["error_before"] > 0.08 > 0.03 > figures["error"]
    held = [all(row[here] >= 0.2) for row, here in zip(answers, truth) if any(here)]
    assert figures["coverage"] == pytest.approx(np.mean(held))
    assert figures["coverage_interval"][0] < figures["coverage"] < figures["coverage_interval"][1]
    assert figures["set_size"] == (answers >= 0.2).sum(1).mean()
    assert json.loads(json.dumps(figures)) == figures


def test_figures_of_the_clips_it_was_settled_by_are_those_of_other_fits():
    logits, truth = drawn(120, seed=9)
    targets, groups = as_targets(truth), [str(i // 4) for i in range(120)]
    raw = sigmoid(3 * logits).astype(np.float32)
    task = MultiLabel(NAMES).settle(targets, raw, groups, measured=True)
    found = task.measure(targets, task.calibrate(raw), groups=groups, settled_by=True)
    expected = measure_each(raw, cross_fit_each(raw, truth, groups), truth)
    assert found.calibration
    assert found.calibration["error"] == pytest.approx(expected["error"], abs=1e-4)
    assert found.calibration["error_before"] == pytest.approx(expected["error_before"], abs=1e-4)
    assert found.calibration["coverage"] == expected["coverage"]
    new = task.measure(targets, task.calibrate(raw), groups=groups)
    assert new.calibration
    assert new.calibration["error"] != found.calibration["error"]
    plain = MultiLabel(NAMES).measure(targets, raw, groups=groups)
    assert plain.calibration is None
    for name in ("mean_average_precision", "macro_f1", "micro_f1"):  # as they are without it
        assert getattr(found, name) == pytest.approx(getattr(plain, name), abs=1e-6)
    few = task.measure(targets[:8], task.calibrate(raw[:8]), groups=groups[:8], settled_by=True)
    assert few.calibration is None  # no other fit can be had
    assert any(f"{100 * found.calibration['coverage']:.1f}" in value for _, value in found.facts())


# ---- the task


def test_clips_without_a_label_settle_and_measure_nothing():
    logits, truth = drawn(100, seed=10)
    answers, targets = sigmoid(2 * logits).astype(np.float32), as_targets(truth)
    unknown = torch.arange(100) % 4 == 0
    gaps = targets.masked_fill(unknown[:, None], torch.nan)
    known = ~unknown.numpy()
    groups = [str(i // 2) for i in range(100)]
    some = [one for one, here in zip(groups, known) if here]
    task, less = (
        MultiLabel(NAMES).settle(*given) for given in ((gaps, answers, groups), (targets[known], answers[known], some))
    )
    assert task == less
    assert task.calibration
    assert (task.calibration.clips, task.calibration.groups) == (75, 50)
    for settled_by in (False, True):
        whole = task.measure(gaps, task.calibrate(answers), groups=groups, settled_by=settled_by)
        part = task.measure(targets[known], task.calibrate(answers[known]), groups=some, settled_by=settled_by)
        assert whole.calibration == part.calibration
    nothing = torch.full((100, 4), torch.nan)
    assert MultiLabel(NAMES).settle(nothing, answers, groups).calibration is None
    empty = task.measure(torch.zeros(100, 4), task.calibrate(answers), groups=groups)
    assert empty.calibration is None, "where nothing holds no set can miss it"


@pytest.mark.parametrize(
    ("clips", "groups", "enough"),
    [
        (FEWEST_CLIPS - 1, FEWEST_CLIPS - 1, False),
        (500, FEWEST_GROUPS - 1, False),
        (FEWEST_CLIPS, FEWEST_GROUPS, True),
    ],
)
def test_too_few_clips_or_groups_are_no_calibration(clips, groups, enough):
    logits, truth = drawn(clips, seed=0)
    found = MultiLabel(NAMES).settle(as_targets(truth), sigmoid(logits), [str(i % groups) for i in range(clips)])
    assert (found.calibration is not None) == enough


def test_thresholds_are_of_calibrated_probabilities_and_say_the_same():
    logits, truth = drawn(300, seed=11)
    answers, targets = sigmoid(3 * logits).astype(np.float32), as_targets(truth)
    task = MultiLabel(NAMES).settle(targets, answers, apart(300))
    plain = MultiLabel(NAMES).settle(targets, answers, ["one"] * 300)  # too few groups for a calibration
    assert plain.calibration is None
    assert (task.holds(task.calibrate(answers)) == plain.holds(answers)).all()
    assert np.abs(np.subtract(task.thresholds, plain.thresholds)).max() > 0.01
    measured = MultiLabel(NAMES).settle(targets, answers, apart(300), measured=True)
    assert (measured.thresholds, measured.calibration) == ((), task.calibration)


def test_settling_again_forgets_what_was_settled_before():
    logits, truth = drawn(200, seed=8)
    answers, targets = sigmoid(2 * logits).astype(np.float32), as_targets(truth)
    once = MultiLabel(NAMES).settle(targets, answers, apart(200))
    again = once.settle(targets, once.calibrate(answers), apart(200))
    assert once.calibration
    assert again.calibration
    assert again.calibration.temperature == pytest.approx(once.calibration.temperature, rel=1e-4)
    assert again.thresholds == pytest.approx(once.thresholds, abs=1e-4)


def test_a_calibration_travels_with_its_task_and_old_files_have_none():
    task = MultiLabel(NAMES, (1.0,) * 4, (0.25,) * 4, Calibration(0.75, 0.125, 40, 12))
    assert task_from_json(json.loads(json.dumps(task.to_json()))) == task
    old = {"kind": "multilabel", "names": list(NAMES), "weights": [], "thresholds": []}
    assert task_from_json(old) == MultiLabel(NAMES)
    assert MultiLabel(NAMES).to_json() == old
    for wrong in ([], "no", 1, {}, task.to_json()["calibration"] | {"temperature": 0}):
        with pytest.raises(ValueError, match="calibration"):
            task_from_json(task.to_json() | {"calibration": wrong})
    for weight in (0.0, -2.0):
        with pytest.raises(ValueError, match=str(weight)):
            task_from_json(task.to_json() | {"weights": [1.0, weight, 1.0, 1.0]})
