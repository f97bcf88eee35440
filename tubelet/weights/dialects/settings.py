"""Settings that tensors cannot tell: given by a person, or said by the JSON files beside them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from tubelet.nn.grid import Size3, triple
from tubelet.system.text import is_count, is_number

Json = dict[str, Any]

GELU = {"gelu": "erf", "gelu_python": "erf"}
GELU |= dict.fromkeys(("gelu_fast", "gelu_new", "gelu_pytorch_tanh", "gelu_tanh"), "tanh")


@dataclass(frozen=True, kw_only=True)
class Given:
    """The settings that a person gives for a model, beside its tensors; see `from_reference`."""

    heads: int | tuple[int, ...]
    clip: Size3
    family: str | None = None
    attend: str | None = None
    frames: int | None = None
    stride: Size3 | None = None
    window: Size3 | None = None
    gelu: str | None = None

    def __post_init__(self) -> None:
        """Makes tuples of other sequences. Raises ValueError unless clip, stride and window are sizes (T, H, W)."""
        if not isinstance(self.heads, int):
            object.__setattr__(self, "heads", tuple(self.heads))
        for name in ("clip", "stride", "window"):
            if (size := getattr(self, name)) is not None:
                object.__setattr__(self, name, triple(size, name))

    def agree(self, **found: object) -> None:
        """Raises ValueError where something else was given than the weights themselves say."""
        for name, value in found.items():
            given = getattr(self, name)
            if given is not None and given != value:
                raise ValueError(f"got {name}={given!r}, but the weights say {value!r}: leave {name} out")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that files beside weights say, of a model and of its input; None: not said.

    heads, clip, stride, window: as for `from_reference`.
    classes: names, in the order of the outputs.
    mean, std: one number for each channel, of pixels in [0, 1]; sound: of log-mel values.
    crop_share: side of the crop for each side of the resized picture.
    sample_rate: samples of sound per second.
    eps, gelu: of the layers; gelu as we call it.
    licence: of these weights.
    """

    heads: int | tuple[int, ...] | None = None
    clip: Size3 | None = None
    stride: Size3 | None = None
    window: Size3 | None = None
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_share: float | None = None
    sample_rate: int | None = None
    eps: float | None = None
    gelu: str | None = None
    licence: str | None = None


def video_settings(
    model_type: str, config: Json, preprocessor: Json, *, frames: str = "num_frames", size: str = "image_size"
) -> Settings:
    """Settings of a video model; `frames` and `size` are what config.json calls those of its clip.

    Raises:
        ValueError: the files are of another model, or a value is of the wrong kind.
    """
    return replace(
        layer_settings(model_type, config),
        clip=join(count(config, frames), *pair(config, size)),
        mean=numbers(preprocessor, "image_mean"),
        std=numbers(preprocessor, "image_std"),
    )


def image_settings(model_type: str, config: Json, preprocessor: Json) -> Settings:
    """Settings of an image model. Raises ValueError as `video_settings`."""
    return replace(
        layer_settings(model_type, config),
        clip=join(1, *pair(config, "image_size")),
        mean=numbers(preprocessor, "image_mean"),
        std=numbers(preprocessor, "image_std"),
    )


def sound_settings(model_type: str, config: Json, preprocessor: Json) -> Settings:
    """Settings of AST. Raises ValueError as `video_settings`."""
    mean, std = number(preprocessor, "mean"), number(preprocessor, "std")
    return replace(
        layer_settings(model_type, config),
        clip=join(1, count(config, "num_mel_bins"), count(config, "max_length")),
        stride=join(1, count(config, "frequency_stride"), count(config, "time_stride")),
        mean=None if mean is None else (mean,),
        std=None if std is None else (2 * std,),  # AST divides by twice the deviation
        sample_rate=count(preprocessor, "sampling_rate"),
    )


def layer_settings(model_type: str, config: Json) -> Settings:
    if config and config.get("model_type") != model_type:
        raise ValueError(
            f"config.json is of a model {config.get('model_type')!r}, the weights beside it are of {model_type!r}: "
            f"take the config.json of these weights, or remove it"
        )
    act = config.get("hidden_act")
    return Settings(
        heads=count(config, "num_attention_heads"),
        classes=labels(config.get("id2label")),
        eps=number(config, "layer_norm_eps"),
        gelu=act if act is None else GELU.get(str(act), str(act)),
    )


def check_published(what: str, said: object, published: object) -> None:
    """Raises ValueError where config.json says something else than it says of all published models of a kind."""
    if said not in (None, published):
        raise ValueError(
            f"config.json beside the weights: {what} is {said!r}, and {published!r} in all published models of this "
            f"kind, the only ones that tubelet takes"
        )


# ---- in the words of timm

# Heads of timm's plain and hybrid ViTs, and of the first of four stages of its swinv2_cr, by the size in their names.
VIT_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16, "giant": 16, "gigantic": 16}
HEADS_OF_SOME = {r"vit_base_patch16_gap_": 16, r"vit_base_patch\d+_plus_": 14, r"vit_giant_.*(dinov2|tipsv2|radio)": 24}
HEADS_OF_SOME |= {"vit_(so400m|giantopt)_": 16}
SWIN_HEADS = {"tiny": 3, "small": 3, "base": 4, "large": 6, "giant": 16}
SWIN_WINDOW_RATIO = 8  # the grid is so many windows high and wide
OTHER_GELU = "quickgelu"
# SigLIPs whose GELU is JAX's; the others', and that of timm's other ViTs, is exact
TANH_GELU = r"(so400m_patch16|giantopt_patch16|base_patch32)_siglip_|large_patch16_siglip_(gap_)?512"


