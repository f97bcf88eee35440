import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tubelet.nn import Grid, LearnedPosition, resample, sincos


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


def test_sincos_tells_all_cells_apart_and_one_cell_is_zero():
    table = sincos(Grid(4, 3, 5), 24).flatten(0, 2)
    assert torch.cdist(table, table).fill_diagonal_(1).min() > 0.1
    assert not sincos(Grid(1, 1, 1), 24).any()


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


@pytest.mark.parametrize("grid", [Grid(3, 2, 4), Grid(5, 4, 3)])
def test_tables_are_added_where_they_belong(grid):
    torch.manual_seed(0)
    position = LearnedPosition(6, [Grid(1, 2, 4), Grid(3, 1, 1)])
    for table in position.tables:
        torch.nn.init.normal_(table)
    space, time = (resample(table, grid) for table in position.tables)
    added = position(torch.zeros(2, grid.size, 6), grid)
    for row, (t, h, w) in enumerate(np.ndindex(grid)):
        assert_close(added[:, row], (space[0, h, w] + time[t, 0, 0]).expand(2, -1))


def test_a_resampled_table_learns():
    position = LearnedPosition(6, [Grid(3, 2, 4)])
    position(torch.zeros(1, 60, 6), Grid(5, 4, 3)).square().sum().backward()
    assert (position.tables[0].grad.abs().sum(-1) > 0).all()
