from itertools import product

import pytest
import torch
import torch.nn.functional as F
from naming import naming
from torch import Tensor
from torch.testing import assert_close

from tubelet.nn import Attention, Grid, attend, kernels

GRIDS = [Grid(3, 2, 4), Grid(1, 2, 3), Grid(4, 1, 1), Grid(2, 3, 1)]


def one_query(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """(n, d), (m, n, d), (m, n, d) -> (n, d): softmax attention of one token, head by head."""
    scores = torch.einsum("nd,mnd->nm", q, keys) / q.shape[-1] ** 0.5
    return torch.einsum("nm,mnd->nd", scores.softmax(1), values)


def brute_force(q: Tensor, k: Tensor, v: Tensor, grid: Grid, axes: str, prefix: int) -> Tensor:
    """Attention of each token by itself, with the list of tokens that it may look at written out."""
    cells = list(product(*map(range, grid)))
    fixed = [axis for axis, letter in enumerate("thw") if letter not in axes]

    def group_of(cell):
        return tuple(cell[axis] for axis in fixed)

    groups = {
        name: [prefix + i for i, cell in enumerate(cells) if group_of(cell) == name] for name in map(group_of, cells)
    }
    shared = list(range(prefix)) if "hw" in axes else []
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for members in groups.values():
            seen = shared + members
            for token in members:
                out[b, token] = one_query(q[b, token], k[b, seen], v[b, seen])
            for token in shared:
                out[b, token] += one_query(q[b, token], k[b, seen], v[b, seen]) / len(groups)
    return out


def random_qkv(grid: Grid, prefix: int, heads: int = 2) -> list[Tensor]:
    torch.manual_seed(0)
    return [2 * torch.randn(2, prefix + grid.size, heads, 3, dtype=torch.float64) for _ in "qkv"]


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("axes", ["thw", "hw", "t"])
def test_attend_equals_brute_force(axes, grid, prefix):
    q, k, v = random_qkv(grid, prefix)
    assert_close(attend(q, k, v, grid, axes, prefix=prefix), brute_force(q, k, v, grid, axes, prefix))


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("axes", ["thw", "hw", "t"])
def test_the_module_projects_attends_and_projects(axes, prefix):
    torch.manual_seed(0)
    grid, attention = Grid(3, 2, 4), Attention(12, 2, axes).double()
    x = torch.randn(2, prefix + grid.size, 12, dtype=torch.float64)
    q, k, v = (F.linear(x, *part).unflatten(2, (2, 6)) for part in thirds(attention))
    out = brute_force(q, k, v, grid, axes, prefix).flatten(2) @ attention.proj.weight.T + attention.proj.bias
    if axes == "t":
        out[:, :prefix] = 0
    assert_close(attention(x, grid), out)


def thirds(attention: Attention) -> list[tuple[Tensor, Tensor]]:
    return list(zip(attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True))


@pytest.mark.parametrize("grid", GRIDS)
def test_model_4_gives_the_first_half_of_the_heads_to_time_and_the_second_to_space(grid):
    torch.manual_seed(0)
    attention = Attention(24, 4, "t|hw").double()
    x = torch.randn(2, grid.size, 24, dtype=torch.float64)
    q, k, v = (F.linear(x, *part).unflatten(2, (4, 6)) for part in thirds(attention))
    time = brute_force(q[:, :, :2], k[:, :, :2], v[:, :, :2], grid, "t", 0)
    space = brute_force(q[:, :, 2:], k[:, :, 2:], v[:, :, 2:], grid, "hw", 0)
    assert_close(attention(x, grid), attention.proj(torch.cat([time, space], 2).flatten(2)))


def test_along_time_a_clip_of_one_step_returns_its_values():
    q, k, v = random_qkv(Grid(1, 3, 4), 0)
    assert_close(attend(q, k, v, Grid(1, 3, 4), "t"), v)


@pytest.mark.parametrize("axes", ["thw", "hw", "t"])
def test_the_order_of_the_time_steps_does_not_matter_to_attention(axes):
    grid, order = Grid(4, 2, 3), torch.tensor([2, 0, 3, 1])
    tokens = (torch.arange(grid.size).view(grid)[order]).flatten()
    q, k, v = random_qkv(grid, 0)
    moved = attend(q[:, tokens], k[:, tokens], v[:, tokens], grid, axes)
    assert_close(moved, attend(q, k, v, grid, axes)[:, tokens])


@pytest.mark.parametrize("axes", ["thw", "hw", "t"])
def test_clips_of_a_batch_do_not_see_each_other(axes):
    grid = Grid(3, 2, 2)
    q, k, v = random_qkv(grid, 1)
    alone = attend(q[:1], k[:1], v[:1], grid, axes, prefix=1)
    assert_close(attend(q, k, v, grid, axes, prefix=1)[:1], alone)


@pytest.mark.parametrize("axes", ["thw", "hw", "t", "t|hw"])
def test_dropout_acts_in_training_only(axes):
    torch.manual_seed(0)
    grid, attention = Grid(3, 2, 4), Attention(12, 2, axes)
    attention.p = 0.5
    x = torch.randn(1, grid.size, 12)
    assert not torch.allclose(attention(x, grid), attention(x, grid))
    attention.eval()
    assert_close(attention(x, grid), attention(x, grid), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("dim", "heads", "axes", "values"),
    [
        (12, 5, "thw", ("heads", 5, 12)),
        (12, 3, "t|hw", ("heads", 3, "'t|hw'", 2)),
        (12, 2, "wh", ("'wh'", "thw", "hw", "t", "'|'")),
        (12, 2, "t|", ("'t|'", "thw", "hw", "t", "'|'")),
    ],
)
def test_attention_that_cannot_be_is_refused(dim, heads, axes, values):
    with pytest.raises(ValueError, match=naming(*values)):
        Attention(dim, heads, axes)


def test_shared_out_heads_refuse_prefix_tokens():
    with pytest.raises(ValueError, match=naming("prefix", "pool='mean'")):
        Attention(12, 2, "t|hw")(torch.zeros(1, 7, 12), Grid(1, 2, 3))


@pytest.mark.parametrize("axes", ["t", "hw", "thw"])
def test_more_sequences_than_a_kernel_takes_are_cut_in_parts(axes, monkeypatch):
    torch.manual_seed(0)
    q, k, v = (torch.randn(5, 2 + 3 * 8, 2, 4) for _ in range(3))
    whole = attend(q, k, v, Grid(3, 2, 4), axes, prefix=2)
    monkeypatch.setattr(kernels, "MOST_SEQUENCES", 4)
    assert_close(attend(q, k, v, Grid(3, 2, 4), axes, prefix=2), whole)
