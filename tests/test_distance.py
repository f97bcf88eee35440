"""The distance from training features: laws, a brute-force oracle, its tensors, faults."""

import math

import numpy as np
import pytest
import torch

from tubelet.features import distance
from tubelet.features.distance import DISTANCE, FLOOR, KEPT, Distance, fit_distance, measure_telling


def cloud(clips: int, width: int, *, seed: int) -> np.ndarray:
    """Features (N, D) that vary along each axis by another length, in a frame that is turned."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(np.random.default_rng(width).standard_normal((width, width)))[0]
    return (rng.standard_normal((clips, width)) * np.geomspace(3, 0.03, width)) @ turned + 5


def unnamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a checkpoint gives them back."""
    return {name.removeprefix(DISTANCE): value for name, value in tensors.items()}


@pytest.mark.parametrize(("clips", "width"), [(200, 12), (8, 12)])
def test_distances_are_those_of_an_inverted_covariance(clips, width):
    train, new = cloud(clips, width, seed=0), cloud(50, width, seed=1)
    found = fit_distance(train, new)
    covariance = np.cov(train.T, bias=True)
    covariance += FLOOR * np.trace(covariance) / width * np.eye(width)
    off = new - train.mean(0)
    expected = np.einsum("nd,dn->n", off, np.linalg.solve(covariance, off.T))
    assert found.measure(new) == pytest.approx(expected, rel=1e-6)
    assert found.measure(new[0]) == pytest.approx(expected[0], rel=1e-6)


def test_distances_do_not_depend_on_units_or_a_turn_of_all_features():
    train, new = cloud(100, 10, seed=2), cloud(30, 10, seed=3)
    turned = np.linalg.qr(np.random.default_rng(9).standard_normal((10, 10)))[0]
    found = fit_distance(train, new).measure(new)
    assert fit_distance(1000 * train @ turned + 7, new).measure(1000 * new @ turned + 7) == pytest.approx(found)


def test_a_wide_model_has_fewer_axes_and_one_variance_for_all_others(monkeypatch):
    train, new = cloud(300, 20, seed=4), cloud(40, 20, seed=5)
    monkeypatch.setattr(distance, "MOST_NUMBERS", 100)
    found = fit_distance(train, new)
    assert found.axes.shape == (5, 20)
    variances, axes = np.linalg.eigh(np.cov(train.T, bias=True))
    variances[:15] = variances[:15].mean()
    off = (new - train.mean(0)) @ axes
    expected = (off**2 / (variances + FLOOR * variances.mean())).sum(1)
    assert found.measure(new) == pytest.approx(expected, rel=1e-6)


def test_the_limit_keeps_new_clips_as_often_as_promised():
    kept = []
    for seed in range(200):
        found = fit_distance(cloud(60, 6, seed=3 * seed), cloud(39, 6, seed=3 * seed + 1))
        kept.append((found.measure(cloud(100, 6, seed=3 * seed + 2)) <= found.limit).mean())
    deviation = math.sqrt(KEPT * (1 - KEPT) * (1 / 41 + 1 / 100))
    assert np.mean(kept) == pytest.approx(KEPT, abs=5 * deviation / math.sqrt(200))


def test_what_lies_apart_is_told():
    train, known = cloud(100, 8, seed=6), cloud(50, 8, seed=7)
    found, apart = fit_distance(train, known), known + 20 * np.linalg.svd(train - train.mean(0))[2][-1]
    assert (found.measure(apart) > found.limit).all()


@pytest.mark.parametrize("held_out", [0.0, 1.0])
def test_features_that_never_vary_have_a_distance_that_can_be_kept(held_out):
    found = fit_distance(np.ones((40, 6)), np.ones((40, 6)) + held_out)
    back = Distance.from_tensors(unnamed(found.to_tensors()), width=6)
    assert 0 < back.limit < math.inf


def test_distances_travel_as_tensors():
    found = fit_distance(cloud(60, 6, seed=8), cloud(40, 6, seed=9))
    tensors = found.to_tensors()
    back = Distance.from_tensors(unnamed(tensors), width=6)
    new = cloud(30, 6, seed=10)
    assert back.measure(new) == pytest.approx(found.measure(new), rel=1e-4)
    assert back.limit == pytest.approx(found.limit, rel=1e-6)
    assert sum(one.nbytes for one in tensors.values()) < 2**20
    assert all(one.dtype == torch.float32 for one in tensors.values())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean", torch.zeros(5)),
        ("axes", torch.zeros(6, 5)),
        ("axes", torch.zeros(())),
        ("axes", torch.full((6, 6), math.nan)),
        ("variances", torch.ones(6)),
        ("variances", torch.zeros(7)),
        ("limit", torch.ones(1)),
        ("limit", torch.tensor(math.inf)),
        ("limit", torch.tensor(0.0)),
        ("limit", None),
    ],
)
def test_damaged_tensors_are_refused(name, change):
    tensors = unnamed(fit_distance(cloud(60, 6, seed=8), cloud(40, 6, seed=9)).to_tensors()) | {name: change}
    given = {key: value for key, value in tensors.items() if value is not None}
    with pytest.raises(ValueError, match=rf"distance\.{name}"):
        Distance.from_tensors(given, width=6)


@pytest.mark.parametrize("seed", range(3))
def test_how_well_distances_tell_is_counted_over_all_pairs(seed):
    rng = np.random.default_rng(seed)
    known, unknown = rng.integers(0, 12, 40).astype(float), rng.integers(4, 20, 30).astype(float)
    found = measure_telling(known, unknown, 9.0)
    pairs = [(u > k) + (u == k) / 2 for u in unknown for k in known]
    assert found["auroc"] == pytest.approx(np.mean(pairs))
    assert found["kept"] == np.mean(known <= 9)
    assert found["told"] == np.mean(unknown > 9)
    limit = min(one for one in known if np.mean(known <= one) >= KEPT)
    assert found["false_alarms"] == np.mean(unknown <= limit)
    assert measure_telling(known, known, 9.0)["auroc"] == pytest.approx(0.5)
    assert measure_telling(known, known + 100, 9.0) == {
        "auroc": 1.0,
        "false_alarms": 0.0,
        "kept": found["kept"],
        "told": 1.0,
    }
