"""A model that is known becomes the first part of another: of one of videos, of one with a probe of its tokens."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tubelet.nn.config import ModelConfig, Stage

FRAMES = 8  # of a video that an encoder of pictures is first given
TEMPORAL_BLOCKS = 4  # as in ViViT's factorised encoder


def see_frames(config: ModelConfig) -> ModelConfig:
    """An encoder of pictures sees each frame of a video; an encoder along time, a fresh one, puts them together.

    Source: arXiv 2103.15691, section 3.3, model 2.

    Raises ValueError for an encoder that cannot see frames one by one: of several stages, in windows, or of positions
    that are made for all axes.
    """
    (first, *others) = config.stages
    bound = first.kind == "windows" or (first.over != "hw" and not first.tables)
    if others or bound or config.embed.patch[0] > 1:
        raise ValueError(f"a {config.family} model of pictures cannot see the frames of a video one by one")
    assert first.kind == "blocks"
    first = replace(first, over="hw")
    last = Stage(
        dim=first.dim, depth=TEMPORAL_BLOCKS, heads=first.heads, mlp_dim=4 * first.dim, over="t", tables=("t",)
    )
    return replace(config, stages=(first, last), clip=(FRAMES, *config.clip[1:]))


def add_probe(config: ModelConfig) -> ModelConfig:
    """In the place of the first pooling a fresh attentive probe looks at all the tokens; what comes after it stays.

    Source: arXiv 2404.08471, section 3.2 (V-JEPA).

    Raises ValueError for an encoder in windows, or where the first pooling is such a probe already.
    """
    number = next(i for i, stage in enumerate(config.stages) if stage.kind == "windows" or stage.pool != "none")
    stage = config.stages[number]
    if stage.kind == "windows" or (stage.pool == "attentive" and not stage.depth):
        raise ValueError(f"a {config.family} model gives a fresh probe no tokens: leave --pool out")
    after = config.stages[number + 1 :]
    over = "hw" if stage.over == "hw" and after else "thw"
    same: dict[str, Any] = {"dim": stage.dim, "heads": stage.heads, "mlp_dim": 4 * stage.dim, "eps": stage.eps}
    probe = Stage(**same, depth=0, over=over, prefix=0, pool="attentive", pool_depth=0, norm="none")
    norm = {"pooled": "none", "both": "tokens"}.get(stage.norm, stage.norm)
    return replace(config, stages=(*config.stages[:number], replace(stage, pool="none", norm=norm), probe, *after))


def list_grown(config: ModelConfig) -> list[ModelConfig]:
    """All that a model may be made the first part of."""
    ways: list[Callable[[ModelConfig], ModelConfig]] = [see_frames, add_probe, lambda one: add_probe(see_frames(one))]
    grown = []
    for grow in ways:
        with suppress(ValueError):
            grown.append(grow(config))
    return grown
