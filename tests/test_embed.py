from itertools import product

import pytest
import torch
import torch.nn.functional as F
from naming import naming
from tiny import TOKENISERS, configure
from torch.testing import assert_close

from tubelet.nn import (
    ConvStemEmbed,
    DepthwiseSeparableEmbed,
    SpaceThenTimeEmbed,
    Tokeniser,
    TubeletEmbed,
    UniformFrames,
    uniform_frames,
)
from tubelet.nn.build import EMBEDS, make_embed
from tubelet.nn.embed import normalise, three_factors

PATCH = (2, 4, 3)
STRIDES = [None, (1, 4, 3), (2, 2, 3), (1, 3, 2)]


def made(kind: str, **settings) -> Tokeniser:
    numbers = {"dim": 8, "depth": 1, "heads": 1, "mlp_dim": 8}
    return make_embed(configure("vivit1", **numbers, **{"clip": (4, 8, 8), "embed": kind} | settings))


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, 8, 9, dtype=torch.float64)


def tokens_of(kernel, bias, clip, stride):
    """The tokens of one tubelet kernel (D, C, t, h, w)."""
    return F.conv3d(clip, kernel, bias, stride).flatten(2).transpose(1, 2)


def test_a_token_is_the_product_of_the_kernel_and_its_tubelet(clip):
    embed = TubeletEmbed(3, 5, PATCH).double()
    tokens, grid = embed(clip)
    assert tokens.shape == (2, grid.size, 5)
    for row, (t, h, w) in enumerate(product(*map(range, grid))):
        tubelet = clip[:, :, 2 * t : 2 * t + 2, 4 * h : 4 * h + 4, 3 * w : 3 * w + 3]
        assert_close(tokens[:, row], torch.einsum("bcthw,dcthw->bd", tubelet, embed.proj.weight) + embed.proj.bias)


@pytest.mark.parametrize("stride", STRIDES)
def test_tubelets_equal_a_convolution(clip, stride):
    embed = TubeletEmbed(3, 5, PATCH, stride).double()
    for view in (clip, clip.transpose(0, 1).contiguous().transpose(0, 1)):
        tokens, grid = embed(view)
        assert_close(tokens, tokens_of(embed.proj.weight, embed.proj.bias, clip, stride or PATCH))
        assert grid.size == tokens.shape[1]


@pytest.mark.parametrize("stride", STRIDES)
def test_space_then_time_equals_one_composed_kernel(clip, stride):
    embed = SpaceThenTimeEmbed(3, 5, PATCH, stride).double()
    time, space = embed.time.weight[..., 0, 0], embed.space.weight[:, :, 0]
    kernel = torch.einsum("omt,mchw->octhw", time, space)
    bias = embed.time.bias + time.sum(2) @ embed.space.bias
    tokens, grid = embed(clip)
    assert_close(tokens, tokens_of(kernel, bias, clip, stride or PATCH))
    assert grid.size == tokens.shape[1]


@pytest.mark.parametrize("stride", STRIDES)
def test_depthwise_separable_equals_one_composed_kernel(clip, stride):
    embed = DepthwiseSeparableEmbed(3, 5, PATCH, stride, filters=4).double()
    depthwise = embed.depthwise.weight.view(3, 4, *PATCH)
    pointwise = embed.pointwise.weight.view(5, 3, 4)
    kernel = torch.einsum("ock,ckthw->octhw", pointwise, depthwise)
    bias = embed.pointwise.bias + pointwise.flatten(1) @ embed.depthwise.bias
    tokens, grid = embed(clip)
    assert_close(tokens, tokens_of(kernel, bias, clip, stride or PATCH))
    assert grid.size == tokens.shape[1]


