"""Random changes that keep the label, or change it with the clip: one draw for all frames, so motion stays motion."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from tubelet.system.device import hand_over

TOGETHER = 16  # clips of a batch: their floats take four times the memory of their bytes


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The random changes of a clip of pixels. Raises ValueError for ranges that make no sense.

    scale: least and greatest share of the frame's area, in (0, 1], that a crop keeps.
    aspect: least and greatest factor on the crop's width / height, before it is resized to the model's size.
    flip: mirror half of the clips left to right.
    reverse: play half of the clips backwards.
    colour: strength; brightness, contrast and saturation are each scaled by a factor in [1 - colour, 1 + colour].
    tilt_degrees, shear: the most that the frame is turned, and slanted, either way; what is beyond its edges is
        mirrored.
    """

    scale: tuple[float, float] = (0.6, 1.0)
    aspect: tuple[float, float] = (0.85, 1.18)
    flip: bool = True
    reverse: bool = False
    colour: float = 0.2
    tilt_degrees: float = 0.0
    shear: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"Augmentation: scale={self.scale}, expected 0 < least <= greatest <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1] < float("inf"):
            raise ValueError(f"Augmentation: aspect={self.aspect}, expected 0 < least <= greatest")
        if not 0 <= self.colour < 1:
            raise ValueError(f"Augmentation: colour={self.colour}, expected 0 <= colour < 1")
        if not 0 <= self.tilt_degrees <= 45 or not 0 <= self.shear < 1:
            raise ValueError(
                f"Augmentation: tilt_degrees={self.tilt_degrees}, shear={self.shear}, expected 0 to 45, and 0 to 1"
            )


