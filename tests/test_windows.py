import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from naming import naming
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from tubelet.nn import WindowStage, regularise
from tubelet.nn.grid import Grid
from tubelet.nn.swin import LAYOUTS, PatchMerging, SwinBlock, SwinEncoder, WindowAttention, Windows, cuts, window_layout

torch.set_num_threads(1)

GOLDEN = Path(__file__).parent / "golden" / "timm_swinv2_cr.safetensors"
MADE_FOR = Grid(4, 6, 10)
STAGE = WindowStage(dim=12, depths=(2, 3), heads=(2, 4), mlp_dim=48, window=(2, 2, 4))
RENAMED = [
    ("patch_embed.norm", "embed_norm"),
    ("stages.1.blocks.1.norm3", "stages.1.norm"),
    ("downsample", "merge"),
    ("norm1", "attn_norm"),
    ("norm2", "mlp_norm"),
    ("meta_mlp", "meta"),
]
CASES = {
    "timm's failing case": (Grid(1, 9, 9), (1, 4, 4)),
    "no axis a multiple": (Grid(1, 5, 7), (1, 4, 4)),
    "space-time": (Grid(3, 5, 7), (2, 4, 4)),
    "odd windows": (Grid(5, 4, 6), (3, 3, 2)),
    "multiples": (Grid(2, 4, 6), (1, 2, 3)),
    "one axis covered": (Grid(2, 7, 3), (2, 4, 4)),
    "all covered": (Grid(2, 3, 4), (9, 9, 9)),
}
both_cuts = pytest.mark.parametrize("odd", [False, True], ids=["still", "shifted"])
all_cases = pytest.mark.parametrize(("grid", "window"), CASES.values(), ids=CASES)


