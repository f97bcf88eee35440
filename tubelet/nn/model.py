"""The one place that puts a model together."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from tubelet.nn.build import make_embed
from tubelet.nn.config import ModelConfig
from tubelet.nn.embed import check_clip, normalise
from tubelet.nn.encoder import AnyEncoder, Encoder, grid_after, make_features, run_encoders, step_tokens
from tubelet.nn.grid import Grid, Size3, triple
from tubelet.nn.init import init_weights
from tubelet.nn.packing import each_size
from tubelet.nn.swin import SwinEncoder


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
        self.embed = make_embed(config)
        self.input_size: Size3 = c.clip
        self.regularisation: dict[str, Any] = {}  # what `regularise` has set
        self.encoders = nn.ModuleList()
        grid, width = self.grid(c.clip), c.stages[0].in_dim
        for i, stage in enumerate(c.stages):
            if stage.in_dim != width:
                raise ValueError(
                    f"the encoder before stage {i} gives tokens of width {width}, stage {i} takes {stage.in_dim}: make "
                    f"them equal (pool='cls,dist' makes two tokens of one)"
                )
            encoder = SwinEncoder(stage, grid) if stage.kind == "windows" else Encoder(stage, grid)
            self.encoders.append(encoder)
            grid, width = grid_after(self.stack[i], grid), encoder.out_dim
        if not self.stack[-1].pools:
            raise ValueError("the last encoder has pool='none', and its tokens are what is classified: choose another")
        self.head = make_head(width, c.num_classes)
        self.set_statistics(c.mean, c.std)
        init_weights(self, self.head)

    @property
    def stack(self) -> Sequence[AnyEncoder]:
        """The encoders in order, typed."""
        return cast(Sequence[AnyEncoder], self.encoders)

    def set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Takes mean and std of pixels in [0, 1] for uint8 clips, one for all channels, or one for each."""
        channels, like = self.config.channels, next(self.parameters())
        self.register_buffer("mean", per_channel(mean, channels, "mean").to(like), persistent=False)
        self.register_buffer("std", per_channel(std, channels, "std").to(like), persistent=False)
        self.config = replace(self.config, mean=tuple(mean), std=tuple(std))

    def grid(self, clip: Sequence[int]) -> Grid:
        """The token grid of a clip of (T, H, W). Raises ValueError where whole tubelets do not fill it."""
        return self.embed.grid(triple(clip, "clip"))

    def set_input_size(self, clip: Sequence[int]) -> None:
        """Declares the (T, H, W) that the model will be given. Lossless: no parameter changes, positions are resampled
        from their source grid at every size, so an optimizer goes on as it is."""
        self.grid(clip)
        self.input_size = triple(clip, "clip")

    def normalise(self, clip: Tensor) -> Tensor:
        """uint8 (normalised here, with the model's mean and std) or float (normalised already) -> the model's dtype."""
        check_clip(clip, self.config.channels)
        if clip.dtype == torch.uint8:
            return normalise(clip, self.mean, self.std)
        if not clip.is_floating_point():
            raise ValueError(f"got a clip of {clip.dtype}, expected float (normalised) or uint8 (0 to 255): convert it")
        return clip.to(self.mean.dtype)

    def embed_clip(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """The clip's tokens before the first encoder, (B, N, D), Grid."""
        check_clip(clip, self.config.channels)
        if clip.dtype == torch.uint8:
            return self.embed.embed_bytes(clip, self.mean, self.std)
        return self.embed(self.normalise(clip))

    def tokens(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Space-time tokens of the first encoder that pools, (B, P + N, D), Grid; prefix tokens first, then t-, h-,
        w-major.

        Swin's are those of its last level, on the grid of that level.
        """
        *before, last = self.stack[: self.first_pooled + 1]
        return last.tokens(*run_encoders(before, *self.embed_clip(clip)))

    def features(self, clip: Tensor | Sequence[Tensor]) -> Tensor:
        """(B, C, T, H, W) -> (B, D): what the head classifies. Or B clips (C, T, H, W), each of a size of its own."""
        if not isinstance(clip, Tensor):
            return each_size(self.features, clip)
        return make_features(self.stack, *self.embed_clip(clip))

    def step_features(self, clip: Tensor | Sequence[Tensor]) -> Tensor:
        """(B, C, T, H, W) -> (B, t, D): at each step in time what `features` is the mean of.

        Raises ValueError for a model whose last encoder does not pool by the mean, and for clips of several sizes.
        """
        if not pools_by_mean(self.config) or not isinstance(clip, Tensor):
            raise ValueError("only of a model that pools by the mean, and of clips of one size, steps can be had")
        return step_tokens(self.stack, *self.embed_clip(clip)).mean((2, 3))

    def forward(self, clip: Tensor | Sequence[Tensor], *, each_step: bool = False) -> Tensor:
        """each_step: the logits at each step in time, (B, t, classes), whose mean is the answer for the clip."""
        return self.head(self.step_features(clip) if each_step else self.features(clip))

    def block_features(self, clip: Tensor, blocks: Sequence[int] | None = None) -> list[Tensor]:
        """What chosen blocks of the first encoder make of a clip, each on its grid: (B, t, h, w, D), without prefix.

        blocks: by number, -1 is the last; all if left out. Swin's grid halves from level to level.

        Raises ValueError for a block that there is not.
        """
        encoder = self.stack[0]
        chosen = find_blocks(len(encoder.blocks), blocks)
        made: dict[int, Tensor] = {}

        def keep(number: int) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
            def hook(_: nn.Module, given: tuple[Any, ...], tokens: Tensor) -> None:
                grid = given[1] if isinstance(given[1], Grid) else given[1].grid
                made[number] = tokens[:, tokens.shape[1] - grid.size :].unflatten(1, tuple(grid))

            return hook

        hooks = [encoder.blocks[number].register_forward_hook(keep(number)) for number in {*chosen}]
        try:
            tokens, grid = self.embed_clip(clip)
            encoder.tokens(tokens, grid)
        finally:
            for hook in hooks:
                hook.remove()
        return [made[number].reshape(len(clip), -1, *made[number].shape[2:]) for number in chosen]

    def level_features(self, clip: Tensor) -> list[Tensor]:
        """What the levels of the first encoder make of a clip, the earliest first, each normed: (B, t, h, w, D).

        Of a model without `levels`, that of its last block.
        Source: arXiv 2603.14482 (V-JEPA 2.1).
        """
        encoder = self.stack[0]
        if not isinstance(encoder, Encoder):
            raise ValueError(f"a {self.config.family} model has no levels that are answers: take block_features")
        norms, levels = [*encoder.level_norms, encoder.norm], encoder.levels or (-1,)
        return [norm(x) for norm, x in zip(norms, self.block_features(clip, levels), strict=True)]

    @property
    def first_pooled(self) -> int:
        """The number of the first encoder that makes one token of each sequence."""
        return next(i for i, encoder in enumerate(self.stack) if encoder.pools)

    @property
    def num_features(self) -> int:
        """The width of `features`."""
        return self.stack[-1].out_dim

    def reset_head(self, num_classes: int) -> None:
        """A fresh head for other classes; 0 for none. Everything else stays as it is.

        Raises ValueError for fewer than 0.
        """
        head = make_head(self.num_features, num_classes)
        init_weights(head, head)
        self.head = head.to(next(self.parameters()))
        self.config = replace(self.config, num_classes=num_classes)

    # timm's names for people who know it: beside our own, nothing more

    def reset_classifier(self, num_classes: int) -> None:
        """`reset_head`."""
        self.reset_head(num_classes)

    def forward_features(self, clip: Tensor) -> Tensor:
        """The tokens of the last encoder, (B, P + N, D): what `forward_head` pools.

        Raises ValueError for a model whose last encoder looks at parts of the clip, such as its frames, one by one.
        """
        tokens, grid = run_encoders(self.stack[:-1], *self.embed_clip(clip))
        last = self.stack[-1]
        if grid.across(last.over).size > 1:
            raise ValueError("the last encoder sees parts of the clip one by one: take `features`, the mean over them")
        return last.tokens(tokens, grid)[0]

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """The tokens of `forward_features` -> logits, or with `pre_logits` what the head classifies."""
        last = self.stack[-1]
        pooled = last.pool(tokens) if isinstance(last, Encoder) else tokens.mean(1, keepdim=True)
        return pooled.mean(1) if pre_logits else self.head(pooled.mean(1))


def make_head(width: int, num_classes: int) -> nn.Module:
    """The last layer, (B, width) -> (B, classes); of no classes, what it is given. Raises ValueError for fewer."""
    if num_classes < 0:
        raise ValueError(f"got num_classes={num_classes}, expected at least 1, or 0 for a model without head")
    return nn.Linear(width, num_classes) if num_classes else nn.Identity()


def find_blocks(count: int, blocks: Sequence[int] | None) -> list[int]:
    """Numbers of blocks, counted from 0. Raises ValueError for one that there is not."""
    chosen = list(range(count) if blocks is None else blocks)
    if wrong := [number for number in chosen if not -count <= number < count]:
        raise ValueError(f"got blocks={chosen}, the first encoder has blocks 0 to {count - 1}: no {wrong[0]}")
    return [number % count for number in chosen]


def pools_by_mean(config: ModelConfig) -> bool:
    """Whether a model's answer for a clip is the mean of its answers at each step in time."""
    stage = config.stages[-1]
    return stage.kind == "windows" or (stage.pool == "mean" and stage.norm not in ("pooled", "both"))


def per_channel(values: Sequence[float], channels: int, what: str) -> Tensor:
    """Raises ValueError unless there is one value for all channels, or one for each; std must be positive."""
    if len(values) not in (1, channels) or (what == "std" and min(values) <= 0):
        raise ValueError(
            f"got {what}={tuple(values)} for {channels} channels, expected one number or one for each"
            + (", all above 0" if what == "std" else "")
        )
    return torch.tensor([float(value) for value in values])
