from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from naming import naming
from tiny import tiny
from torch import Tensor
from torch.testing import assert_close

from tubelet.nn import Block, DropPath, Encoder, Grid, Mlp, Stage
from tubelet.nn.convolution import ConvMix

GRID = Grid(3, 2, 4)
CONFIG = Stage(dim=12, depth=2, heads=2, mlp_dim=20)


def shaken(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return module.eval()


def encoder_of(**settings) -> Encoder:
    torch.manual_seed(0)
    return shaken(Encoder(replace(CONFIG, **settings), GRID))


def norm(x: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias


@pytest.mark.parametrize("attend", ["thw", "hw,t", "t,hw", "t|hw"])
def test_a_block_is_a_residual_attention_for_each_step_then_an_mlp(attend):
    torch.manual_seed(0)
    block = shaken(Block(replace(CONFIG, attend=attend)))
    x = y = torch.randn(2, GRID.size, 12)
    for layer, attention, axes in zip(block.attn_norms, block.attns, attend.split(","), strict=True):
        assert attention.axes == axes
        y = y + attention(norm(y, layer), GRID)
    hidden = F.gelu(norm(y, block.mlp_norm) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
    y = y + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
    assert_close(block(x, GRID), y, atol=1e-5, rtol=1e-5)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def test_a_block_as_language_models_have_it():
    """Heads of a width of their own, queries and keys normed, a gated MLP, root mean squares and no bias."""
    torch.manual_seed(0)
    kind = {"head_dim": 5, "qk_norm": True, "norm_kind": "rms", "mlp": "gated", "qkv_bias": False, "bias": False}
    block = shaken(Block(replace(CONFIG, **kind)))
    assert not any(name.endswith("bias") for name, _ in block.named_parameters())
    x, attn, mlp = torch.randn(2, GRID.size, 12), block.attns[0], block.mlp
    seen = rms(x, block.attn_norms[0].weight) @ attn.qkv.weight.T
    q, k, v = seen.view(2, GRID.size, 3, 2, 5).unbind(2)
    q, k = rms(q, attn.q_norm.weight), rms(k, attn.k_norm.weight)
    scores = torch.einsum("bqnd,bknd->bnqk", q, k) / 5**0.5
    y = x + torch.einsum("bnqk,bknd->bqnd", scores.softmax(-1), v).flatten(2) @ attn.proj.weight.T
    seen = rms(y, block.mlp_norm.weight)
    gate = seen @ mlp.gate.weight.T
    y = y + (gate * gate.sigmoid() * (seen @ mlp.fc1.weight.T)) @ mlp.fc2.weight.T
    assert_close(block(x, GRID), y, atol=1e-5, rtol=1e-5)


def test_two_convolutions_see_the_neighbours_in_a_sequence():
    torch.manual_seed(0)
    mix = shaken(ConvMix(12, eps=1e-6)).double()
    x = y = torch.randn(2, 5, 12, dtype=torch.float64)
    for layer, conv in zip(mix.norms, mix.convs, strict=True):
        y = y - y.mean((1, 2), keepdim=True)  # one group: all of a sequence
        y = y / (y.square().mean((1, 2), keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias
        y = F.pad(y * y.sigmoid(), (0, 0, 1, 1))
        y = sum(y[:, i : i + 5] @ conv.weight[:, :, i].T for i in range(3)) + conv.bias
    assert_close(mix(x), x + y)


@pytest.mark.parametrize("unit", [False, True])
def test_tokens_of_another_width_are_taken_and_what_is_pooled_is_given(unit):
    encoder, plain = encoder_of(takes=7, gives=5, unit=unit, prefix=1), encoder_of(prefix=1)
    plain.load_state_dict(
        {name.replace("pool.pool", "pool"): value for name, value in encoder.state_dict().items()}, False
    )
    x = torch.randn(2, GRID.size, 7)
    token, _ = plain(x @ encoder.take.weight.T + encoder.take.bias, GRID)
    expected = token @ encoder.pool.proj.weight.T + encoder.pool.proj.bias
    expected = expected / expected.square().sum(-1, keepdim=True).sqrt() if unit else expected
    assert_close(encoder(x, GRID)[0], expected, atol=1e-5, rtol=1e-5)
    assert encoder.out_dim == 5


def test_the_two_gelus_differ():
    x = torch.linspace(-3, 3, 24).view(2, 12)
    torch.manual_seed(0)
    exact = Mlp(12, 20, gelu="erf")
    tanh = Mlp(12, 20, gelu="tanh")
    tanh.load_state_dict(exact.state_dict())
    assert 1e-6 < (exact(x) - tanh(x)).abs().max() < 1e-2
    with pytest.raises(ValueError, match=naming("gelu", "'relu'", "erf", "tanh")):
        Mlp(12, 20, gelu="relu")


@pytest.mark.parametrize("rate", [0.25, 0.75])
def test_drop_path_drops_whole_samples_and_rescales_the_rest(rate):
    torch.manual_seed(0)
    out = DropPath(rate)(torch.ones(4000, 3, 2))
    kept = out[:, 0, 0] != 0
    assert_close(out, torch.where(kept, 1 / (1 - rate), 0.0).view(-1, 1, 1).expand_as(out))
    assert abs(kept.float().mean() - (1 - rate)) < 0.03


def test_drop_path_is_off_in_evaluation_and_at_rate_zero():
    x = torch.randn(5, 3)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0)(x) is x


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_an_encoder_over_space_treats_each_frame_as_an_image(pool):
    encoder = encoder_of(tables=("hw",), over="hw", pool=pool, prefix=int(pool == "cls"))
    x = torch.randn(2, GRID.size, 12)
    out, grid = encoder(x, GRID)
    assert grid == (3, 1, 1)
    for t, frame in enumerate(x.unflatten(1, (3, 8)).unbind(1)):
        alone = encoder.encode(frame, Grid(1, 2, 4))
        assert_close(out[:, t], alone[:, 0] if pool == "cls" else alone.mean(1))


def test_a_joint_encoder_pools_to_one_token():
    x = torch.randn(2, GRID.size, 12)
    for pool in ("cls", "mean"):
        encoder = encoder_of(tables=("thw",), pool=pool, prefix=int(pool == "cls"))
        out, grid = encoder(x, GRID)
        tokens, token_grid = encoder.tokens(x, GRID)
        assert (grid, token_grid) == ((1, 1, 1), GRID)
        assert tokens.shape == (2, GRID.size + (pool == "cls"), 12)
        assert_close(out[:, 0], tokens[:, 0] if pool == "cls" else tokens.mean(1))


def test_the_prefix_of_several_sequences_is_their_mean():
    encoder = encoder_of(tables=("hw",), over="hw")
    x = torch.randn(2, GRID.size, 12)
    tokens, grid = encoder.tokens(x, GRID)
    assert grid == GRID
    assert_close(tokens[:, 0], encoder(x, GRID)[0].mean(1))
    assert_close(tokens[:, 1:9], encoder.encode(x[:, :8], Grid(1, 2, 4))[:, 1:])


@pytest.mark.parametrize("prefix", [2, 5])
def test_registers_come_before_the_tokens_and_take_part(prefix):
    torch.manual_seed(0)
    encoder = encoder_of(tables=("thw",), prefix=prefix, pool="mean")
    x = torch.randn(2, GRID.size, 12)
    tokens, _ = encoder.tokens(x, GRID)
    assert tokens.shape == (2, prefix + GRID.size, 12)
    assert_close(encoder(x, GRID)[0][:, 0], tokens[:, prefix:].mean(1))
    with torch.no_grad():
        encoder.prefix[:, -1].mul_(-9)
    assert not torch.allclose(encoder(x, GRID)[0], tokens[:, prefix:].mean(1, keepdim=True), atol=1e-3)


@pytest.mark.parametrize("place", ["tokens", "pooled", "both", "none"])
def test_the_last_norm_stands_where_the_stage_says(place):
    encoder = encoder_of(tables=("thw",), pool="mean", prefix=0, norm=place)
    x = torch.randn(2, GRID.size, 12)
    y = encoder.position(x, GRID)
    for block in encoder.blocks:
        y = block(y, GRID)
    y = norm(y, encoder.norm) if place in ("tokens", "both") else y
    y = y.mean(1, keepdim=True)
    y = norm(y, encoder.pool.norm) if place in ("pooled", "both") else y
    assert_close(encoder(x, GRID)[0], y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["vivit2", "timesformer", "vjepa2", "ast", "swin2"])
def test_checkpointing_changes_no_output_and_no_gradient(family):
    plain, saving = tiny(family, drop_path=0.5), tiny(family, drop_path=0.5, checkpointing=True)
    clip = torch.randn(3, 3, *plain.input_size)
    results = []
    for model in (plain.train(), saving.train()):
        torch.manual_seed(1)
        out = model(clip)
        out.square().sum().backward()
        results.append([out, *(parameter.grad for parameter in model.parameters())])
    assert_close(*results)
