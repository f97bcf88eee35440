import pytest
from naming import naming

from tubelet.nn.grid import Grid, token_grid, triple


def test_grid_counts_the_tubelets_that_lie_inside_the_clip():
    for size in range(1, 13):
        for patch in range(1, 6):
            for stride in range(1, 7):
                starts = range(0, size - patch + 1, stride)
                filled = stride < patch or (starts and starts[-1] + patch == size)
                clip = (size, patch, patch)
                if not starts:
                    with pytest.raises(ValueError, match=naming(f"T = {size}", patch)):
                        token_grid(clip, (patch,) * 3, (stride,) * 3)
                elif not filled:
                    with pytest.raises(ValueError, match=naming(f"T = {size}", starts[-1] + patch)):
                        token_grid(clip, (patch,) * 3, (stride,) * 3)
                else:
                    assert token_grid(clip, (patch,) * 3, (stride,) * 3) == (len(starts), 1, 1)


def test_each_axis_has_its_own_size():
    assert token_grid((6, 8, 20), (2, 4, 5), (2, 4, 5)) == Grid(t=3, h=2, w=4)
    assert Grid(3, 2, 4).size == 24


def test_along_keeps_the_named_axes():
    grid = Grid(3, 2, 4)
    assert [grid.along(axes) for axes in ("thw", "hw", "t")] == [(3, 2, 4), (1, 2, 4), (3, 1, 1)]


def test_too_small_a_clip_is_named_with_its_axis():
    with pytest.raises(ValueError, match=naming("H = 8", "(4, 8, 32)", "(2, 16, 16)", 16)):
        token_grid((4, 8, 32), (2, 16, 16), (2, 16, 16))


@pytest.mark.parametrize(("size", "near"), [(225, (224, 240)), (239, (224, 240)), (17, (16, 32))])
def test_a_clip_that_is_not_filled_is_told_the_sizes_that_fit(size, near):
    with pytest.raises(ValueError, match=naming(f"W = {size}", *near)):
        token_grid((2, 16, size), (2, 16, 16), (2, 16, 16))


@pytest.mark.parametrize("size", [(4, 16), (4, 16, 16, 16), (0, 16, 16), (4, -16, 16)])
def test_three_sizes_of_at_least_one(size):
    assert triple([2, 3, 4], "clip") == (2, 3, 4)
    with pytest.raises(ValueError, match=naming(f"clip={size}", "(T, H, W)")):
        triple(size, "clip")
