"""uint8 clips: mean and std folded into the tokeniser, whatever the layout, dtype and size."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny
from torch.testing import assert_close

from tubelet.nn import TubeletEmbed
from tubelet.nn.embed import normalise

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def exact(embed: TubeletEmbed, clip: torch.Tensor) -> torch.Tensor:
    """Normalise, then embed, in float64, by torch's own convolution."""
    shape = (-1, 1, 1, 1)
    pixels = (clip.double() / 255 - MEAN.double().view(shape)) / STD.double().view(shape)
    weight, bias = embed.proj.weight.double(), embed.proj.bias.double()
    return F.conv3d(pixels, weight, bias, embed.stride).flatten(2).transpose(1, 2)


def layouts(clip: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same clip (B, C, T, H, W), lying in memory in several orders."""
    return {
        "channels first": clip,
        "channels last": clip.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3),
        "every second column": clip.repeat_interleave(2, -1)[..., ::2],
        "transposed": clip.transpose(3, 4).contiguous().transpose(3, 4),
    }


@pytest.mark.parametrize("layout", list(layouts(torch.zeros(1, 1, 1, 1, 1))))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [6, 30])  # 6 is a clip one patch wide
def test_bytes_give_what_normalised_pixels_give_to_the_dtypes_own_rounding(layout, dtype, width):
    torch.manual_seed(0)
    embed = TubeletEmbed(3, 40, (2, 4, 6)).to(dtype)
    clip = layouts(torch.randint(0, 256, (2, 3, 4, 8, width), dtype=torch.uint8))[layout]
    folded, grid = embed.embed_bytes(clip, MEAN, STD)
    assert grid == (2, 2, width // 6)
    assert folded.dtype == dtype
    plain = embed(normalise(clip, MEAN.double(), STD.double()).to(dtype))[0]
    right = exact(embed, clip)
    error, usual = ((x.double() - right).abs().max().item() for x in (folded, plain))
    assert error <= 2 * usual + 1e-12
    pixels = clip.to(dtype) / 255
    tolerance = {torch.bfloat16: 0.05}.get(dtype, 1e-5)
    assert_close(embed(pixels)[0], embed(pixels.contiguous())[0], atol=tolerance, rtol=0)


def test_folding_lets_gradients_through():
    embed = TubeletEmbed(3, 8, (2, 4, 4))
    clip = torch.randint(0, 256, (2, 3, 4, 8, 8), dtype=torch.uint8)
    gradients = []
    for tokens in (embed.embed_bytes(clip, MEAN, STD)[0], embed(normalise(clip, MEAN, STD))[0]):
        embed.zero_grad()
        tokens.square().sum().backward()
        gradients.append([embed.proj.weight.grad.clone(), embed.proj.bias.grad.clone()])
    assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    stride=st.sampled_from([None, (1, 4, 4), (2, 2, 4)]),
    extra=st.tuples(*[st.integers(0, 3)] * 3),
    channels_last=st.booleans(),
)
def test_a_model_takes_bytes_padded_overlapping_or_neither(stride, extra, channels_last):
    model = tiny("vivit1", stride=stride, pad="mean", mean=tuple(MEAN.tolist()), std=tuple(STD.tolist())).double()
    size = [8 + extra[0], 8 + extra[1], 12 + extra[2]]
    clip = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    clip = layouts(clip)["channels last" if channels_last else "channels first"]
    pixels = normalise(clip, model.mean, model.std)
    assert_close(model(clip), model(pixels), atol=1e-10, rtol=0)
