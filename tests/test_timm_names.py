"""What people know from timm: a new head, features by block, groups of weights, names by a pattern."""

import math
from dataclasses import replace

import pytest
import torch
from naming import naming
from tiny import clip_for, tiny
from torch import nn

import tubelet
from tubelet.nn import FAMILIES, SpaceTimeTransformer, list_models, parameter_groups
from tubelet.nn.parameter_groups import layer_depths

ALL = sorted(FAMILIES)


@pytest.mark.parametrize("family", [family for family in ALL if family != "videoprism"])
def test_features_and_head_in_two_steps_are_the_answer(family: str) -> None:
    model = tiny(family).eval()
    clip = clip_for(model)
    clip = clip[:, :, :2] if model.stack[-1].over == "hw" else clip
    tokens = model.forward_features(clip)
    assert tokens.shape[::2] == (len(clip), model.num_features) or model.config.stages[-1].pool == "cls,dist"
    assert torch.allclose(model.forward_head(tokens), model(clip), atol=1e-5)
    assert torch.allclose(model.forward_head(tokens, pre_logits=True), model.features(clip), atol=1e-5)
    assert model.features(clip).shape[1] == model.num_features


@pytest.mark.parametrize("family", ["vivit2", "videoprism", "dinov3"])
def test_a_model_of_parts_of_a_clip_has_no_tokens_of_it(family: str) -> None:
    alone = tiny(family)
    if family == "vivit2":
        alone = SpaceTimeTransformer(replace(alone.config, stages=alone.config.stages[:1]))
    with pytest.raises(ValueError, match=naming("features")):
        alone.forward_features(clip_for(alone))


@pytest.mark.parametrize("family", ALL)
def test_a_new_head_leaves_all_else_as_it_is(family: str) -> None:
    torch.manual_seed(0)
    model = tiny(family).eval()
    clip = clip_for(model)
    before, features = {k: v.clone() for k, v in model.state_dict().items()}, model.features(clip)
    model.reset_head(11)
    assert model(clip).shape == (len(clip), 11)
    assert model.config.num_classes == 11
    assert torch.equal(model.features(clip), features)
    for name, value in model.state_dict().items():
        assert name.startswith("head.") or torch.equal(value, before[name])
    assert 0 < model.head.weight.std() < 0.1
    assert not model.head.bias.any()
    model.reset_classifier(0)
    assert torch.equal(model(clip), features)
    assert isinstance(model.head, nn.Identity)


def test_a_new_head_has_the_precision_of_the_model_and_can_be_saved(tmp_path: object) -> None:
    model = tiny("vivit1").double()
    model.reset_head(3)
    assert model.head.weight.dtype == torch.float64
    tubelet.save(model.float(), f"{tmp_path}/model.safetensors")
    assert tubelet.load(f"{tmp_path}/model.safetensors").config.num_classes == 3
    with pytest.raises(ValueError, match=naming(-1)):
        model.reset_head(-1)
    assert model.config.num_classes == 3


@pytest.mark.parametrize("family", ALL)
def test_features_of_a_block_lie_on_its_grid(family: str) -> None:
    model = tiny(family).eval()
    clip, encoder = clip_for(model), model.stack[0]
    found = model.block_features(clip)
    assert len(found) == len(encoder.blocks)
    grid = model.grid(clip.shape[2:])
    for maps in found:
        b, t, h, w, _ = maps.shape
        assert (b, t) == (len(clip), grid.t)
        assert family == "swin2" or (h, w) == (grid.h, grid.w)
    tokens, at = encoder.tokens(*model.embed_clip(clip))
    last = found[-1].flatten(1, 3)
    norm = encoder.stages[-1].norm if family == "swin2" else encoder.norm
    assert torch.allclose(norm(last), tokens[:, encoder.prefix_size :], atol=1e-5)
    assert at.size == last.shape[1]


def test_blocks_are_chosen_by_number_and_nothing_stays_behind() -> None:
    model = tiny("vivit1", depth=3).eval()
    clip = clip_for(model)
    whole = model.block_features(clip)
    last, first, again = model.block_features(clip, [-1, 0, -1])
    assert torch.equal(last, whole[2])
    assert torch.equal(first, whole[0])
    assert torch.equal(again, last)
    assert not any(block._forward_hooks for block in model.stack[0].blocks)
    with pytest.raises(ValueError, match=naming(3)):
        model.block_features(clip, [0, 3])


@pytest.mark.parametrize("family", ALL)
def test_groups_hold_every_weight_once_at_its_rate(family: str) -> None:
    model = tiny(family)
    groups = parameter_groups(model, lr=1e-3, weight_decay=0.1, layer_decay=0.5)
    held = [parameter for group in groups for parameter in group["params"]]
    assert len(held) == len({id(one) for one in held}) == len(list(model.parameters()))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    depths = layer_depths(model)
    top = max(depths.values())
    for group in groups:
        assert math.isclose(group["lr"], 1e-3 * group["lr_scale"])
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert math.isclose(group["lr_scale"], 0.5 ** (top - depths[name]))
            assert group["weight_decay"] in ((0.0, 0.1) if parameter.ndim > 1 else (0.0,))
    torch.optim.SGD(groups, lr=1.0).step()  # any optimizer takes them


def test_names_are_found_by_a_pattern() -> None:
    assert list_models("vivit*") == [name for name in list_models() if name.startswith("vivit")]
    assert list_models("*-B") == [name for name in list_models() if name.endswith("-B")]
    assert list_models("resnet*") == []