# For a model that knows motion already, and learns a few clips by heart the sooner.
STRONG = Augmentation(scale=(0.5, 1.0), aspect=(0.78, 1.28), tilt_degrees=11.5, shear=0.15)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What was drawn for one clip.

    size: (H, W) of the result. window: top, left, height and width in px of what is seen of its frames. mirrored,
    backwards: left to right, and in time. colour: factors of brightness, contrast and saturation, None to leave it.
    tilt: radians that the window is turned and how much it is slanted, None for neither.
    """

    size: tuple[int, int]
    window: tuple[int, int, int, int]
    mirrored: bool
    backwards: bool
    colour: tuple[float, float, float] | None
    tilt: tuple[float, float] | None


def draw_change(
    shape: Sequence[int],
    *,
    size: tuple[int, int],
    augmentation: Augmentation,
    flip: bool,
    reverse: bool,
    rng: np.random.Generator,
) -> Change:
    """The change of a clip of the shape (C, T, H', W'), as `augment` makes it."""
    want_flip, want_reverse = rng.random(2) < 0.5
    window = _random_window(shape, size, augmentation, rng)
    colour = rng.uniform(1 - augmentation.colour, 1 + augmentation.colour, 3)
    tilt, shear = rng.uniform(-1, 1, 2) * (np.radians(augmentation.tilt_degrees), augmentation.shear)
    return Change(
        size=size,
        window=window,
        mirrored=bool(flip and augmentation.flip and want_flip),
        backwards=bool(reverse and augmentation.reverse and want_reverse and shape[1] > 1),
        colour=tuple(colour.tolist()) if augmentation.colour else None,
        tilt=(float(tilt), float(shear)) if augmentation.tilt_degrees or augmentation.shear else None,
    )


def augment(
    clip: torch.Tensor,
    *,
    size: tuple[int, int],
    augmentation: Augmentation,
    flip: bool,
    reverse: bool,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, bool, bool]:
    """uint8 (C, T, H', W') -> uint8 (C, T, H, W), mirrored, reversed; (H, W) = size; every frame is treated alike.

    flip, reverse: whether a clip may be mirrored, or played backwards; its label may change then. The input is not
    written to. Equal generators give equal results, and the same number of draws is taken whatever is switched on.
    Single frames are never reversed.

    Raises: ValueError where the clip is not uint8 (C, T, H', W').
    """
    if clip.dtype != torch.uint8 or clip.ndim != 4:
        raise ValueError(f"augment: got {clip.dtype} {tuple(clip.shape)}, expected torch.uint8 (C, T, H, W)")
    change = draw_change(clip.shape, size=size, augmentation=augmentation, flip=flip, reverse=reverse, rng=rng)
    return change_clip(clip, change), change.mirrored, change.backwards


def change_clips(clips: Sequence[torch.Tensor], changes: Sequence[Change], device: torch.device) -> torch.Tensor:
    """B clips uint8 (C, T, H'_i, W'_i), in memory, and their changes, all to one size -> uint8 (B, C, T, H, W) there.

    A processor is quicker with one clip after the other, CUDA with all at once; the two differ by the rounding of a
    pixel.
    """
    if device.type == "cuda":
        return change_together(clips, changes, device)
    return hand_over(torch.stack([change_clip(*one) for one in zip(clips, changes, strict=True)]), device)


def change_clip(clip: torch.Tensor, change: Change) -> torch.Tensor:
    """uint8 (C, T, H', W') -> uint8 (C, T, H, W)."""
    top, left, h, w = change.window
    window = _tilt(clip, change) if change.tilt else clip[:, :, top : top + h, left : left + w]
    window = window.flip(3) if change.mirrored else window
    window = window.flip(1) if change.backwards else window
    if window.shape[2:] == change.size and change.colour is None and window.dtype == clip.dtype:
        return window.contiguous()
    pixels = window.float()
    if window.shape[2:] != change.size:
        pixels = F.interpolate(pixels, change.size, mode="bilinear", align_corners=False)
    if change.colour:
        pixels = _recolour(pixels, *change.colour)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


def change_together(clips: Sequence[torch.Tensor], changes: Sequence[Change], device: torch.device) -> torch.Tensor:
    """`change_clips` in a few products and one look-up for all clips, which are handed over as bytes."""
    frames, places = _stack(clips, device), _find_places(clips, changes)
    grid = hand_over(torch.from_numpy(places), device)
    orders = np.stack([np.arange(frames.shape[2])[:: -1 if change.backwards else 1] for change in changes])
    order = hand_over(torch.from_numpy(orders), device)
    colours = hand_over(torch.tensor([change.colour or (1.0, 1.0, 1.0) for change in changes]), device)
    found = []
    for part in torch.arange(len(clips)).split(TOGETHER):
        rows = slice(int(part[0]), int(part[-1]) + 1)
        ordered = frames[rows].gather(2, order[rows, None, :, None, None].expand_as(frames[rows])).float()
        pixels = F.grid_sample(ordered.flatten(1, 2), grid[rows], padding_mode="border", align_corners=True)
        pixels = _recolour_together(pixels.unflatten(1, ordered.shape[1:3]), colours[rows])
        found.append(pixels.round_().clamp_(0, 255).to(torch.uint8))
    return torch.cat(found)


def _stack(clips: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """(B, C, T, H', W') of the largest H' and W' there, the rest of smaller frames zero."""
    height, width = (max(clip.shape[axis] for clip in clips) for axis in (2, 3))
    frames = torch.zeros(len(clips), *clips[0].shape[:2], height, width, dtype=torch.uint8)
    for row, clip in zip(frames, clips):
        row[:, :, : clip.shape[2], : clip.shape[3]] = clip
    return hand_over(frames, device)


def _find_places(clips: Sequence[torch.Tensor], changes: Sequence[Change]) -> np.ndarray:
    """float32 (B, H, W, 2): where in the stacked frames each pixel of the results lies, x and y, -1 and 1 the middle
    of the first and the last pixel."""
    height, width = (max(clip.shape[axis] for clip in clips) for axis in (2, 3))
    found = []
    for clip, change in zip(clips, changes, strict=True):
        (top, left, h, w), (rows, columns) = change.window, change.size
        v, u = np.meshgrid(
            (np.arange(rows) + 0.5) / rows - 0.5, (np.arange(columns) + 0.5) / columns - 0.5, indexing="ij"
        )
        u = -u if change.mirrored else u  # shares of the window, from its middle
        if change.tilt:
            turn = turn_of(change)
            x = turn[0, 0] * u + turn[0, 1] * v + left + (w - 1) / 2
            y = turn[1, 0] * u + turn[1, 1] * v + top + (h - 1) / 2
            x, y = _reflect(x, clip.shape[3]), _reflect(y, clip.shape[2])
        else:
            x = np.clip(w * u + (w - 1) / 2, 0, w - 1) + left
            y = np.clip(h * v + (h - 1) / 2, 0, h - 1) + top
        found.append(np.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], -1))
    return np.stack(found).astype(np.float32)


def _reflect(places: np.ndarray, length: int) -> np.ndarray:
    """Places in px, those beyond the edges mirrored at them."""
    there = np.mod(places + 0.5, 2 * length)
    return np.clip(np.minimum(there, 2 * length - there) - 0.5, 0, length - 1)


def _random_window(
    shape: Sequence[int], size: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width: `scale` of the largest window of the drawn shape, placed evenly at random."""
    share = rng.uniform(*augmentation.scale)
    stretch = np.exp(rng.uniform(*np.log(augmentation.aspect)))
    aspect = stretch * size[1] / size[0]
    height, width = shape[2:]
    # Measured against the largest window that fits, any drawn shape and share fit: no rejected draws, no fallback.
    window_h = min(height, width / aspect) * share**0.5
    h, w = min(height, max(1, round(window_h))), min(width, max(1, round(window_h * aspect)))
    return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


