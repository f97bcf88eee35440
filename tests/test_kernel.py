from math import prod
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from naming import naming
from safetensors.torch import load_file
from tiny import FAMILIES, IMAGE_FAMILIES, clip_for, tiny
from torch import Tensor
from torch.testing import assert_close

from tubelet.weights import resize_kernel, with_patch

GOLDEN = Path(__file__).parent / "golden" / "timm_resampled_kernel.safetensors"
ENLARGED = [((2, 4, 5), (4, 8, 10)), ((2, 4, 5), (3, 4, 7)), ((1, 4, 4), (2, 5, 4)), ((3, 1, 2), (3, 2, 5))]
SHRUNK = [((4, 6, 5), (2, 3, 4)), ((2, 6, 5), (1, 6, 3)), ((2, 4, 6), (4, 3, 9))]


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def resized(patch: Tensor, size: tuple[int, int, int]) -> Tensor:
    """(..., t, h, w) -> (..., t', h', w'): bicubic with antialias in space, then linear in time."""
    lead, (t, h, w) = patch.shape[:-3], patch.shape[-3:]
    frames = F.interpolate(patch.reshape(-1, t, h, w), size[1:], mode="bicubic", antialias=True)
    lines = frames.flatten(2).transpose(1, 2).flatten(0, 1)[:, None]
    lines = F.interpolate(lines, size[0], mode="linear")[:, 0].unflatten(0, (-1, size[1] * size[2]))
    return lines.transpose(1, 2).reshape(*lead, *size)


def answers(kernel: Tensor, patches: Tensor) -> Tensor:
    """What each filter (D, C, t, h, w) says of each patch (N, C, t, h, w), (N, D)."""
    return torch.einsum("dcthw,ncthw->nd", kernel, patches)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_the_resize_of_these_tests_goes_axis_by_axis():
    patch, new = torch.randn(3, 4, 5, dtype=torch.float64), (2, 6, 3)
    step = resized(resized(resized(patch, (3, 4, 3)), (2, 4, 3)), new)
    assert_close(step, resized(patch, new))


@pytest.mark.parametrize(("old", "new"), ENLARGED + SHRUNK)
def test_the_kernel_is_the_least_squares_answer_over_all_pixels_at_once(old, new):
    """The oracle knows nothing of axes: one matrix of resized basis patches, and least squares over it."""
    kernel = torch.randn(2, 3, *old, dtype=torch.float64)
    basis = resized(torch.eye(prod(old), dtype=torch.float64).unflatten(1, old), new).flatten(1)  # (old, new)
    wanted = torch.linalg.lstsq(basis, kernel.flatten(2).flatten(0, 1).T, driver="gelsd").solution
    assert_close(resize_kernel(kernel, new), wanted.T.reshape(2, 3, *new), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("old", "new"), ENLARGED)
def test_an_enlarged_kernel_says_of_enlarged_patches_what_it_said_of_the_patches(old, new):
    kernel, patches = torch.randn(4, 3, *old), torch.randn(5, 3, *old)
    assert relative(answers(resize_kernel(kernel, new), resized(patches, new)), answers(kernel, patches)) < 1e-5


@pytest.mark.parametrize(("old", "new"), SHRUNK)
def test_a_shrunk_kernel_is_nearer_than_a_shrunk_picture_of_it(old, new):
    kernel, patches = torch.randn(4, 3, *old), torch.randn(500, 3, *old)
    seen, small = answers(kernel, patches), resized(patches, new)
    ours = relative(answers(resize_kernel(kernel, new), small), seen)
    picture = resized(kernel, new) * prod(old) / prod(new)
    assert ours < relative(answers(picture, small), seen)
    assert ours < 0.999  # than saying nothing


def test_timm_gives_the_same_in_space():
    wanted = load_file(GOLDEN)
    kernel = wanted.pop("kernel")
    assert len(wanted) == 4
    for size, theirs in wanted.items():
        h, w = map(int, size.split("x"))
        assert relative(resize_kernel(kernel, (h, w)), theirs) < 1e-5


def test_with_time_as_it_is_each_slice_is_resized_by_itself():
    kernel = torch.randn(2, 3, 4, 5, 6)
    out = resize_kernel(kernel, (4, 7, 3))
    assert_close(out, torch.stack([resize_kernel(frame, (7, 3)) for frame in kernel.unbind(2)], 2))


