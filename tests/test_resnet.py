import re
from itertools import product
from math import ceil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from naming import naming
from safetensors.torch import load_file
from torch.testing import assert_close

from tubelet.nn.resnet import RESNETS, ResNetEmbed, StandardisedConv

GOLDEN = Path(__file__).parent / "golden"
STEM = {"layers": (), "widths": (32,)}  # steps by 4 px
TWO_STAGES = {"layers": (1, 1), "widths": (32, 128, 256)}  # steps by 8 px
THREE_STAGES = {"layers": (1, 2, 1), "widths": (32, 128, 256, 128)}  # steps by 16 px


def vit_logits(state: dict[str, torch.Tensor], tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """timm's ViT of two blocks, from its tokens (B, N, D) on."""

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = torch.cat([state["cls_token"].expand(len(tokens), -1, -1), tokens], 1) + state["pos_embed"]
    for block in ("blocks.0", "blocks.1"):
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"{block}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    return linear(norm(x, "norm")[:, 0], "head")


@pytest.mark.parametrize(
    ("name", "patch", "resnet"),
    [
        ("timm_hybrid_stem", 32, dict(zip(("layers", "widths"), RESNETS["resnet-stem"], strict=True))),
        ("timm_hybrid_stages", 16, THREE_STAGES),
    ],
)
def test_parity_with_the_reference(name, patch, resnet):
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    image, logits = tensors.pop("input"), tensors.pop("logits")
    state = {key.removeprefix("weights."): value for key, value in tensors.items()}
    own = {key.removeprefix("patch_embed."): value for key, value in state.items() if key.startswith("patch_embed.")}
    own["proj.weight"] = own["proj.weight"][:, :, None]
    if not resnet["layers"]:
        own = {re.sub(r"^backbone\.", "backbone.stem.", key): value for key, value in own.items()}
    embed = ResNetEmbed(3, 32, (1, patch, patch), **resnet)
    embed.load_state_dict(own)
    tokens, grid = embed(image[:, :, None])
    assert grid == (1, 64 // patch, 96 // patch)
    assert_close(vit_logits(state, tokens, heads=4), logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "step"), [("resnet-stem", 4), ("resnet26", 32), ("resnet50", 16), ("resnet50-32", 32)]
)
def test_the_named_networks(name, step):
    layers, widths = RESNETS[name]
    with torch.device("meta"):
        embed = ResNetEmbed(3, 8, (2, 2 * step, step), layers=layers, widths=widths)
        tokens, grid = embed(torch.zeros(1, 3, 2, 2 * step, 3 * step))
    assert grid == (1, 1, 3)
    assert tokens.shape == (1, 3, 8)
    assert embed.proj.weight.shape == (8, widths[-1], 2, 2, 1)
    assert embed.backbone.ratio == step
    names = r"backbone\.(stem|stages\.\d\.blocks\.\d\.downsample)\.(conv\.weight|norm\.(weight|bias))"
    names += r"|backbone\.stages\.\d\.blocks\.\d\.(conv[123]\.weight|norm[123]\.(weight|bias))|proj\.(weight|bias)"
    assert all(re.fullmatch(names, key) for key in embed.state_dict())


@pytest.mark.parametrize("size", [*product((1, 2, 5, 8, 11), repeat=2), (1, 30)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (1, 2), (3, 2), (7, 2)])
def test_convolutions_equal_a_brute_force(size, kernel, stride):
    """Filters of mean 0 and variance 1, on the least padding with which windows `stride` apart number ceil."""
    torch.manual_seed(0)
    conv, maps = StandardisedConv(2, 3, kernel, stride).double(), torch.randn(1, 2, *size).double()
    count = [ceil(s / stride) for s in size]
    least = [next(p for p in range(kernel) if (s + p - kernel) // stride + 1 >= n) for s, n in zip(size, count)]
    rows, columns = least
    padded = F.pad(maps, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    centred = conv.weight - conv.weight.mean((1, 2, 3), keepdim=True)
    weight = centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-8).sqrt()
    out = conv(maps)
    assert out.shape == (1, 3, *count)
    for y, x in product(*map(range, count)):
        window = padded[0, :, y * stride : y * stride + kernel, x * stride : x * stride + kernel]
        assert_close(out[0, :, y, x], torch.einsum("chw,dchw->d", window, weight))


def test_scale_and_offset_of_a_filter_do_not_matter():
    torch.manual_seed(0)
    conv, maps = StandardisedConv(3, 4, 3, 2).double(), torch.randn(1, 3, 9, 8).double()
    before = conv(maps)
    with torch.no_grad():
        conv.weight.mul_(7).add_(2)
    assert_close(conv(maps), before, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("size", [(64, 48), (130, 321), (17, 1000), (1000, 16), (33, 40), (15, 31)])
@pytest.mark.parametrize(("step", "resnet"), [(4, STEM), (8, TWO_STAGES), (16, THREE_STAGES)])
def test_a_patch_of_the_step_takes_any_size(size, step, resnet):
    embed = ResNetEmbed(2, 5, (2, step, step), **resnet)
    with torch.no_grad():
        tokens, grid = embed(torch.randn(1, 2, 4, *size))
    assert grid == embed.grid((4, *size)) == (2, ceil(size[0] / step), ceil(size[1] / step))
    assert tokens.shape == (1, grid.size, 5)
    assert tokens.isfinite().all()


@pytest.mark.parametrize("size", [(3, 32, 48), (3, 29, 46), (6, 30, 96)])
def test_a_larger_patch_takes_maps_of_whole_patches(size):
    embed = ResNetEmbed(2, 5, (3, 16, 24), **TWO_STAGES)
    with torch.no_grad():
        tokens, grid = embed(torch.randn(1, 2, *size))
    assert grid == embed.grid(size) == (size[0] // 3, 2, round(size[2] / 24))
    assert tokens.shape == (1, grid.size, 5)


def test_every_size_runs_or_is_refused_with_sizes_that_run():
    embed = ResNetEmbed(1, 5, (1, 12, 4), **STEM)
    for height in range(1, 60):
        maps = embed.backbone(torch.zeros(1, 1, height, 4))
        if maps.shape[2] % 3 == 0:
            assert embed.grid((1, height, 4)) == (1, maps.shape[2] // 3, 1)
            continue
        with pytest.raises(ValueError, match=naming(f"H = {height}")) as error:
            embed.grid((1, height, 4))
        near = [int(size) for size in re.findall(r"\d+", str(error.value).rpartition(":")[2])]
        assert all(abs(size - height) <= 12 for size in near)
        assert all(embed.grid((1, size, 4)).h * 12 == size for size in near)


def test_a_frame_gives_the_same_tokens_among_others():
    torch.manual_seed(0)
    embed, clip = ResNetEmbed(3, 5, (1, 8, 8), **TWO_STAGES).double(), torch.randn(2, 3, 3, 25, 40).double()
    tokens, grid = embed(clip)
    alone = [embed(clip[:, :, [frame]])[0] for frame in range(3)]
    assert grid == (3, 4, 5)
    assert_close(tokens, torch.cat(alone, 1))


def test_a_token_is_the_product_of_the_kernel_and_its_tubelet_of_the_map():
    torch.manual_seed(0)
    embed, clip = ResNetEmbed(2, 5, (2, 8, 12), **STEM).double(), torch.randn(2, 2, 4, 16, 24).double()
    maps = torch.stack([embed.backbone(clip[:, :, frame]) for frame in range(4)], 2)
    tokens, grid = embed(clip)
    for row, (t, h, w) in enumerate(product(*map(range, grid))):
        tubelet = maps[:, :, 2 * t : 2 * t + 2, 2 * h : 2 * h + 2, 3 * w : 3 * w + 3]
        assert_close(tokens[:, row], torch.einsum("bcthw,dcthw->bd", tubelet, embed.proj.weight) + embed.proj.bias)


@pytest.mark.parametrize("resnet", [STEM, THREE_STAGES])
def test_every_parameter_gets_a_gradient(resnet):
    torch.manual_seed(0)
    embed = ResNetEmbed(3, 5, (2, 16, 16), **resnet)
    embed(torch.randn(2, 3, 2, 64, 48))[0].square().sum().backward()
    for name, parameter in embed.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_half_precision_stays_near():
    torch.manual_seed(0)
    embed, clip = ResNetEmbed(3, 5, (1, 8, 8), **TWO_STAGES), torch.randn(1, 3, 2, 33, 40)
    with torch.no_grad():
        tokens, half = embed(clip)[0], embed.bfloat16()(clip.bfloat16())[0]
    assert half.dtype == torch.bfloat16
    assert (tokens - half).norm() < 0.05 * tokens.norm()


@pytest.mark.parametrize(
    ("patch", "resnet", "values"),
    [
        ((1, 16, 20), TWO_STAGES, ("patch=(1, 16, 20)", "2 stages", "8 px")),
        ((1, 2, 4), STEM, ("patch=(1, 2, 4)", "0 stages", "4 px")),
        ((1, 16), STEM, ("patch=(1, 16)", "(T, H, W)")),
        ((1, 8, 8), {"layers": (1, 1), "widths": (32, 128)}, ("layers=(1, 1)", "widths=(32, 128)")),
        ((1, 8, 8), {"layers": (1, 0), "widths": (32, 128, 128)}, ("layers=(1, 0)", 1)),
        ((1, 4, 4), {"layers": (), "widths": (48,)}, ("widths=(48,)", 32)),
        ((1, 4, 4), {"layers": (1,), "widths": (32, 192)}, ("widths=(32, 192)", 128)),
        ((1, 4, 4), {"layers": (), "widths": (0,)}, ("widths=(0,)",)),
    ],
)
def test_networks_that_cannot_be_are_refused(patch, resnet, values):
    with pytest.raises(ValueError, match=naming(*values)):
        ResNetEmbed(3, 8, patch, **resnet)


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ((3, 4, 32, 32), ("(3, 4, 32, 32)", "(B, C, T, H, W)", "unsqueeze")),
        ((1, 4, 3, 32, 32), ("(1, 4, 3, 32, 32)", "C = 3")),
        (
            (1, 3, 3, 32, 32),
            ("T = 3", "(3, 32, 32)", "(2, 16, 16)", 2, 4),
        ),
        ((1, 3, 1, 32, 32), ("T = 1", 2)),
        ((1, 3, 2, 40, 32), ("H = 40", 32, 48)),
        ((1, 3, 2, 32, 7), ("W = 7", 16)),
        ((1, 3, 2, 0, 32), ("H = 0", "(2, 0, 32)", 16)),
    ],
)
def test_clips_that_tokens_do_not_fill_are_refused(shape, values):
    embed = ResNetEmbed(3, 8, (2, 16, 16), **TWO_STAGES)
    with pytest.raises(ValueError, match=naming(*values)):
        embed(torch.zeros(shape))
