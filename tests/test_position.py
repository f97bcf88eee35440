"""Positions on a grid: sine-cosine, rotary and learned tables, each against its formula, place by place."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tubelet.nn import Grid, LearnedPosition, RotaryPosition, SinCosPosition, position, resample, rotary, sincos
from tubelet.nn.attention import Turns, turn

torch.set_num_threads(1)

# ---- sine and cosine


@pytest.mark.parametrize("grid", [Grid(3, 2, 4), Grid(1, 2, 4), Grid(5, 1, 1)])
def test_sincos_gives_each_axis_its_share_of_sines_then_cosines(grid):
    table, dim = sincos(grid, 26), 26
    axes = [axis for axis in range(3) if grid[axis] > 1]
    pairs = dim // (2 * len(axes))
    for cell in np.ndindex(grid):
        expected = []
        for axis in axes:
            angles = [cell[axis] / 10_000 ** (i / pairs) for i in range(pairs)]
            expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        expected += [0.0] * (dim - len(expected))
        assert_close(table[cell], torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", [Grid(3, 2, 4), Grid(1, 2, 4), Grid(5, 1, 1), Grid(1, 1, 1)])
@pytest.mark.parametrize("axes", ["thw", "hw", "t"])
def test_sincos_of_named_axes_gives_each_its_share_also_where_it_is_one_long(grid, axes):
    table, pairs = sincos(grid, 26, axes=axes, temperature=100.0), 26 // (2 * len(axes))
    for cell in np.ndindex(grid):
        expected = torch.zeros(26)
        for slot, axis in enumerate(axes):
            for i in range(pairs):
                angle = cell["thw".index(axis)] / 100 ** (i / pairs)
                expected[2 * pairs * slot + i] = math.sin(angle)
                expected[2 * pairs * slot + pairs + i] = math.cos(angle)
        assert_close(table[cell], expected, atol=1e-5, rtol=0)


def test_positions_made_for_each_grid_do_not_depend_on_the_rest_of_it():
    """A table resampled would: a place of a small grid has the same position in a larger one."""
    whole = SinCosPosition(24, "thw")(torch.zeros(1, 5 * 4 * 6, 24), Grid(5, 4, 6)).view(5, 4, 6, 24)
    part = SinCosPosition(24, "thw")(torch.zeros(1, 3 * 2 * 4, 24), Grid(3, 2, 4)).view(3, 2, 4, 24)
    assert torch.equal(whole[:3, :2, :4], part)


def test_sincos_positions_are_added_and_take_the_dtype_of_the_tokens():
    x = torch.randn(2, 24, 12, dtype=torch.float64)
    out = SinCosPosition(12, "hw")(x, Grid(3, 2, 4))
    assert out.dtype == torch.float64
    assert_close(out - x, sincos(Grid(3, 2, 4), 12, axes="hw").view(1, 24, 12).double().expand(2, -1, -1))


def test_sincos_tells_all_cells_apart_and_one_cell_is_zero():
    table = sincos(Grid(4, 3, 5), 24).flatten(0, 2)
    assert torch.cdist(table, table).fill_diagonal_(1).min() > 0.1
    assert not sincos(Grid(1, 1, 1), 24).any()


# ---- rotary


def turned(x: torch.Tensor, cell: tuple[int, ...], axes: str, *, kind: str) -> torch.Tensor:
    """(d) -> (d): each pair of channels as a complex number, turned by the place of its token, written out."""
    pairs, out = len(x) // (2 * len(axes)), x.clone()
    for slot, axis in enumerate(axes):
        angles = [cell["thw".index(axis)] / 10_000 ** (i / pairs) for i in range(pairs)]
        angles = angles * 2 if kind == "rotary-tiled" else [angle for angle in angles for _ in range(2)]
        for i in range(0, 2 * pairs, 2):
            a, b = x[2 * pairs * slot + i].item(), x[2 * pairs * slot + i + 1].item()
            out[2 * pairs * slot + i] = a * math.cos(angles[i]) - b * math.sin(angles[i])
            out[2 * pairs * slot + i + 1] = b * math.cos(angles[i + 1]) + a * math.sin(angles[i + 1])
    return out


@pytest.mark.parametrize("kind", ["rotary", "rotary-tiled"])
@pytest.mark.parametrize(("axes", "dim"), [("thw", 14), ("hw", 8), ("t", 6), ("thw", 6)])
@pytest.mark.parametrize("prefix", [0, 2])
def test_rotary_turns_each_pair_by_the_place_of_its_token_and_leaves_the_prefix(axes, dim, kind, prefix):
    torch.manual_seed(0)
    grid = Grid(3, 2, 4)
    x = torch.randn(2, prefix + grid.size, 2, dim, dtype=torch.float64)
    out = turn(x, RotaryPosition(dim, axes, kind=kind).turns(x, grid), prefix=prefix)
    assert torch.equal(out[:, :prefix], x[:, :prefix])
    for row, cell in enumerate(np.ndindex(grid)):
        for head in range(2):
            expected = turned(x[0, prefix + row, head], cell, axes, kind=kind)
            assert_close(out[0, prefix + row, head], expected, atol=1e-6, rtol=0)


def products(q: torch.Tensor, k: torch.Tensor, grid: Grid, *, kind: str = "rotary") -> torch.Tensor:
    """What one query and one key say to each other at all pairs of places, (t, h, w, t, h, w)."""
    cos, sin, alike = rotary(grid, len(q), kind=kind)
    turns = Turns(cos.double(), sin.double(), alike)
    q, k = (turn(y.expand(1, grid.size, 1, -1), turns)[0, :, 0] for y in (q, k))
    return (q @ k.T).view(*grid, *grid)


@pytest.mark.parametrize("dim", [6, 14, 24])
def test_rotary_attention_depends_on_relative_places_only(dim):
    torch.manual_seed(0)
    grid = Grid(4, 3, 5)
    said = products(torch.randn(dim).double(), torch.randn(dim).double(), grid)
    by_offset: dict[tuple[int, ...], float] = {}
    for cell in np.ndindex(*grid, *grid):
        offset = tuple(cell[axis] - cell[axis + 3] for axis in range(3))
        assert said[cell].item() == pytest.approx(by_offset.setdefault(offset, said[cell].item()), abs=1e-5)
    assert len(by_offset) == 7 * 5 * 9
    assert np.std(list(by_offset.values())) > 0.1  # places do matter


def test_a_turned_pair_keeps_its_length():
    torch.manual_seed(0)
    x = torch.randn(1, 2 * 40 * 30, 1, 24, dtype=torch.float64)
    out = turn(x, rotary(Grid(2, 40, 30), 24))
    lengths = [y.unflatten(-1, (-1, 2)).norm(dim=-1) for y in (out, x)]
    assert_close(*lengths, atol=1e-6, rtol=0)


def test_the_tiled_layout_is_no_rotation():
    """V-JEPA 2 was trained with its two channels of a pair turned by different angles: so it must be run, but neither
    law above holds for it."""
    torch.manual_seed(0)
    q, k, grid = torch.randn(24).double(), torch.randn(24).double(), Grid(4, 1, 1)
    assert not torch.allclose(products(q, k, grid), products(q, k, grid, kind="rotary-tiled"), atol=1e-2)
    said = products(q, k, grid, kind="rotary-tiled")[:, 0, 0, :, 0, 0]
    assert not torch.allclose(said.diagonal(), said[0, 0].expand(4), atol=1e-3)


@pytest.mark.parametrize("kind", position.ROTARIES)
@pytest.mark.parametrize("prefix", [0, 3])
def test_what_learns_is_turned_as_what_does_not(kind, prefix):
    """Without gradients pairs are multiplied as complex numbers."""
    grid = Grid(2, 3, 4)
    x, turns = torch.randn(2, prefix + grid.size, 2, 18), rotary(grid, 18, kind=kind)
    assert_close(turn(x, turns, prefix=prefix), turn(x.clone().requires_grad_(), turns, prefix=prefix).detach())


@pytest.mark.parametrize("kind", ["rotary", "rotary-tiled"])
def test_rotary_is_exact_at_any_grid(kind):
    """Nothing is resampled: the turns of a place are the same in every grid that has it."""
    whole = [y.view(5, 4, 1000, 24) for y in rotary(Grid(5, 4, 1000), 24, kind=kind)[:2]]
    part = [y.view(2, 3, 7, 24) for y in rotary(Grid(2, 3, 7), 24, kind=kind)[:2]]
    for all_of_them, some in zip(whole, part, strict=True):
        assert torch.equal(all_of_them[:2, :3, :7], some)


# ---- resampling


def test_at_its_own_grid_a_table_comes_back_as_it_is():
    table = torch.randn(3, 2, 4, 8)
    assert resample(table, Grid(3, 2, 4)) is table


def test_time_is_resampled_linearly():
    table = torch.randn(4, 2, 3, 5)
    for t in (1, 2, 3, 6, 9):
        places = ((np.arange(t) + 0.5) * 4 / t - 0.5).clip(0, 3)
        out = resample(table, Grid(t, 2, 3))
        assert out.shape == (t, 2, 3, 5)
        for cell in np.ndindex(2, 3, 5):
            line = np.interp(places, range(4), table[(slice(None), *cell)].numpy())
            assert_close(out[(slice(None), *cell)].numpy(), line.astype(np.float32))


def test_space_is_resampled_one_axis_at_a_time_and_knows_height_from_width():
    table = torch.randn(2, 4, 6, 5)
    out = resample(table, Grid(2, 7, 3))
    assert_close(out, resample(resample(table, Grid(2, 7, 6)), Grid(2, 7, 3)))
    assert_close(out, resample(table.transpose(1, 2), Grid(2, 3, 7)).transpose(1, 2))
    assert_close(resample(torch.ones(2, 4, 6, 5), Grid(2, 7, 3)), torch.ones(2, 7, 3, 5))


def test_enlarging_a_ramp_gives_a_ramp_inside():
    ramp = torch.arange(8.0).view(1, 8, 1, 1).expand(1, 8, 2, 3).contiguous()
    places = (torch.arange(16) + 0.5) / 2 - 0.5
    assert_close(resample(ramp, Grid(1, 16, 2))[0, 4:12, 0, 0], places[4:12], atol=1e-5, rtol=0)


def test_shrinking_uses_every_row():
    """Without antialias a table shrunk to a quarter would ignore half of its rows."""
    table = torch.randn(1, 16, 4, 3, requires_grad=True)
    resample(table, Grid(1, 4, 4)).square().sum().backward()
    assert (table.grad != 0).all()


def test_grids_are_compared_not_counts():
    table = torch.randn(1, 8, 2, 5)
    out = resample(table, Grid(1, 4, 4))
    assert out.shape == (1, 4, 4, 5)
    assert not torch.allclose(out.flatten(), table.flatten(), atol=0.1)


def test_an_axis_of_one_is_shared_and_stays_one():
    assert resample(torch.randn(1, 2, 3, 5), Grid(7, 4, 6)).shape == (1, 4, 6, 5)
    assert resample(torch.randn(4, 1, 1, 5), Grid(7, 4, 6)).shape == (7, 1, 1, 5)


def test_half_precision_tables_are_resampled_in_float32():
    table = torch.randn(4, 2, 3, 5).bfloat16()
    out = resample(table, Grid(6, 4, 5))
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), resample(table.float(), Grid(6, 4, 5)), atol=0.05, rtol=0)


def bicubic(table: torch.Tensor, h: int, w: int) -> torch.Tensor:
    return F.interpolate(table.permute(0, 3, 1, 2), (h, w), mode="bicubic", antialias=True).permute(0, 2, 3, 1)


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_keeping_the_aspect_is_the_identity_at_home_and_plain_resampling_along_the_diagonal(keep_aspect):
    table = torch.randn(2, 4, 6, 5)
    assert resample(table, Grid(2, 4, 6), keep_aspect=keep_aspect) is table
    for scale in (0.5, 1.5, 2, 3):
        grid = Grid(2, int(4 * scale), int(6 * scale))
        assert_close(resample(table, grid, keep_aspect=keep_aspect), bicubic(table, *grid[1:]))


@pytest.mark.parametrize(
    ("h", "w", "scaled"),
    [
        (4, 12, (8, 12)),  # twice as wide: the middle of the table at twice its size
        (8, 6, (8, 12)),
        (4, 3, (4, 6)),  # narrower: the middle of the table as it is
        (2, 6, (4, 6)),
        (2, 2, (2, 3)),
        (5, 6, (5, 8)),  # 7.5 columns, rounded up
        (1, 12, (8, 12)),
        (16, 1, (16, 24)),
    ],
)
def test_keeping_the_aspect_takes_the_middle_of_the_table_scaled_alike(h, w, scaled):
    table = torch.randn(2, 4, 6, 5)
    top, left = (scaled[0] - h) // 2, (scaled[1] - w) // 2
    middle = bicubic(table, *scaled)[:, top : top + h, left : left + w]
    assert_close(resample(table, Grid(2, h, w), keep_aspect=True), middle)


@pytest.mark.parametrize(("shape", "axis"), [((1, 8, 1, 5), 1), ((1, 1, 8, 5), 2), ((8, 1, 1, 5), 0)])
@pytest.mark.parametrize("length", [3, 4, 16, 21])
def test_a_table_along_one_axis_has_no_aspect_to_keep(shape, axis, length):
    table, sizes = torch.randn(shape), [7, 7, 7]
    sizes[axis] = length
    plain, kept = (resample(table, Grid(*sizes), keep_aspect=choice) for choice in (False, True))
    assert plain.shape[axis] == length
    assert torch.equal(plain, kept)


@pytest.mark.parametrize("grid", [Grid(3, 2, 4), Grid(5, 4, 3)])
def test_tables_are_added_where_they_belong(grid):
    torch.manual_seed(0)
    added_by = LearnedPosition(6, [Grid(1, 2, 4), Grid(3, 1, 1)])
    for table in added_by.tables:
        torch.nn.init.normal_(table)
    space, time = (resample(table, grid) for table in added_by.tables)
    added = added_by(torch.zeros(2, grid.size, 6), grid)
    for row, (t, h, w) in enumerate(np.ndindex(grid)):
        assert_close(added[:, row], (space[0, h, w] + time[t, 0, 0]).expand(2, -1))


def test_a_resampled_table_learns():
    learning = LearnedPosition(6, [Grid(3, 2, 4)])
    learning(torch.zeros(1, 60, 6), Grid(5, 4, 3)).square().sum().backward()
    assert (learning.tables[0].grad.abs().sum(-1) > 0).all()


# ---- remembered tables: a second look at a size costs nothing, and a change of the parameters is never missed


TABLES = [Grid(1, 2, 4), Grid(3, 1, 1)]
OTHER = Grid(5, 4, 3)


def learned(**settings) -> LearnedPosition:
    torch.manual_seed(0)
    made = LearnedPosition(8, TABLES, **settings)
    for table in made.tables:
        torch.nn.init.normal_(table)
    return made.eval()


def afresh(made: LearnedPosition, grid: Grid) -> torch.Tensor:
    return sum(resample(table.detach(), grid).expand(*grid, -1) for table in made.tables).reshape(1, grid.size, 8)


@pytest.fixture
def interpolations(monkeypatch):
    calls, interpolate = [], F.interpolate
    monkeypatch.setattr(position.F, "interpolate", lambda *a, **k: calls.append(a) or interpolate(*a, **k))
    return calls


def test_a_size_seen_before_costs_nothing(interpolations):
    made = learned()
    with torch.no_grad():
        first = made.at(OTHER)
        assert len(interpolations) == 2  # one table in space, one in time
        made.at(Grid(3, 2, 4))
        assert made.at(OTHER) is first
        assert made.at(OTHER) is first
    assert len(interpolations) == 2
    assert not first.requires_grad
    assert torch.equal(first, afresh(made, OTHER))


def test_while_they_learn_tables_are_not_remembered():
    made = learned().train()
    for _ in range(2):
        made.zero_grad()
        made(torch.zeros(1, OTHER.size, 8), OTHER).square().sum().backward()
        assert all(table.grad.abs().sum() > 0 for table in made.tables)
    with torch.no_grad():
        made.at(OTHER)
    assert made.at(OTHER).requires_grad
    assert not learned(trained=False).at(OTHER).requires_grad


def by_optimizer(kind, **settings):
    def step(made):
        optimizer = kind(made.parameters(), lr=0.5, **settings)
        with torch.enable_grad():
            made(torch.zeros(1, OTHER.size, 8), OTHER).square().sum().backward()
        optimizer.step()

    return step


def by_load(made):
    made.load_state_dict({name: tensor + 1 for name, tensor in made.state_dict().items()})


def by_assign(made):
    made.load_state_dict({name: tensor + 1 for name, tensor in made.state_dict().items()}, assign=True)


def by_data(made):
    made.tables[0].data = made.tables[0].data + 1


def by_parameter(made):
    made.tables[1] = torch.nn.Parameter(made.tables[1].detach() + 1)


def by_alias(made):
    made.tables[0].detach()[0, 0, 0, 0] += 1


def by_state_dict_tensor(made):
    made.state_dict()["tables.1"].mul_(2)


def by_data_in_place(made):
    for table in made.tables:
        table.data.mul_(-0.5)  # how many a teacher follows its student; torch does not count this as a change


def by_average(made):
    torch._foreach_lerp_(list(made.tables), [torch.zeros_like(table) for table in made.tables], 0.5)


def by_vector(made):
    torch.nn.utils.vector_to_parameters(torch.randn(2 * 4 * 8 + 3 * 8), made.parameters())


CHANGES = [
    *(
        by_load,
        by_assign,
        by_data,
        by_data_in_place,
        by_parameter,
        by_alias,
        by_state_dict_tensor,
        by_average,
        by_vector,
    ),
    by_optimizer(torch.optim.SGD),
    by_optimizer(torch.optim.AdamW, fused=True),
    by_optimizer(torch.optim.AdamW, foreach=True),
    lambda made: made.double(),
    lambda made: made.bfloat16(),
    lambda made: torch.nn.init.uniform_(made.tables[0]),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("grid", [OTHER, Grid(3, 2, 4)], ids=["another grid", "its own grid"])
def test_a_change_of_a_table_is_noticed(change, grid):
    made = learned()
    with torch.no_grad():
        for _ in range(3):
            before = made.at(grid).clone()
            change(made)
            assert made.at(grid).dtype == made.tables[0].dtype
            assert torch.equal(made.at(grid), afresh(made, grid))
            assert not torch.equal(made.at(grid).float(), before.float()) or made.tables[0].dtype != torch.float32


def test_many_tables_in_a_row_at_one_address_are_told_apart():
    """Memory that is freed is given out again: a new table may lie where an old one lay."""
    made = learned()
    with torch.no_grad():
        for value in range(50):
            made.tables[0].data = torch.full((1, 2, 4, 8), float(value))
            assert torch.equal(made.at(OTHER), afresh(made, OTHER))


def test_only_a_few_sizes_are_remembered():
    made = learned()
    with torch.no_grad():
        for length in range(1, 4 * position.KEPT_SIZES):
            made.at(Grid(length, 4, 3))
            assert len(made.remembered.values) <= position.KEPT_SIZES
        kept = list(made.remembered.values)
    assert kept[-1] == Grid(4 * position.KEPT_SIZES - 1, 4, 3)  # the last


def test_a_copy_remembers_for_itself():
    made = learned()
    with torch.no_grad():
        made.at(OTHER)
        twin = copy.deepcopy(made)
        for _ in range(5):  # among them the number of changes that the first had seen
            twin.tables[0].add_(1)
            assert torch.equal(twin.at(OTHER), afresh(twin, OTHER))
            assert torch.equal(made.at(OTHER), afresh(made, OTHER))


def test_what_is_remembered_is_not_part_of_the_state():
    made = learned()
    with torch.no_grad():
        made.at(OTHER)
    assert list(made.state_dict()) == ["tables.0", "tables.1"]


@pytest.mark.parametrize("trained", [True, False])
def test_training_may_follow_prediction(trained):
    made = learned(trained=trained)
    with torch.inference_mode():
        made.at(OTHER)
    x = torch.randn(1, OTHER.size, 8, requires_grad=True)
    made(x, OTHER).square().sum().backward()
    assert_close(x.grad, 2 * (x + afresh(made, OTHER)).detach())