def shaken(module):
    """In eval mode, with all parameters random, also those that start at zero or one."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    return module.eval()


def swin(*, window=(2, 2, 4), grid=MADE_FOR, **settings) -> SwinEncoder:
    torch.manual_seed(0)
    return shaken(SwinEncoder(replace(STAGE, window=window, **settings), grid))


def may_see(windows: Windows) -> Tensor:
    """(N, N), query by key: whether two tokens are in one window, by arithmetic on their places alone."""
    places = product(*map(range, windows.grid))
    numbers = [tuple((i - s) // n for i, s, n in zip(place, windows.shift, windows.size)) for place in places]
    return torch.tensor([[query == key for key in numbers] for query in numbers])


def attention_one_by_one(attn: WindowAttention, x: Tensor, windows: Windows) -> Tensor:
    """(N, D) -> (N, D), token by token and head by head."""
    places = torch.tensor(list(product(*map(range, windows.grid)))).float()
    see, mlp = may_see(windows), attn.meta
    q, k, v = (x @ attn.qkv.weight.T + attn.qkv.bias).view(len(x), 3, attn.heads, -1).unbind(1)
    out = torch.zeros_like(q)
    for i in range(len(x)):
        keys = see[i].nonzero()[:, 0]
        apart = places[i] - places[keys]
        apart = (apart.sign() * (1 + apart.abs()).log())[:, 3 - attn.coordinates :]
        bias = (apart @ mlp.fc1.weight.T + mlp.fc1.bias).clamp(min=0) @ mlp.fc2.weight.T + mlp.fc2.bias
        for head in range(attn.heads):
            cosine = k[keys, head] @ q[i, head] / (k[keys, head].norm(dim=1) * q[i, head].norm())
            logits = cosine * min(attn.logit_scale[head].exp(), 100) + bias[:, head]
            out[i, head] = logits.softmax(0) @ v[keys, head]
    return out.flatten(1) @ attn.proj.weight.T + attn.proj.bias


@all_cases
@both_cuts
def test_a_change_of_a_token_reaches_its_window_and_nothing_else(grid, window, odd):
    torch.manual_seed(0)
    windows = cuts(grid, window)[odd]
    block = shaken(SwinBlock(12, 2, 20, coordinates=3, eps=1e-5)).double()
    x = torch.randn(1, grid.size, 12, dtype=torch.double)
    changed = x + torch.eye(grid.size)[:, :, None] * torch.randn(12)  # row i: token i is another one
    moved = (block(changed, windows) - block(x, windows)).abs().amax(2).T > 1e-12
    assert torch.equal(moved, may_see(windows))


@all_cases
@both_cuts
def test_attention_agrees_with_a_loop_over_tokens(grid, window, odd):
    torch.manual_seed(0)
    windows = cuts(grid, window)[odd]
    attn = shaken(WindowAttention(12, 2, coordinates=2 if windows.size[0] == 1 else 3))
    x = torch.randn(2, grid.size, 12)
    one_by_one = torch.stack([attention_one_by_one(attn, sample, windows) for sample in x])
    assert_close(attn(x, windows, window_layout(windows, x.device)), one_by_one, atol=2e-5, rtol=0)


def test_one_window_that_covers_the_grid_is_attention_among_all():
    for windows in cuts(Grid(2, 3, 4), (9, 9, 9)):
        assert windows.shift == (0, 0, 0)
        assert may_see(windows).all()
        assert window_layout(windows, torch.device("cpu")).visible is None


def test_windows_are_capped_by_the_grid_and_shifted_by_half_where_they_do_not_cover_it():
    still, shifted = cuts(Grid(2, 9, 5), (4, 5, 5))
    assert still == Windows(Grid(2, 9, 5), (2, 5, 5), (0, 0, 0))
    assert shifted == Windows(Grid(2, 9, 5), (2, 5, 5), (0, 2, 0))
    assert shifted.padded == (2, 10, 5)


@all_cases
@both_cuts
def test_joining_inverts_cutting(grid, window, odd):
    windows = cuts(grid, window)[odd]
    x = torch.randn(2, grid.size, 3)
    assert torch.equal(windows.join(windows.cut(x)), x)


def test_cosine_attention_stops_sharpening_at_a_hundred():
    torch.manual_seed(0)
    attn, x = shaken(WindowAttention(12, 2, coordinates=3)), torch.randn(1, MADE_FOR.size, 12)
    windows, outs = cuts(MADE_FOR, (2, 2, 4))[1], []
    for scale in (99.0, 100.0, 1000.0):
        torch.nn.init.constant_(attn.logit_scale, torch.tensor(scale).log().item())
        outs.append(attn(x, windows, window_layout(windows, x.device)))
    assert not torch.allclose(outs[0], outs[1], atol=1e-5)
    assert_close(outs[1], outs[2])


@pytest.mark.parametrize("grid", [Grid(1, 4, 6), Grid(2, 5, 3), Grid(3, 1, 1)])
def test_merging_joins_two_by_two_neighbours_in_space_column_by_column(grid):
    torch.manual_seed(0)
    merging = shaken(PatchMerging(3, eps=1e-5))
    x = torch.randn(2, grid.size, 3)
    out, merged = merging(x, grid)
    assert merged == (grid.t, -(-grid.h // 2), -(-grid.w // 2))
    tokens = x.view(2, *grid, 3)
    for i, (t, h, w) in enumerate(product(*map(range, merged))):
        four = [(2 * h, 2 * w), (2 * h + 1, 2 * w), (2 * h, 2 * w + 1), (2 * h + 1, 2 * w + 1)]
        parts = [tokens[:, t, a, b] if a < grid.h and b < grid.w else torch.zeros(2, 3) for a, b in four]
        expected = F.layer_norm(torch.cat(parts, 1), (12,), merging.norm.weight, merging.norm.bias)
        assert_close(out[:, i], expected @ merging.reduction.weight.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("level_norms", [False, True])
def test_an_encoder_is_its_blocks_in_turn_every_second_one_shifted(level_norms):
    model, grid = swin(level_norms=level_norms), Grid(4, 9, 10)
    x = torch.randn(2, grid.size, 12)
    y = F.layer_norm(x, (12,), model.embed_norm.weight, model.embed_norm.bias)
    for number, (stage, now) in enumerate(zip(model.stages, [grid, Grid(4, 5, 5)])):
        if number:
            y, _ = stage.merge(y, grid)
        for i, block in enumerate(stage.blocks):
            windows = cuts(now, (2, 3, 4))[i % 2]
            y = y + block.attn_norm(block.attn(y, windows, window_layout(windows, y.device)))
            y = y + block.mlp_norm(block.mlp(y))
        if number or level_norms:
            y = F.layer_norm(y, (12 * 2**number,), stage.norm.weight, stage.norm.bias)
    out, last = model.tokens(x, grid)
    assert last == (4, 5, 5)
    assert out.shape == (2, 100, model.out_dim)
    assert_close(out, y)


def test_a_window_keeps_its_ratio_to_the_grid():
    model = swin(window=(2, 2, 4), grid=Grid(4, 6, 10))
    assert model.window_at(Grid(4, 6, 10)) == (2, 2, 4)
    assert model.window_at(Grid(8, 18, 5)) == (4, 6, 2)
    assert model.window_at(Grid(5, 8, 12)) == (2, 3, 5)  # 2.5 rounds to even, 2.67 and 4.8 up
    assert model.window_at(Grid(1, 1, 1)) == (1, 1, 1)
    assert swin(window=(1, 2, 4), grid=Grid(1, 6, 10)).window_at(Grid(16, 6, 10)) == (1, 2, 4)


def test_weights_made_for_one_grid_are_weights_made_for_every_grid_of_that_ratio():
    small, large = swin(), swin(window=(4, 4, 8), grid=Grid(8, 12, 20))
    large.load_state_dict(small.state_dict())
    x = torch.randn(1, 8 * 12 * 20, 12)
    assert_close(small.tokens(x, Grid(8, 12, 20)), large.tokens(x, Grid(8, 12, 20)))


def test_the_size_may_change_at_every_call_and_leaves_no_trace():
    model, grids = swin(), [Grid(4, 6, 10), Grid(3, 5, 7), Grid(1, 11, 2)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    clips = [torch.randn(2, grid.size, 12) for grid in grids]
    first = [model.tokens(x, grid) for x, grid in zip(clips, grids)]
    again = [model.tokens(x, grid) for x, grid in zip(reversed(clips), reversed(grids))]
    assert_close(first, again[::-1], atol=0, rtol=0)
    assert_close(dict(model.state_dict()), before, atol=0, rtol=0)
    assert not list(model.buffers())
    for side in range(1, 40):
        window_layout(Windows(Grid(1, 1, side), (1, 1, 1), (0, 0, 0)), torch.device("cpu"))
    assert len(LAYOUTS.values) == LAYOUTS.most == 32


def test_training_may_follow_prediction():
    LAYOUTS.values.clear()
    model, grid = swin(), Grid(3, 7, 9)
    x = torch.randn(1, grid.size, 12)
    with torch.inference_mode():
        predicted = model.tokens(x, grid)
    out = model.tokens(x, grid)
    out[0].sum().backward()
    assert_close(predicted, out)


def test_an_exported_program_agrees_and_leaves_the_model_as_it_was():
    LAYOUTS.values.clear()
    model, grid = swin(), Grid(3, 5, 7)
    x = torch.randn(1, grid.size, 12)
    program = torch.export.export(model, (x, grid), strict=False).module()
    assert not LAYOUTS.values
    assert_close(program(x, grid)[0], model(x, grid)[0], atol=1e-5, rtol=1e-5)


def test_samples_of_a_batch_are_independent():
    model, grid = swin(), Grid(3, 5, 7)
    x = torch.randn(3, grid.size, 12)
    alone = torch.cat([model.tokens(sample[None], grid)[0] for sample in x])
    assert_close(model.tokens(x, grid)[0], alone, atol=1e-5, rtol=1e-5)


def test_frames_stay_apart_in_windows_of_one_time_step():
    model = swin(window=(1, 2, 4), grid=Grid(1, 6, 10))
    clip = torch.randn(2, 3 * 60, 12)
    out, grid = model.tokens(clip, Grid(3, 6, 10))
    assert grid == (3, 3, 5)
    frames = [model.tokens(frame, Grid(1, 6, 10))[0] for frame in clip.chunk(3, 1)]
    assert_close(out, torch.cat(frames, 1), atol=1e-5, rtol=1e-5)


def test_a_clip_of_one_time_step_runs_in_space_time_windows():
    model = swin()
    out, grid = model.tokens(torch.randn(2, 7 * 5, 12), Grid(1, 7, 5))
    assert grid == (1, 4, 3)
    assert out.shape == (2, 12, 24)
    assert out.isfinite().all()


def test_gradients_reach_every_parameter():
    model, grid = swin().train(), Grid(3, 5, 7)
    model(torch.randn(2, grid.size, 12), grid)[0].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("meta.fc2.bias"):  # added to all logits of a head alike: no softmax can tell
            assert parameter.grad.abs().max() > 1e-5, name


def test_a_new_block_changes_nothing():
    block, x = SwinBlock(12, 2, 20, coordinates=3, eps=1e-5).eval(), torch.randn(2, MADE_FOR.size, 12)
    assert torch.equal(block(x, cuts(MADE_FOR, (2, 2, 4))[1]), x)


def test_the_position_bias_has_a_dropout_of_its_own_in_training():
    model, x = swin(), torch.randn(1, MADE_FOR.size, 12)
    assert torch.equal(model.tokens(x, MADE_FOR)[0], model.tokens(x, MADE_FOR)[0])
    model.train()
    assert not torch.allclose(model.tokens(x, MADE_FOR)[0], model.tokens(x, MADE_FOR)[0])
    for stage in model.stages:
        for block in stage.blocks:
            block.attn.meta.rate = 0.0
    assert torch.equal(model.tokens(x, MADE_FOR)[0], model.tokens(x, MADE_FOR)[0])


def test_each_block_has_its_own_drop_path_rate():
    model = swin()
    regularise(SimpleNamespace(stack=[model], encoders=model), drop_path=0.4)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def trained(x: Tensor, *, checkpointing: bool) -> tuple[list[Tensor], int]:
    """Output and gradients of a training step, and how often a block was run for it."""
    model, runs = swin().train(), []
    both = SimpleNamespace(stack=[model], encoders=model)
    regularise(both, drop_path=0.5, dropout=0.1, checkpointing=checkpointing)
    for block in model.layers:
        block.mlp.register_forward_pre_hook(lambda mlp, _: runs.append(mlp))
    torch.manual_seed(1)
    out, _ = model.tokens(x, Grid(3, 5, 7))
    out.square().sum().backward()
    return [out, *(parameter.grad for parameter in model.parameters())], len(runs)


def test_checkpointing_runs_blocks_again_and_changes_no_output_and_no_gradient():
    x = torch.randn(3, 3 * 5 * 7, 12)
    plain, once = trained(x, checkpointing=False)
    saving, twice = trained(x, checkpointing=True)
    assert (once, twice) == (5, 10)
    assert_close(saving, plain)


def test_half_precision_is_near_and_finite():
    model, grid = swin(), Grid(3, 5, 7)
    x = torch.randn(1, grid.size, 12)
    exact = model.tokens(x, grid)[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.tokens(x, grid)[0]
    for out in (mixed, model.bfloat16().tokens(x.bfloat16(), grid)[0]):
        assert (out - exact).abs().mean() < 0.1 * exact.abs().mean()


def test_parity_with_timm():
    tensors = load_file(GOLDEN)
    with safe_open(GOLDEN, "pt") as file:
        meta = json.loads(file.metadata()["meta"])
    state = {name.removeprefix("weights."): value for name, value in tensors.items()}
    pixels, logits = state.pop("input"), state.pop("logits")
    embed, head = (
        [state.pop(f"{part}.{kind}") for kind in ("weight", "bias")] for part in ("patch_embed.proj", "head.fc")
    )
    for theirs, ours in RENAMED:
        state = {name.replace(theirs, ours): value for name, value in state.items()}
    stage = WindowStage(
        dim=meta["embed_dim"],
        depths=tuple(meta["depths"]),
        heads=tuple(meta["num_heads"]),
        mlp_dim=4 * meta["embed_dim"],
        window=(1, *meta["window_size"]),
    )
    model = SwinEncoder(stage, Grid(1, 16, 24)).eval()
    model.load_state_dict(state)
    tokens = F.conv2d(pixels, *embed, stride=4).flatten(2).transpose(1, 2)
    out, grid = model.tokens(tokens, Grid(1, 16, 24))
    assert grid == (1, 8, 12)
    assert_close(F.linear(out.mean(1), *head), logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"heads": (2, 5)}, ("heads", 5, 24)),
        ({"heads": (2,)}, ("heads", 1, 2)),
        ({"depths": ()}, ("depths=()",)),
        ({"depths": (2, 0)}, ("depths=(2, 0)",)),
        ({"heads": (0, 4)}, ("heads=(0, 4)",)),
        ({"window": (4, 4)}, ("window=(4, 4)", "(t, h, w)", 1)),
        ({"window": (1, 0, 4)}, ("window=(1, 0, 4)", "(t, h, w)", 1)),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(settings, values):
    with pytest.raises(ValueError, match=naming(*values)):
        swin(**settings)


@pytest.mark.parametrize("shape", [(2, 61, 12), (2, 60, 11), (60, 12)])
def test_tokens_that_do_not_fill_the_grid_are_refused(shape):
    with pytest.raises(ValueError, match=naming(shape, "(1, 6, 10)", "(B, 60, 12)")):
        swin()(torch.zeros(shape), Grid(1, 6, 10))
