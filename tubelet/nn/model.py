"""The one place that puts a model together."""

from collections.abc import Callable, Sequence
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.build import make_embed, make_encoder
from tubelet.nn.config import ModelConfig, stages_of
from tubelet.nn.embed import TubeletEmbed, check_clip, normalise
from tubelet.nn.encoder import Encoder
from tubelet.nn.grid import Grid, Size3, triple, whole
from tubelet.nn.init import init_weights


class SpaceTimeTransformer(nn.Module):
    """Embeds a clip, runs its encoders in turn, classifies: (B, C, T, H, W) -> (B, classes).

    Clips are float, already normalised, or uint8, normalised here with the model's own mean and std. Any (T, H, W)
    that whole tubelets fill will do: position tables are resampled from the size they were made for. With pad="mean"
    every size will do: what is missing to whole tubelets, at the end of each axis, gets the mean colour.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        c = self.config = config
        if c.num_classes < 0:
            raise ValueError(f"got num_classes={c.num_classes}, expected at least 1, or 0 for a model without head")
        if c.pad not in (None, "mean"):
            raise ValueError(f"unknown pad {c.pad!r}: expected 'mean', or None: a size must be whole tubelets")
        self.embed = make_embed(config)
        self.input_size: Size3 = c.clip
        grid = self.grid(c.clip)
        self.encoders = nn.ModuleList(make_encoder(c, stage, grid) for stage in stages_of(c))
        if any(encoder.out_dim != c.dim for encoder in self.encoders[:-1]):
            raise ValueError(f"pool={c.pool!r} makes two tokens of a frame, its next encoder takes one: use 'cls+dist'")
        self.head: nn.Linear | nn.Identity = nn.Identity()
        if c.num_classes:
            self.head = nn.Linear(self.encoders[-1].out_dim, c.num_classes)  # type: ignore[arg-type]  # an int
        self.register_buffer("mean", per_channel(c.mean, c.channels, "mean"), persistent=False)
        self.register_buffer("std", per_channel(c.std, c.channels, "std"), persistent=False)
        init_weights(self, self.head)

    def grid(self, clip: Sequence[int]) -> Grid:
        """The token grid of a clip of (T, H, W). Raises ValueError where whole tubelets do not fill it."""
        return self.embed.grid(self.padded_size(clip))

    def padded_size(self, clip: Sequence[int]) -> Size3:
        """(T, H, W) -> the same, or, with pad="mean", the next size that whole tubelets fill."""
        size = triple(clip, "clip")
        return size if self.config.pad is None else whole(size, self.embed.patch, self.embed.stride)

    def set_input_size(self, clip: Sequence[int]) -> None:
        """Declares the (T, H, W) that the model will be given. Lossless: no parameter changes, positions are resampled
        from their source grid at every size, so an optimizer goes on as it is."""
        self.grid(clip)
        self.input_size = triple(clip, "clip")

    def normalised(self, clip: Tensor) -> Tensor:
        """uint8 (normalised here, with the model's mean and std) or float (normalised already) -> the model's dtype."""
        check_clip(clip, self.config.channels)
        if clip.dtype == torch.uint8:
            return normalise(clip, self.mean, self.std)
        if not clip.is_floating_point():
            raise ValueError(f"got a clip of {clip.dtype}, expected float (normalised) or uint8 (0 to 255): convert it")
        return clip.to(self.mean.dtype)

    def embedded(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """The clip's tokens before the first encoder, (B, N, D), Grid."""
        check_clip(clip, self.config.channels)
        t, h, w = clip.shape[2:]
        to_t, to_h, to_w = self.padded_size((t, h, w))
        whole_tubelets = (to_t, to_h, to_w) == (t, h, w)
        if clip.dtype == torch.uint8 and whole_tubelets and takes_bytes(self.embed):
            return self.embed.embed_bytes(clip, self.mean, self.std)
        clip = self.normalised(clip)
        if not whole_tubelets:
            clip = F.pad(clip, (0, to_w - w, 0, to_h - h, 0, to_t - t))  # 0 is the mean colour of a normalised clip
        return self.embed(clip)

    def tokens(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Space-time tokens of the first encoder, (B, P + N, D), Grid; prefix tokens first, then t-, h-, w-major.

        Swin's are those of its last stage, on the grid of that stage.
        """
        first = self.encoders[0]
        return first.tokens(*self.embedded(clip)) if isinstance(first, Encoder) else first(*self.embedded(clip))

    def features(self, clip: Tensor | Sequence[Tensor]) -> Tensor:
        """(B, C, T, H, W) -> (B, D): what the head classifies. Or B clips (C, T, H, W), each of a size of its own."""
        if not isinstance(clip, Tensor):
            return each_size(self.features, clip)
        x, grid = self.embedded(clip)
        for encoder in self.encoders:
            x, grid = encoder(x, grid)
        return x.mean(1)

    def forward(self, clip: Tensor | Sequence[Tensor]) -> Tensor:
        return self.head(self.features(clip))


def each_size(run: Callable[[Tensor], Tensor], clips: Sequence[Tensor]) -> Tensor:
    """Runs clips (C, T, H, W) of several sizes, those of one size together: nothing is padded, so nothing is masked."""
    places: dict[torch.Size, list[int]] = {}
    for i, clip in enumerate(clips):
        places.setdefault(clip.shape, []).append(i)
    rows: dict[int, Tensor] = {}
    for same in places.values():
        rows |= dict(zip(same, run(torch.stack([clips[i] for i in same])), strict=True))
    if not rows:
        raise ValueError("got no clips, expected a tensor (B, C, T, H, W) or a list of at least one clip (C, T, H, W)")
    return torch.stack([rows[i] for i in range(len(clips))])


def takes_bytes(embed: nn.Module) -> TypeGuard[TubeletEmbed]:
    return isinstance(embed, TubeletEmbed) and embed.stride == embed.patch


def per_channel(values: Sequence[float], channels: int, what: str) -> Tensor:
    """Raises ValueError unless there is one value for all channels, or one for each; std must be positive."""
    if len(values) not in (1, channels) or (what == "std" and min(values) <= 0):
        raise ValueError(
            f"got {what}={tuple(values)} for {channels} channels, expected one number or one for each"
            + (", all above 0" if what == "std" else "")
        )
    return torch.tensor([float(value) for value in values])
