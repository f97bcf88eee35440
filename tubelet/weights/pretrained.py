"""Models by name, with fresh weights or with published ones."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from tubelet.nn import create
from tubelet.nn.config import ModelConfig
from tubelet.nn.grid import triple
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.weights.dialects.reference import read_reference, recognise
from tubelet.weights.dialects.resolve import resolve
from tubelet.weights.formats.open import read_foreign
from tubelet.weights.hub import fetch, is_on_hub
from tubelet.weights.init.from_image import init_from_image
from tubelet.weights.init.from_model import fill
from tubelet.weights.published import HUB, find_published
from tubelet.weights.store import open_model


def create_model(
    name: str,
    *,
    pretrained: str | os.PathLike[str] | None = None,
    clip: Sequence[int] | None = None,
    num_classes: int | None = None,
    channels: int = 3,
    embed: str | None = None,
    attend: str | None = None,
    position: str | None = None,
    pool: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> SpaceTimeTransformer:
    """A model by name, `family-size/patch[xtubelet]`, with fresh weights or with `pretrained` ones.

    >>> model = create_model("vivit2-B/16x2", clip=(32, 224, 224), num_classes=400)
    >>> model = create_model("siglip2-B/16", pretrained="hf-hub:google/siglip2-base-patch16-224", num_classes=10)

    The settings are those of `model_config`. Of weights, all settings are theirs but for `clip`, to which positions are
    resampled, and `num_classes`: another number than theirs gets a fresh head, none left out keeps what they have.

    Args:
        pretrained: a file or folder of tubelet's, or of another program with its config.json beside it; or, by
            "hf-hub:owner/name" or a name in `tubelet weights`, what the hub has: downloaded once, then from its cache.

    Raises:
        ValueError: unknown name (with the nearest ones), sizes that do not fit together, or weights that are not to be
            had, or of another model than the one named.
    """
    if pretrained is None:
        return create.create_model(
            name,
            clip=clip,
            num_classes=400 if num_classes is None else num_classes,
            channels=channels,
            embed=embed,
            attend=attend,
            position=position,
            pool=pool,
            mean=(0.5,) if mean is None else mean,
            std=(0.5,) if std is None else std,
        )
    given = {"embed": embed, "attend": attend, "position": position, "pool": pool, "mean": mean, "std": std}
    if told := [key for key, value in given.items() if value is not None]:
        raise ValueError(
            f"got {', '.join(told)} with pretrained={str(pretrained)!r}, whose own are taken: leave it out"
        )
    file = find_weights(pretrained)
    source, state = read_pretrained(file)
    named = create.model_config(name, channels=source.channels)
    if source.family == "vit" != named.family:  # a video model starts from an image ViT
        size = {"clip": clip, "num_classes": 400 if num_classes is None else num_classes}
        model = create.create_model(name, **size, mean=source.mean, std=source.std)  # type: ignore[arg-type]
        init_from_image(model, file)
        return model.eval()
    if create.format_name(named) != create.format_name(source):
        found = create.format_name(source)
        raise ValueError(f"{pretrained}: weights of {found}, not of {name}: ask for {found}, or give other weights")
    wanted = source.num_classes if num_classes is None else num_classes
    config = replace(source, clip=source.clip if clip is None else triple(clip, "clip"), num_classes=wanted)
    model = SpaceTimeTransformer(config)
    fill(model, source, state, what=str(pretrained), head=wanted == source.num_classes)
    return model.eval()


def find_weights(pretrained: str | os.PathLike[str]) -> Path:
    """The file or folder of weights. Raises ValueError for what is none, and what the hub does not give."""
    path, line = Path(pretrained), find_published(str(pretrained))
    if path.exists():
        return path
    if line is None and not is_on_hub(str(pretrained)):
        raise ValueError(
            f"{pretrained}: no such file, and no name of published weights: expected a file or folder, "
            f"{HUB}owner/name, or one of those that `tubelet weights` lists"
        )
    if line and not line.on_hub:
        raise ValueError(f"{pretrained}: a pickle, not on the hub: download it, then `tubelet convert --unsafe-pickle`")
    return fetch(str(pretrained))


def read_pretrained(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Settings and tensors of weights of ours, or of another program as ours. Raises ValueError for what is neither."""
    try:
        file = open_model(path)
    except ValueError:
        foreign = read_foreign(path)
        model = read_reference(resolve(foreign, recognise(foreign.state), None, {})).model
        return model.config, model.state_dict()
    return file.config(), file.tensors()