def timm_settings(config: Json) -> Settings:
    """Settings of timm's config.json; timm writes no other. Raises ValueError for a model that ours are not."""
    args, settings = section(config, "model_args"), section(config, "pretrained_cfg") or config
    architecture = str(config.get("architecture") or settings.get("architecture"))
    if re.search(OTHER_GELU, architecture):
        raise ValueError(f"config.json: {architecture} has another GELU than timm's other ViTs, which tubelet lacks")
    size = settings.get("input_size")
    side = pair({"input_size": size[1:]} if isinstance(size, list) else {}, "input_size")
    clip = join(1, *(pair(args, "img_size") if "img_size" in args else side))
    check_positions(architecture, args, clip)
    heads, pool_heads = heads_of_timm(architecture, args), count(args, "attn_pool_num_heads")
    by_name = ("tanh" if re.search(TANH_GELU, architecture) else "erf") if "_siglip_" in architecture else None
    act = args.get("act_layer")
    per_window = SWIN_WINDOW_RATIO * (count(args, "patch_size") or 4)
    with_windows = clip is not None and architecture.startswith("swinv2_cr")
    return Settings(
        heads=(heads, pool_heads) if pool_heads and isinstance(heads, int) else heads,
        clip=clip,
        window=(1, clip[1] // per_window, clip[2] // per_window) if clip and with_windows else None,
        classes=labels(config.get("label_names") or settings.get("label_names")),
        mean=numbers(settings, "mean"),
        std=numbers(settings, "std"),
        crop_share=number(settings, "crop_pct"),
        gelu=by_name if act is None else GELU.get(str(act), str(act)),
        licence=read_checked(settings, "license", lambda text: isinstance(text, str), "a text"),
    )


def check_positions(architecture: str, args: Json, clip: Size3 | None) -> None:
    """Raises ValueError for a Perception Encoder that learned on at another size: its positions stay those of the first
    size, stretched, which its tensors do not tell."""
    named = re.match(r"vit_pe_.*_patch(\d+)_(\d+)", architecture)
    if not named or not clip:
        return
    patch, side = count(args, "patch_size") or int(named[1]), int(named[2])
    first = pair(args, "ref_feat_shape") if "ref_feat_shape" in args else (side // patch, side // patch)
    if first != (clip[1] // patch, clip[2] // patch):
        raise ValueError(
            f"config.json: {architecture} of {clip[1]} x {clip[2]} px, with the positions of a grid of {first[0]} x "
            f"{first[1]} patches: take the weights at the size that they were first made for"
        )


def heads_of_timm(architecture: str, args: Json) -> int | tuple[int, ...] | None:
    """The number of heads by the arguments of a model, else by the name of its architecture."""
    if isinstance(heads := args.get("num_heads"), list) and all(map(is_count, heads)):
        return tuple(heads)
    if heads is not None:
        return count(args, "num_heads")
    if found := re.match(r"swinv2_cr_([a-z]+)", architecture):
        first = SWIN_HEADS.get(found[1])
        return first and tuple(first * 2**stage for stage in range(4))
    if exception := next((found for name, found in HEADS_OF_SOME.items() if re.match(name, architecture)), None):
        return exception
    found = re.match(r"(?:vit|deit3?)_(?:pe_[a-z]+_)?([a-z]+)_(?:distilled_)?(?:patch\d+|r\d*)_", architecture)
    return VIT_HEADS.get(found[1]) if found else None


def read_checked(config: Json, key: str, fits: Callable[[Any], bool], expected: str) -> Any:
    """The value of a key that `fits`, or None where there is none."""
    value = config.get(key)
    return value if value is None or fits(value) else refuse(key, value, expected)


def section(config: Json, key: str) -> Json:
    return read_checked(config, key, lambda found: not found or isinstance(found, dict), "an object") or {}


def count(config: Json, key: str) -> int | None:
    return read_checked(config, key, is_count, "a whole number from 1 up")


def number(config: Json, key: str) -> float | None:
    return read_checked(config, key, is_number, "a number")


def numbers(config: Json, key: str) -> tuple[float, ...] | None:
    values = read_checked(
        config, key, lambda x: isinstance(x, list) and x != [] and all(map(is_number, x)), "a list of numbers"
    )
    return values and tuple(values)


def pair(config: Json, key: str) -> tuple[int | None, int | None]:
    """Height and width, from two numbers or from one for both."""
    value = config.get(key)
    both = value if isinstance(value, list) else [value, value]
    if value is not None and not (len(both) == 2 and all(map(is_count, both))):
        refuse(key, value, "a whole number from 1 up, or two")
    return both[0], both[1]


def join(frames: int | None, high: int | None, wide: int | None) -> Size3 | None:
    return (frames, high, wide) if frames and high and wide else None


def labels(names: object) -> tuple[str, ...] | None:
    """Class names, from a list or from {"0": name, ...}; one that comes again gets a number: "crane (2)"."""
    if not names:
        return None
    if isinstance(names, dict):
        names = [names.get(str(i)) for i in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        refuse("the class names", names, "a list of names, or names numbered from 0 without gaps")
    given: dict[str, None] = {}
    for name in names:
        again, times = name, 1
        while again in given:
            times += 1
            again = f"{name} ({times})"
        given[again] = None
    return tuple(given)


def refuse(key: str, value: object, expected: str) -> NoReturn:
    raise ValueError(f"{key} = {str(value)[:80]} in the settings beside the weights, expected {expected}")
