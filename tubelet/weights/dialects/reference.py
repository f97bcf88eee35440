"""From the weights of a reference program to our model, and back: each dialect says once what corresponds."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from tubelet.nn.config import ModelConfig
from tubelet.nn.grid import triple
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.weights.dialects import (
    audiomae,
    huggingface,
    metatransformer,
    scenic,
    timesformer,
    timm,
    timm_swin,
    vjepa2,
)
from tubelet.weights.dialects.rename import Array, Link, Move, Theirs, Told, wrapper_of
from tubelet.weights.store import load_strict


@dataclass(frozen=True)
class Dialect:
    """marks: of these names the weights have one, and none of those before it in DIALECTS; config: the model they are
    for; says: raises where the dialect has no words for a model; tie: what corresponds to what."""

    marks: tuple[str, ...]
    config: Callable[[Theirs, Told], ModelConfig]
    says: Callable[[ModelConfig], None]
    tie: Callable[[Link, ModelConfig], None]


def timm_config(theirs: Theirs, told: Told) -> ModelConfig:
    return (timm_swin if theirs.root("stages.") else timm).config(theirs, told)


def timm_says(config: ModelConfig) -> None:
    (timm_swin if config.family == "swin2" else timm).says(config)


def timm_tie(link: Link, config: ModelConfig) -> None:
    (timm_swin if config.family == "swin2" else timm).tie(link, config)


HF = huggingface
# In the order in which `recognise` looks. Hugging Face's models without a head have no prefix before their names; those
# of image models are the same then, and refused by the shape of their kernel.
DIALECTS = {
    "scenic": Dialect(("embedding/kernel",), scenic.config, scenic.says, scenic.tie),
    "timesformer": Dialect(("time_embed",), *timesformer.original),
    "hf-timesformer": Dialect(
        ("timesformer.embeddings.cls_token", "encoder.layer.0.attention.attention.qkv.weight"),
        *timesformer.hugging_face,
    ),
    "hf-ast": Dialect(
        ("audio_spectrogram_transformer.embeddings.cls_token", "embeddings.distillation_token"),
        *(HF.ast_config, HF.ast_says, HF.ast_tie),
    ),
    "hf-vivit": Dialect(
        ("vivit.embeddings.cls_token", "embeddings.cls_token"),
        *(HF.vivit_config, HF.vivit_says, HF.vivit_tie),
    ),
    "hf-videomae": Dialect(
        tuple(f"{root}embeddings.patch_embeddings.projection.weight" for root in ("videomae.", "")),
        *(HF.videomae_config, HF.videomae_says, HF.videomae_tie),
    ),
    "hf-vjepa2": Dialect(
        tuple(f"{root}encoder.embeddings.patch_embeddings.proj.weight" for root in ("vjepa2.", "")),
        *(vjepa2.config, vjepa2.says, vjepa2.tie),
    ),
    "timm": Dialect(("patch_embed.proj.weight",), timm_config, timm_says, timm_tie),
    "metatransformer": Dialect(
        ("0.attn.qkv.weight",), *(metatransformer.config, metatransformer.says, metatransformer.tie)
    ),
    "audiomae": Dialect((), audiomae.config, audiomae.says, audiomae.tie),  # timm's names: to be asked for
}


@dataclass(frozen=True)
class Taken:
    """A model made from foreign weights, ready to run (eval mode), and the account of their tensors."""

    model: SpaceTimeTransformer
    moves: list[Move]


def recognise(names: Collection[str]) -> str:
    """The dialect that tensors of these names are in.

    Raises:
        ValueError: none that we know.
    """
    wrapper = wrapper_of(names)
    for name, dialect in DIALECTS.items():
        if any(wrapper + mark in names for mark in dialect.marks):
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
) -> SpaceTimeTransformer:
    """Our model with the weights of a reference program, ready to run (eval mode).

    Args:
        state: name -> tensor or array, as the original stores it.
        dialect: "timm" (ViT, DeiT, DINOv2, registers, hybrids, Swin v2 CR), "scenic" (ViViT 1 to 4), "timesformer" (the
            original's), "hf-vivit", "hf-timesformer", "hf-videomae", "hf-vjepa2", "hf-ast" (Hugging Face's),
            "metatransformer", or "audiomae" (timm's names; its rows are time, ours mel).
        heads: attention heads, which weights cannot tell; for Swin, those of each stage.
        clip: the (T, H, W) the weights are made for, (1, mel, time) for sound.
        family: for scenic without class token, whose Models 1 and 4 look alike: "vivit1" or "vivit4".
        attend: order of scenic's Model 3, "hw,t" (the paper's) or "t,hw".
        frames: uniform frame sampling: frames embedded of each clip.
        stride: (frames, px, px) between patches, where they overlap.
        window: Swin's, (1, h, w) in tokens.

    Raises:
        ValueError: unknown dialect; a tensor that is missing, left over, or of a shape that does not fit.
    """
    settings = {"family": family, "attend": attend, "frames": frames, "stride": stride, "window": window}
    return read_reference(state, dialect, heads=heads, clip=clip, **settings).model  # type: ignore[arg-type]


def read_reference(
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
) -> Taken:
    """As `from_reference`, with the account of what became of each tensor."""
    told = Told(
        heads=heads if isinstance(heads, int) else tuple(heads),
        clip=triple(clip, "clip"),
        family=family,
        attend=attend,
        frames=frames,
        stride=None if stride is None else triple(stride, "stride"),
        window=None if window is None else triple(window, "window"),
    )
    spoken, theirs = dialect_of(dialect), Theirs(state)
    config = spoken.config(theirs, told)
    link = Link(theirs.tensors, reading=True)
    spoken.tie(link, config)
    tensors = link.finish(dialect)
    model = SpaceTimeTransformer(config)
    fresh = {} if dialect != "metatransformer" else {n: t for n, t in model.state_dict().items() if "encoders" not in n}
    load_strict(model, {**fresh, **tensors}, what=f"{dialect} weights")
    return Taken(model.eval(), link.moves)


def to_reference(model: SpaceTimeTransformer, dialect: str) -> dict[str, Tensor]:
    """The model's weights under the names of a reference program, which gives the same answers with them.

    Raises:
        ValueError: unknown dialect, or one that has no words for this model.
    """
    spoken = dialect_of(dialect)
    spoken.says(model.config)
    link = Link({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, reading=False)
    spoken.tie(link, model.config)
    return {name: tensor.clone() for name, tensor in link.finish(dialect).items()}  # none shares memory


def dialect_of(name: str) -> Dialect:
    if name not in DIALECTS:
        raise ValueError(f"unknown dialect {name!r}: expected one of {', '.join(DIALECTS)}")
    return DIALECTS[name]
