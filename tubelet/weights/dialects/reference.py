"""From the weights of a reference program to our model, and back. A dialect is one file, and its name in DIALECTS."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from tubelet.nn.config import ModelConfig
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.weights.dialects.audiomae import AUDIOMAE
from tubelet.weights.dialects.dialect import Dialect
from tubelet.weights.dialects.dinov3 import HF_DINOV3
from tubelet.weights.dialects.hf_videoprism import HF_VIDEOPRISM
from tubelet.weights.dialects.huggingface import HF_AST, HF_VIDEOMAE, HF_VIVIT
from tubelet.weights.dialects.metatransformer import METATRANSFORMER
from tubelet.weights.dialects.pe import PE_CORE
from tubelet.weights.dialects.pe_video import HF_PE_VIDEO
from tubelet.weights.dialects.rename import Array, ForeignState, Link, Move, find_wrapper
from tubelet.weights.dialects.scenic import SCENIC
from tubelet.weights.dialects.settings import Given, Settings, check_published
from tubelet.weights.dialects.siglip2 import HF_SIGLIP2
from tubelet.weights.dialects.timesformer import HF_TIMESFORMER, TIMESFORMER
from tubelet.weights.dialects.timm import TIMM
from tubelet.weights.dialects.videoprism import VIDEOPRISM
from tubelet.weights.dialects.vjepa2 import HF_VJEPA2
from tubelet.weights.dialects.vjepa21 import VJEPA21
from tubelet.weights.store import load_strict

# In the order in which `recognise` looks. Hugging Face's models without a head have no prefix before their names; those
# of image models are the same then, and refused by the shape of their kernel.
DIALECTS = {
    dialect.name: dialect
    for dialect in (
        *(SCENIC, TIMESFORMER, HF_TIMESFORMER, HF_AST, HF_DINOV3, HF_VIVIT, HF_VIDEOMAE, HF_VJEPA2, VJEPA21),
        *(VIDEOPRISM, HF_VIDEOPRISM, HF_SIGLIP2),
        *(PE_CORE, HF_PE_VIDEO, TIMM, METATRANSFORMER, AUDIOMAE),
    )
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights of another program, with all that must be known to make the model they are for."""

    state: Mapping[str, Array]
    dialect: Dialect
    given: Given
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class Conversion:
    """A model made from foreign weights, ready to run (eval mode), and the account of their tensors."""

    model: SpaceTimeTransformer
    moves: list[Move]


def recognise(names: Collection[str]) -> str:
    """The dialect that tensors of these names are in. Raises ValueError: none that we know."""
    wrapper = find_wrapper(names)
    for name, dialect in DIALECTS.items():
        if any(wrapper + mark in names for mark in dialect.fingerprint):
            return name
    some = ", ".join(sorted(names)[:6])
    raise ValueError(f"tensors of no dialect we know (they begin with {some}): expected one of {', '.join(DIALECTS)}")


def from_reference(
    state: Mapping[str, Array],
    dialect: str,
    *,
    heads: int | Sequence[int],
    clip: Sequence[int],
    family: str | None = None,
    attend: str | None = None,
    frames: int | None = None,
    stride: Sequence[int] | None = None,
    window: Sequence[int] | None = None,
    gelu: str | None = None,
) -> SpaceTimeTransformer:
    """Our model with the weights of a reference program, ready to run (eval mode).

    Args:
        state: name -> tensor or array, as the original stores it.
        dialect: "timm" (ViT, DeiT, DINOv2, registers, hybrids, Swin v2 CR, DINOv3, SigLIP 2), "scenic" (ViViT 1 to 4),
            "timesformer" (the original's), "hf-vivit", "hf-timesformer", "hf-videomae", "hf-vjepa2", "hf-ast",
            "hf-videoprism", "hf-dinov3", "hf-siglip2" (Hugging Face's), "vjepa21" (Meta's), "videoprism" (DeepMind's),
            "pe-core" (Meta's Perception Encoder; timm's is "timm"), "hf-pe-video" (PE-AV's video encoder),
            "metatransformer", or "audiomae" (timm's names; its rows are time, ours mel).
        heads: attention heads, which weights cannot tell; for Swin, those of each stage; for Perception Encoder also
            those of the blocks, then of pooling, where these are not 8.
        clip: the (T, H, W) the weights are made for, (1, mel, time) for sound.
        family: for scenic without class token, whose Models 1 and 4 look alike: "vivit1" or "vivit4".
        attend: order of scenic's Model 3, "hw,t" (the paper's) or "t,hw".
        frames: uniform frame sampling: frames embedded of each clip.
        stride: (frames, px, px) between patches, where they overlap.
        window: Swin's, (1, h, w) in tokens.
        gelu: of timm's SigLIPs of sizes that are not published: "erf" (exact), or "tanh" (JAX's).

    Raises:
        ValueError: unknown dialect; a tensor that is missing, left over, or of a shape that does not fit.
    """
    sizes: dict[str, Any] = {"heads": heads, "clip": clip, "stride": stride, "window": window}
    given = Given(family=family, attend=attend, frames=frames, gelu=gelu, **sizes)
    return read_reference(Source(state=state, dialect=find_dialect(dialect), given=given)).model


def read_reference(source: Source) -> Conversion:
    """The model of a source, in eval mode, and the account of its tensors.

    Raises:
        ValueError: settings of another model; a tensor that is missing, left over, or of a shape that does not fit.
    """
    dialect, settings, theirs = source.dialect, source.settings, ForeignState(source.state)
    config = dialect.config(theirs, source.given)
    check_layers(config, settings, source.given)
    if settings.mean and settings.std:
        config = replace(config, mean=settings.mean, std=settings.std)
    link = Link(theirs.tensors, reading=True)
    dialect.map_tensors(link, config)
    tensors = link.finish(dialect.name)
    model = SpaceTimeTransformer(config)
    fresh = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(dialect.fresh)}
    load_strict(model, {**fresh, **tensors}, what=f"{dialect.name} weights")
    return Conversion(model.eval(), link.moves)


def check_layers(config: ModelConfig, settings: Settings, given: Given) -> None:
    """Raises ValueError where the layers of a model are not those that its settings ask for, or a person."""
    first = config.stages[0]
    gelu = first.gelu if first.kind == "blocks" else "erf"
    check_published("layer_norm_eps", settings.eps, first.eps)
    check_published("hidden_act", settings.gelu, gelu)
    given.agree(gelu=gelu)


def to_reference(model: SpaceTimeTransformer, dialect: str) -> dict[str, Tensor]:
    """The model's weights under the names of a reference program, which gives the same answers with them.

    Raises:
        ValueError: unknown dialect, or one that has no words for this model.
    """
    spoken = find_dialect(dialect)
    spoken.check_supported(model.config)
    link = Link({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, reading=False)
    spoken.map_tensors(link, model.config)
    return {name: tensor.clone() for name, tensor in link.finish(dialect).items()}  # none shares memory


def find_dialect(name: str) -> Dialect:
    if name not in DIALECTS:
        raise ValueError(f"unknown dialect {name!r}: expected one of {', '.join(DIALECTS)}")
    return DIALECTS[name]
