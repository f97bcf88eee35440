"""Kernels of tokenisers for another patch: what they say of a resized patch is what they said of the patch."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tubelet.nn.grid import Grid, Size3, triple
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.position import resample
from tubelet.weights.store import load_strict


def resize_kernel(kernel: Tensor, patch: Sequence[int]) -> Tensor:
    """Kernel (D, C, t, h, w) -> (D, C, t', h', w') for patches of another size; also (D, C, h, w) -> (D, C, h', w').

    The new kernel gives on a resized patch what the old one gives on the patch: exactly so where no axis shrinks, else
    with the least squared error over patches of independent pixels. Patches are resized as positions are: bicubic with
    antialias in space, linear in time. At its own size a kernel comes back as it is.

    Source: arXiv 2212.08013, section 3.4 (PI-resize), here in space and time.

    Raises:
        ValueError: the kernel has not 4 or 5 axes, or `patch` does not give its last 2 or 3 sizes, each at least 1.
    """
    if kernel.ndim not in (4, 5):
        raise ValueError(f"got a kernel of shape {tuple(kernel.shape)}, expected (D, C, t, h, w) or (D, C, h, w)")
    if len(patch) != kernel.ndim - 2 or min(patch) < 1:
        axes = "(t, h, w)" if kernel.ndim == 5 else "(h, w)"
        raise ValueError(
            f"got patch={tuple(patch)} for a kernel {tuple(kernel.shape)}, expected {axes}, each at least 1"
        )
    precision = torch.promote_types(kernel.dtype, torch.float32)
    resized = kernel.to(precision)
    for axis, size in enumerate(patch, start=2):
        if size != kernel.shape[axis]:
            # of a resize that is separable the pseudo-inverse is so too: one small matrix for each axis
            matrix = resize_matrix(kernel.shape[axis], size, along_time=kernel.ndim == 5 and axis == 2)
            inverse = torch.linalg.pinv(matrix.T).to(kernel.device, precision)
            resized = (resized.movedim(axis, -1) @ inverse.T).movedim(-1, axis)
    return resized.to(kernel.dtype).contiguous()


def resize_matrix(old: int, new: int, *, along_time: bool) -> Tensor:
    """(new, old), float64: what `resample` makes of a line. Its columns are resized lines with a single one."""
    lines = torch.eye(old)
    if along_time:
        resized = resample(lines[:, None, None], Grid(new, 1, 1))[:, 0, 0]
    else:
        resized = resample(lines[None, :, None], Grid(1, new, 1))[0, :, 0]
    return resized.expand(new, old).double()  # a line of one is shared


def with_patch(model: SpaceTimeTransformer, patch: Sequence[int]) -> SpaceTimeTransformer:
    """A new model for patches of (frames, px, px), with a resized kernel and everything else as it is.

    The grid stays, so that position tables and windows stay what they are: the clip that they are made for and the
    input size grow or shrink with the patch (`set_input_size` chooses another), as does a stride of its own.

    Raises:
        ValueError: a tokeniser of more than one linear kernel; a stride that would be no whole number; a patch of
            several frames for a model with uniform frame sampling.
    """
    c, new = model.config.embed, triple(patch, "patch")
    if c.kind not in ("tubelet", "video-image"):
        raise ValueError(
            f"only the kernels of embed='tubelet' or 'video-image' can be resized, the model has embed={c.kind!r}"
        )
    if c.frames is not None and new[0] != 1:
        raise ValueError(f"uniform frame sampling embeds single frames, got patch={new}: give (1, {new[1]}, {new[2]})")
    stride = scale_stride(c.stride, c.patch, new)

    def same_grid(size: Sequence[int]) -> Size3:
        steps = zip(model.grid(size), new, stride, strict=True)
        t, h, w = ((count - 1) * step + length for count, length, step in steps)
        return (size[0] if c.frames else t), h, w

    config = model.config.with_embed(patch=new, stride=stride)
    resized = SpaceTimeTransformer(replace(config, clip=same_grid(config.clip)))
    resized.set_input_size(same_grid(model.input_size))
    tensors = model.state_dict()
    kernels = {"embed.embed" if c.frames else "embed": new}
    if c.kind == "video-image":
        kernels = {"embed.video": new, "embed.image": (1, *new[1:])}
    for name, size in kernels.items():
        tensors[f"{name}.proj.weight"] = resize_kernel(tensors[f"{name}.proj.weight"], size)
    resized.to(model.mean)
    load_strict(resized, tensors, what="the model with another patch")
    return resized.train(model.training)


def scale_stride(stride: Size3, old: Size3, new: Size3) -> Size3:
    """The stride that overlaps new patches as it did old ones. Raises ValueError where that is no whole number."""
    if any(step * after % before for step, before, after in zip(stride, old, new, strict=True)):
        raise ValueError(
            f"patches {old} are {stride} apart, and no whole step overlaps {new} alike: choose another patch"
        )
    t, h, w = (step * after // before for step, before, after in zip(stride, old, new, strict=True))
    return t, h, w
