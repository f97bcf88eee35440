"""How weights move: the schedule of the rate, the groups of the optimizer, mixup and targets."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny import blocks_of, tiny

from tubelet.nn import FAMILIES, SpaceTimeTransformer
from tubelet.nn.parameter_groups import layer_depths
from tubelet.tasks import Classification
from tubelet.train.optim import learning_rate, make_optimizer
from tubelet.train.trainer import mix_pairs, mix_stills

torch.set_num_threads(1)


# ---- learning rate


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
def test_the_rate_rises_to_its_peak_and_falls_after_it(steps: int, warmup: float) -> None:
    rates = [learning_rate(s / steps, (s + 1) / steps, peak=0.1, warmup=warmup) for s in range(steps)]
    top = int(np.argmax(rates))
    assert max(rates) == pytest.approx(0.1)
    assert all(early < late for early, late in pairwise(rates[: top + 1]))
    assert all(early >= late for early, late in pairwise(rates[top:]))
    assert min(rates) > 0
    assert abs(top + 1 - max(1, round(steps * warmup))) < 1


def test_the_rate_rises_in_equal_steps_and_falls_as_half_a_cosine() -> None:
    rates = [learning_rate(step / 120, (step + 1) / 120, peak=1.0, warmup=1 / 6) for step in range(120)]
    assert np.allclose(np.diff(rates[:20]), 1 / 20)
    assert np.allclose(rates[20:], 0.5 + 0.5 * np.cos(np.pi * np.arange(100) / 100))
    assert rates[-1] < 1e-3


# ---- groups


def deep(family: str) -> SpaceTimeTransformer:
    return tiny(family, **{"depths": (3, 2)} if family == "swin2" else {"depth": 3})


@pytest.mark.parametrize("family", FAMILIES)
def test_depth_grows_from_the_tokeniser_to_the_head(family: str) -> None:
    model = deep(family)
    depths = layer_depths(model)
    assert set(depths) == {name for name, _ in model.named_parameters()}
    blocks = list(blocks_of(model))
    assert len(blocks) == {"vivit2": 3 + 1, "videoprism": 3 + 1, "pevideo": 3 + 1, "vjepa2": 3 + 3, "swin2": 3 + 2}.get(
        family, 3
    )
    assert {depths[name] for name in depths if name.startswith("embed.")} == {0}
    assert {depths[name] for name in depths if name.startswith("head.")} == {len(blocks) + 1}
    assert set(depths.values()) == set(range(len(blocks) + 2))
    for number, block in enumerate(blocks):
        assert {depths[name] for name in depths if name.startswith(f"{block}.")} == {number + 1}
    assert {depths[name] for name in depths if ".prefix" in name or ".tables" in name} <= {0, 3}


@pytest.mark.parametrize(
    ("family", "parts"),
    [
        ("vjepa2", ["pool.blocks.2.", "pool.query", "pool.qkv.", "pool.mlp.", "pool.norm."]),  # after its last block
        ("swin2", ["stages.0.blocks.2.", "stages.1.merge."]),  # merging comes before the next stage's first block
        ("ast", ["blocks.2.", "norm.", "pool.norm."]),
    ],
)
def test_what_follows_a_block_moves_with_it(family: str, parts: list[str]) -> None:
    depths = layer_depths(deep(family))
    found = [{depths[name] for name in depths if name.startswith(f"encoders.0.{part}")} for part in parts]
    assert found == [{6 if family == "vjepa2" else 3}] * len(parts)


def test_the_temporal_encoder_lies_above_the_spatial_one() -> None:
    depths = layer_depths(tiny("vivit2", depth=3, temporal_depth=2))
    spatial = [depth for name, depth in depths.items() if name.startswith("encoders.0.")]
    temporal = [depth for name, depth in depths.items() if name.startswith("encoders.1.blocks.")]
    assert max(spatial) == 3
    assert sorted(set(temporal)) == [4, 5]
    # what is added to the frame tokens before the first temporal block moves with the last spatial one
    assert {depths[name] for name in depths if name.startswith("encoders.1.position")} == {3}


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_decay_is_a_factor_for_each_layer_below_the_head(family: str) -> None:
    model = deep(family)
    optimizer = make_optimizer(model, weight_decay=0.05, layer_decay=0.5)
    scales = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    depths = layer_depths(model)
    top = max(depths.values())
    assert {name: scales[id(p)] for name, p in model.named_parameters()} == {
        name: 0.5 ** (top - depth) for name, depth in depths.items()
    }
    assert scales[id(model.head.weight)] == max(scales.values()) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_only_matrices_decay(family: str) -> None:
    model = tiny(family)
    optimizer = make_optimizer(model, weight_decay=0.05, layer_decay=1.0)
    decaying = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    matrices = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv3d)
    }
    assert decaying == matrices
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}


# ---- mixup and targets


@pytest.mark.parametrize("shape", [(6, 3, 2, 4, 5), (2, 1, 1, 8, 9)])
def test_mixup_is_a_convex_mean_of_neighbours(shape: tuple[int, ...]) -> None:
    clips, targets = torch.randn(shape), Classification(tuple("abcdefg")).soften(torch.arange(shape[0]), 0.1)
    shares = np.linspace(0, 1, shape[0] // 2)
    mixed_clips, mixed_targets = mix_pairs(clips, targets, shares)
    for x, mixed in ((clips, mixed_clips), (targets, mixed_targets)):
        for pair, share in enumerate(shares.astype(np.float32)):
            one, other = x[2 * pair], x[2 * pair + 1]
            torch.testing.assert_close(mixed[2 * pair], share * one + (1 - share) * other)
            torch.testing.assert_close(mixed[2 * pair + 1], share * other + (1 - share) * one)
    torch.testing.assert_close(mixed_targets.sum(1), torch.ones(shape[0]))


def test_pairs_do_not_know_of_each_other() -> None:
    clips, targets, shares = torch.randn(8, 2), torch.rand(8, 3), np.random.default_rng(0).random(4)
    whole = mix_pairs(clips, targets, shares)
    for part in (slice(0, 2), slice(2, 6), slice(6, 8)):
        alone = mix_pairs(clips[part], targets[part], shares[part.start // 2 : part.stop // 2])
        assert all(torch.equal(a, w[part]) for a, w in zip(alone, whole))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_what_is_mixed_in_stands_still(dtype: torch.dtype) -> None:
    clips = torch.randint(0, 256, (4, 3, 5, 2, 2)).to(dtype)
    shares, frames = np.array([0.0, 0.25, 0.5, 1.0]), np.array([1, 4, 0, 2])
    mixed = mix_stills(clips, shares, frames)
    assert mixed.dtype == dtype
    for number, (share, frame) in enumerate(zip(shares, frames)):
        still = clips[number ^ 1, :, frame].float()[:, None]
        expected = (1 - share) * clips[number].float() + share * still
        torch.testing.assert_close(mixed[number].float(), expected, atol=0.5 if dtype == torch.uint8 else 1e-4, rtol=0)


def test_soft_targets_keep_the_label_likeliest_and_sum_to_one() -> None:
    labels = torch.tensor([2, 0, 4, 4])
    task = Classification(tuple("abcde"))
    targets = task.soften(labels, 0.1)
    assert torch.equal(targets.argmax(1), labels)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    torch.testing.assert_close(targets[0], torch.tensor([0.02, 0.02, 0.92, 0.02, 0.02]))
    assert torch.equal(task.soften(labels, 0.0), torch.nn.functional.one_hot(labels, 5).float())
