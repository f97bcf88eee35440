"""How the tokens of a sequence become one: each kind of pooling against what its name says, token by token."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from naming import naming
from tiny import tiny
from torch import Tensor
from torch.testing import assert_close

from tubelet.nn import AttentivePool, Grid, Pool, Stage
from tubelet.nn.pool import make_pool

STAGE = Stage(dim=12, depth=1, heads=3, mlp_dim=20, eps=1e-3)


def shaken(module):
    """In eval mode, with all parameters random, also those that start at zero or one."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape))
    return module.eval().double()


def pool_of(kind: str, **settings) -> Pool | AttentivePool:
    return make_pool(replace(STAGE, pool=kind, **settings))


def norm(x: Tensor, layer: torch.nn.LayerNorm, eps: float) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * layer.weight + layer.bias


@pytest.fixture
def x():
    """Three prefix tokens and seven others."""
    torch.manual_seed(0)
    return torch.randn(2, 10, 12, dtype=torch.float64)


# ---- without a query


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cls", lambda x: x[:, 0]),
        ("mean", lambda x: sum(x[:, i] for i in range(3, 10)) / 7),
        ("cls+dist", lambda x: (x[:, 0] + x[:, 1]) / 2),
        ("cls,dist", lambda x: torch.cat([x[:, 0], x[:, 1]], 1)),
    ],
)
@pytest.mark.parametrize("normed", [False, True])
def test_a_pool_is_what_its_kind_says_then_a_norm(x, kind, expected, normed):
    pool = shaken(pool_of(kind, prefix=3, norm="pooled" if normed else "tokens", pool_eps=1e-2))
    out = expected(x)
    if normed:
        out = norm(out, pool.norm, 1e-2)  # an eps of its own, not that of the blocks
    assert pool.out_dim == out.shape[1]
    assert_close(pool(x), out[:, None])


def test_without_prefix_the_mean_is_over_all_tokens(x):
    assert_close(pool_of("mean", prefix=0)(x)[:, 0], x.mean(1))


@pytest.mark.parametrize(("kind", "needed"), [("cls", 1), ("cls+dist", 2), ("cls,dist", 2)])
def test_a_pool_without_the_prefix_it_needs_is_refused(kind, needed):
    pool_of(kind, prefix=needed)
    with pytest.raises(ValueError, match=naming(f"pool={kind!r}", f"prefix={needed - 1}", f"prefix={needed}")):
        pool_of(kind, prefix=needed - 1)


def test_unknown_pooling_is_refused_with_the_kinds_there_are():
    with pytest.raises(ValueError, match=naming("'max'", "cls", "mean", "cls+dist", "cls,dist", "attentive")):
        pool_of("max", prefix=1)


@pytest.mark.parametrize("kind", ["cls", "mean", "cls+dist", "cls,dist", "attentive"])
@pytest.mark.parametrize("family", ["vivit1", "videomae", "ast", "vjepa2", "meta"])
def test_every_family_of_one_encoder_takes_every_pooling(family, kind):
    prefix = {"cls": 1, "cls+dist": 2, "cls,dist": 2}.get(kind, 0)
    model = tiny(family, pool=kind)
    clip = torch.randn(2, 3, *model.input_size)
    tokens, grid = model.tokens(clip)
    assert tokens.shape == (2, prefix + grid.size, 24)
    assert_close(model.features(clip), model.encoders[0].pool(tokens)[:, 0], atol=1e-5, rtol=1e-5)
    assert model.features(clip).shape == (2, 48 if kind == "cls,dist" else 24)
    assert model(clip).shape == (2, 5)


# ---- with a query


def attentive(depth: int) -> AttentivePool:
    torch.manual_seed(0)
    return shaken(AttentivePool(replace(STAGE, pool="attentive", prefix=0, pool_depth=depth)))


def one_query(pool: AttentivePool, tokens: Tensor) -> Tensor:
    """(N, D) -> (D): attention of the query to each token by itself, head by head, then the MLP."""
    wq, wk, wv = pool.qkv.weight.chunk(3)
    bq, bk, bv = pool.qkv.bias.chunk(3)
    seen = [norm(token, pool.norm, STAGE.eps) for token in tokens]
    query, out = wq @ pool.query[0, 0] + bq, pool.query[0, 0].clone()
    for head in range(STAGE.heads):
        part = slice(4 * head, 4 * head + 4)
        scores = torch.stack([query[part] @ (wk @ token + bk)[part] / 4**0.5 for token in seen])
        shares = scores.exp() / scores.exp().sum()
        out[part] += sum(share * (wv @ token + bv)[part] for share, token in zip(shares, seen, strict=True))
    hidden = F.gelu(pool.mlp.fc1.weight @ norm(out, pool.mlp_norm, STAGE.eps) + pool.mlp.fc1.bias)
    return out + pool.mlp.fc2.weight @ hidden + pool.mlp.fc2.bias


@pytest.mark.parametrize("depth", [0, 2])
def test_attentive_pooling_is_joint_blocks_then_one_query_to_all_tokens(x, depth):
    pool = attentive(depth)
    y = x
    for block in pool.blocks:
        y = block(y, Grid(1, 1, 10))
    assert len(pool.blocks) == depth
    assert pool(x).shape == (2, 1, 12)
    for sample in range(2):
        assert_close(pool(x)[sample, 0], one_query(pool, y[sample]))


def test_attentive_pooling_knows_no_order_and_takes_any_number_of_tokens(x):
    pool = attentive(2)
    assert_close(pool(x[:, torch.randperm(10)]), pool(x))
    for tokens in (1, 3, 40):
        assert pool(torch.randn(2, tokens, 12).double()).isfinite().all()
    assert_close(pool(x[:1]), pool(x)[:1])


def test_a_token_seen_twice_counts_twice(x):
    """A query averages: doubling all tokens changes nothing, doubling one does."""
    pool = attentive(0)
    assert_close(pool(torch.cat([x, x], 1)), pool(x))
    assert not torch.allclose(pool(torch.cat([x, x[:, :1]], 1)), pool(x), atol=1e-3)


def test_checkpointing_runs_the_blocks_of_a_pool_again_and_changes_nothing(x):
    results, runs = [], []
    for checkpointing in (False, True):
        pool = attentive(2).train()
        times: list[int] = []
        for block in pool.layers:
            block.checkpointing = checkpointing
            block.mlp.register_forward_pre_hook(lambda *_, times=times: times.append(1))
        out = pool(x.clone().requires_grad_())
        out.square().sum().backward()
        runs.append(len(times))
        results.append([out, *(parameter.grad for parameter in pool.parameters())])
    assert_close(*results)
    assert runs == [2, 4]
    pool.eval()(x)
    assert len(times) == 6  # none again without training