@pytest.mark.parametrize(
    ("patch", "size"), [((2, 16, 16), (4, 32, 48)), ((1, 8, 6), (3, 16, 12)), ((5, 7, 1), (5, 14, 2))]
)
def test_the_convolutional_stem_stands_on_the_grid_of_its_patch_and_sees_every_pixel(patch, size):
    clip = torch.randn(1, 2, *size, requires_grad=True)
    tokens, grid = ConvStemEmbed(2, 12, patch)(clip)
    assert grid == tuple(s // p for s, p in zip(size, patch, strict=True))
    assert tokens.shape == (1, grid.size, 12)
    (seen,) = torch.autograd.grad(tokens.square().sum(), clip)
    assert (seen != 0).all()


def test_three_factors_multiply_to_the_number():
    for number in range(1, 65):
        a, b, c = three_factors(number)
        assert a * b * c == number
        assert a >= b >= c >= 1
    assert three_factors(16) == [4, 2, 2]


def test_uniform_frames_golden():
    assert uniform_frames(8, 3) == [2, 4, 6]
    assert uniform_frames(8, 4) == [2, 3, 5, 6]
    assert uniform_frames(32, 8) == [4, 7, 11, 14, 18, 21, 25, 28]
    assert uniform_frames(3, 5) == [0, 1, 2]


def test_uniform_frames_rise_inside_the_clip_for_every_length():
    for total in range(1, 65):
        for frames in range(1, total + 1):
            indices = uniform_frames(total, frames)
            assert len(indices) == frames
            assert indices == sorted(set(indices))
            assert indices[0] >= 0
            assert indices[-1] < total


def test_uniform_frame_sampling_embeds_the_frames_of_the_rule():
    torch.manual_seed(0)
    clip, embed = torch.randn(2, 3, 8, 8, 8), UniformFrames(3, 5, (1, 4, 4), frames=3)
    tokens, grid = embed(clip)
    alone = [embed.embed(clip[:, :, frame : frame + 1])[0] for frame in (2, 4, 6)]
    assert grid == (3, 2, 2)
    assert_close(tokens, torch.cat(alone, 1))


def test_normalise_is_in_units_of_std_around_the_mean():
    clip = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1, 1)
    out = normalise(clip, torch.tensor([0.0, 0.2, 0.5]), torch.tensor([1.0, 0.5, 0.25]))
    assert_close(out.flatten(), torch.tensor([0.0, 0.0, 2.0]))


@pytest.mark.parametrize("kind", TOKENISERS)
def test_clips_of_another_rank_or_channels_are_refused(kind):
    embed = made(kind, **TOKENISERS[kind])
    with pytest.raises(ValueError, match=naming("(3, 4, 8, 8)", "(B, C, T, H, W)", "unsqueeze")):
        embed(torch.zeros(3, 4, 8, 8))
    with pytest.raises(ValueError, match=naming("(1, 4, 3, 8, 8)", "(B, C, T, H, W)", "C = 3")):
        embed(torch.zeros(1, 4, 3, 8, 8))


@pytest.mark.parametrize(
    ("kind", "settings", "values"),
    [
        ("patch", {}, ("'patch'", *EMBEDS)),
        ("conv", {"stride": (1, 4, 4)}, ("embed='conv'", "(2, 4, 4)", "stride=(1, 4, 4)")),
        ("resnet", {"stride": (1, 4, 4), "widths": (32,)}, ("embed='resnet'", "(2, 4, 4)", "stride=(1, 4, 4)")),
        ("resnet", {"frames": 3}, ("frames=...", "embed='tubelet'")),
        ("conv", {"frames": 3}, ("frames=...", "embed='tubelet'")),
        ("tubelet", {"frames": 3, "stride": (1, 4, 4)}, ("frames=...", "embed='tubelet'", "stride")),
        ("tubelet", {"frames": 3}, (2, "/4")),
        ("tubelet", {"stride": (0, 4, 4)}, ("stride=(0, 4, 4)", "(T, H, W)")),
    ],
)
def test_settings_that_a_tokeniser_does_not_have_are_refused(kind, settings, values):
    with pytest.raises(ValueError, match=naming(*values)):
        made(kind, **settings)