def test_a_kernel_of_one_frame_is_spread_over_new_frames():
    kernel = torch.randn(2, 3, 1, 4, 4)
    assert_close(resize_kernel(kernel, (4, 4, 4)), kernel.expand(-1, -1, 4, -1, -1) / 4)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (2, 3, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_at_its_own_size_a_kernel_comes_back_as_it_is(shape, dtype):
    kernel = torch.randn(shape).to(dtype)
    assert_close(resize_kernel(kernel, shape[2:]), kernel, atol=0, rtol=0)
    other = resize_kernel(kernel, [size + 1 for size in shape[2:]])
    assert other.dtype == dtype
    assert other.is_contiguous()


def test_a_resized_kernel_passes_gradients_on():
    kernel = torch.randn(2, 3, 2, 4, 4, requires_grad=True)
    resize_kernel(kernel, (3, 6, 5)).square().sum().backward()
    assert (kernel.grad != 0).all()


@pytest.mark.parametrize(
    ("shape", "patch", "values"),
    [
        ((2, 3, 4), (4,), ("(2, 3, 4)", "(D, C, t, h, w)", "(D, C, h, w)")),
        ((2, 3, 4, 4), (2, 4, 4), ("patch=(2, 4, 4)", "(2, 3, 4, 4)", "(h, w)")),
        ((2, 3, 2, 4, 4), (4, 4), ("patch=(4, 4)", "(2, 3, 2, 4, 4)", "(t, h, w)")),
        ((2, 3, 4, 4), (4, 0), ("patch=(4, 0)", "(2, 3, 4, 4)", "(h, w)", 1)),
    ],
)
def test_kernels_and_sizes_that_do_not_go_together(shape, patch, values):
    with pytest.raises(ValueError, match=naming(*values)):
        resize_kernel(torch.zeros(shape), patch)


# --- a model with another patch ---


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_with_larger_patches_sees_in_an_enlarged_clip_what_it_saw(family):
    """Every patch is enlarged by itself: an enlarged clip has its borders elsewhere."""
    model = tiny(family).double()
    new = (1 if family in IMAGE_FAMILIES else 3, 6, 8)
    large = with_patch(model, new)
    clip = clip_for(model).double()
    t, h, w = model.grid(model.input_size)
    kt, kh, kw = model.config.embed.patch
    patches = clip.view(2, 3, t, kt, h, kh, w, kw).permute(0, 1, 2, 4, 6, 3, 5, 7)
    patches = resized(patches, new).permute(0, 1, 2, 5, 3, 6, 4, 7)
    enlarged = patches.reshape(2, 3, t * new[0], h * new[1], w * new[2])
    assert large.input_size == large.config.clip == enlarged.shape[2:]
    assert_close(large(enlarged), model(clip), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"stride": (1, 2, 4)}, {"frames": 3, "patch": (1, 4, 4)}])
def test_all_but_the_kernel_is_taken_over(settings):
    model = tiny("vivit1", mean=(0.1, 0.2, 0.3), pool="mean", **settings).double().train()
    model.set_input_size((6, 16, 8))
    new = (1, 6, 8) if "frames" in settings else (4, 6, 8)
    other = with_patch(model, new)
    name = "embed.embed.proj.weight" if "frames" in settings else "embed.proj.weight"
    theirs, ours = model.state_dict(), other.state_dict()
    assert_close(ours.pop(name), resize_kernel(theirs.pop(name), new))
    assert_close(ours, theirs, atol=0, rtol=0)
    assert other.training
    assert_close(other.mean, model.mean)
    assert other.grid(other.input_size) == model.grid(model.input_size)
    assert other.grid(other.config.clip) == model.grid(model.config.clip)
    assert other.config.embed.stride == ((2, 3, 8) if "stride" in settings else new)
    back = with_patch(other, model.config.embed.patch)
    assert back.config == model.config
    assert back.input_size == model.input_size


def test_at_its_own_patch_a_model_is_copied():
    model = tiny("vivit2")
    other = with_patch(model, model.config.embed.patch)
    assert_close(other.state_dict(), model.state_dict(), atol=0, rtol=0)
    with torch.no_grad():
        other.embed.proj.weight.zero_()
    assert model.embed.proj.weight.any()


@pytest.mark.parametrize(
    ("settings", "patch", "values"),
    [
        (
            {"embed": "space-time"},
            (2, 8, 8),
            ("embed='tubelet'", "embed='space-time'"),
        ),
        ({"embed": "conv"}, (2, 8, 8), ("embed='tubelet'", "embed='conv'")),
        ({}, (8, 8), ("patch=(8, 8)", "(T, H, W)")),
        ({}, (2, 0, 8), ("patch=(2, 0, 8)", "(T, H, W)", 1)),
        ({"frames": 3, "patch": (1, 4, 4)}, (2, 8, 8), ("patch=(2, 8, 8)", "(1, 8, 8)")),
        (
            {"stride": (1, 3, 4)},
            (2, 6, 8),
            ("(2, 4, 4)", "(1, 3, 4)", "(2, 6, 8)"),
        ),
    ],
)
def test_what_cannot_have_another_patch(settings, patch, values):
    with pytest.raises(ValueError, match=naming(*values)):
        with_patch(tiny("vivit1", **settings), patch)
