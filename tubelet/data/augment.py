"""Random changes that keep the label, or change it with the clip: one draw for all frames, so motion stays motion."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


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
    want_flip, want_reverse = rng.random(2) < 0.5
    top, left, h, w = _random_window(clip, size, augmentation, rng)
    colour = rng.uniform(1 - augmentation.colour, 1 + augmentation.colour, 3)
    tilt, shear = rng.uniform(-1, 1, 2) * (np.radians(augmentation.tilt_degrees), augmentation.shear)
    window = clip[:, :, top : top + h, left : left + w]
    if augmentation.tilt_degrees or augmentation.shear:
        window = _tilt(clip, (top, left, h, w), size, tilt=tilt, shear=shear)

    mirrored = bool(flip and augmentation.flip and want_flip)
    backwards = bool(reverse and augmentation.reverse and want_reverse and clip.shape[1] > 1)
    window = window.flip(3) if mirrored else window
    window = window.flip(1) if backwards else window

    if window.shape[2:] == size and augmentation.colour == 0 and window.dtype == clip.dtype:
        return window.contiguous(), mirrored, backwards
    pixels = window.float()
    if window.shape[2:] != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
    if augmentation.colour > 0:
        pixels = _recolour(pixels, *colour)
    return pixels.round_().clamp_(0, 255).to(torch.uint8), mirrored, backwards


def _random_window(
    clip: torch.Tensor, size: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width: `scale` of the largest window of the drawn shape, placed evenly at random."""
    share = rng.uniform(*augmentation.scale)
    stretch = np.exp(rng.uniform(*np.log(augmentation.aspect)))
    aspect = stretch * size[1] / size[0]
    height, width = clip.shape[2:]
    # Measured against the largest window that fits, any drawn shape and share fit: no rejected draws, no fallback.
    window_h = min(height, width / aspect) * share**0.5
    h, w = min(height, max(1, round(window_h))), min(width, max(1, round(window_h * aspect)))
    return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


def _tilt(
    clip: torch.Tensor, window: tuple[int, int, int, int], size: tuple[int, int], *, tilt: float, shear: float
) -> torch.Tensor:
    """A window of uint8 (C, T, H', W'), turned about its middle by radians and slanted -> float (C, T, H, W)."""
    top, left, h, w = window
    height, width = clip.shape[2:]
    cos, sin = np.cos(tilt), np.sin(tilt)
    # from the window, -1 to 1, to px, turned, and to the frame, -1 to 1
    turn = np.array([[cos, shear - sin], [sin, cos]]) * (w, h) / np.array([[width], [height]])
    middle = (2 * left + w) / width - 1, (2 * top + h) / height - 1
    matrix = torch.from_numpy(np.column_stack([turn, middle]).astype(np.float32))
    places = F.affine_grid(matrix[None], [1, 1, *size], align_corners=False)
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