def turn_of(change: Change) -> np.ndarray:
    """(2, 2): from shares of the window, -0.5 to 0.5, to px of the frame, turned about its middle and slanted."""
    tilt, shear = change.tilt or (0.0, 0.0)
    cos, sin = np.cos(tilt), np.sin(tilt)
    return np.array([[cos, shear - sin], [sin, cos]]) * change.window[:1:-1]


def _tilt(clip: torch.Tensor, change: Change) -> torch.Tensor:
    """The window of a change in uint8 (C, T, H', W'), turned and slanted -> float (C, T, H, W)."""
    (top, left, h, w), (height, width) = change.window, clip.shape[2:]
    turn = turn_of(change) / np.array([[width], [height]])  # both -1 to 1
    middle = (2 * left + w) / width - 1, (2 * top + h) / height - 1
    matrix = torch.from_numpy(np.column_stack([turn, middle]).astype(np.float32))
    places = F.affine_grid(matrix[None], [1, 1, *change.size], align_corners=False)
    frames = clip.flatten(0, 1)[None].float()
    turned = F.grid_sample(frames, places, padding_mode="reflection", align_corners=False)
    return turned[0].unflatten(0, clip.shape[:2])


def _recolour(pixels: torch.Tensor, brightness: float, contrast: float, saturation: float) -> torch.Tensor:
    """float (C, T, H, W) -> the same. One multiply-add: saturation is a (C, C) matrix, contrast turns on the mean.

    Gray is the plain mean of the channels, so the order of the channels does not matter.
    """
    channels = pixels.shape[0]
    mixing = saturation * torch.eye(channels) + (1 - saturation) / channels
    mean = pixels.mean()
    offset = (brightness * (1 - contrast) * mean).expand(channels, 1)
    mixed = torch.addmm(offset, mixing * (brightness * contrast), pixels.reshape(channels, -1))
    return mixed.view_as(pixels)


def _recolour_together(pixels: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """`_recolour` of float (B, C, T, H, W) by factors (B, 3) of brightness, contrast and saturation."""
    channels = pixels.shape[1]
    brightness, contrast, saturation = (factor.view(-1, 1, 1) for factor in colours.unbind(1))
    mixing = saturation * torch.eye(channels, device=pixels.device) + (1 - saturation) / channels
    offset = brightness * (1 - contrast) * pixels.mean((1, 2, 3, 4)).view(-1, 1, 1)
    mixed = torch.baddbmm(offset, mixing * (brightness * contrast), pixels.flatten(2))
    return mixed.view_as(pixels)


def augment_sound(
    clip: torch.Tensor,
    *,
    rng: np.random.Generator,
    mel_share: float = 0.2,
    time_share: float = 0.2,
    roll_share: float = 0.1,
) -> torch.Tensor:
    """float (1, 1, mel, time), normalised -> the same shape: rolled in time, then one band of each axis masked.

    mel_share, time_share: the widest mask, as a share of its axis; roll_share: the longest roll, either way. Masked
    values are 0, the mean of the normalised data. The input is not written to.
    Source: SpecAugment, arXiv 1904.08779, section 2.

    Raises: ValueError where the clip is not floating or not (1, 1, mel, time), or a share is outside [0, 1].
    """
    if not clip.is_floating_point() or clip.ndim != 4 or clip.shape[:2] != (1, 1):
        raise ValueError(f"augment_sound: got {clip.dtype} {tuple(clip.shape)}, expected float (1, 1, mel, time)")
    if not all(0 <= share <= 1 for share in (mel_share, time_share, roll_share)):
        raise ValueError(f"augment_sound: shares {mel_share}, {time_share}, {roll_share}; expected 0 to 1")
    mel, time = clip.shape[2:]
    reach = int(roll_share * time)
    rolled = clip.roll(int(rng.integers(-reach, reach + 1)), dims=3)
    rolled[:, :, _random_band(mel, mel_share, rng)] = 0
    rolled[:, :, :, _random_band(time, time_share, rng)] = 0
    return rolled


def _random_band(length: int, share: float, rng: np.random.Generator) -> slice:
    width = int(rng.integers(int(share * length) + 1))
    start = int(rng.integers(length - width + 1))
    return slice(start, start + width)
