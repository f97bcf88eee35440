"""What the settings beside weights of others say, in the words of transformers or of timm."""

import re
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from tubelet.weights.dialects.huggingface import AUDIOSET_MEAN, AUDIOSET_STD

Json = dict[str, Any]
Size3 = tuple[int, int, int]

# What transformers calls the model of a dialect in "model_type".
MODEL_TYPES = {
    "hf-vivit": "vivit",
    "hf-timesformer": "timesformer",
    "hf-videomae": "videomae",
    "hf-vjepa2": "vjepa2",
    "hf-ast": "audio-spectrogram-transformer",
}

# Heads of timm's plain and hybrid ViTs, and of the first of four stages of its swinv2_cr, by the size in their names.
VIT_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16, "giant": 16, "gigantic": 16}
HEADS_OF_SOME = {r"vit_base_patch16_gap_": 16, r"vit_base_patch\d+_plus_": 14, r"vit_giant_.*(dinov2|tipsv2|radio)": 24}
SWIN_HEADS = {"tiny": 3, "small": 3, "base": 4, "large": 6, "giant": 16}
SWIN_WINDOW_RATIO = 8  # the grid is so many windows high and wide
GELU = {"gelu": "erf", "gelu_fast": "tanh", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
OTHER_GELU = r"so400m|giantopt|quickgelu|patch32_siglip|large_patch16_siglip.*_512"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is said of a model and of its input, where it is said.

    clip, stride, window, heads: as for `from_reference`.
    classes: names, in the order of the outputs.
    mean, std: one number for each channel, of pixels in [0, 1]; sound: of log-mel values.
    crop_share: side of the crop for each side of the resized picture.
    sample_rate: samples of sound per second.
    eps, gelu: of the layers; gelu as we call it.
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


def known_from(config: Json, preprocessor: Json, dialect: str) -> Known:
    """What config.json and preprocessor_config.json beside weights in `dialect` say; {} says nothing.

    Raises:
        ValueError: they are of another model, or a value is of the wrong kind.
    """
    if dialect == "timm":
        return known_from_timm(config)
    if dialect == "audiomae":  # timm's words; its rows are time, ours mel, and its input is AudioSet's
        known = known_from_timm(config)
        clip = known.clip and (1, known.clip[2], known.clip[1])
        return replace(known, clip=clip, mean=AUDIOSET_MEAN, std=AUDIOSET_STD)
    if dialect not in MODEL_TYPES:
        return Known()
    if config and config.get("model_type") != MODEL_TYPES[dialect]:
        raise ValueError(
            f"config.json is of a model {config.get('model_type')!r}, the weights beside it are {dialect}: take the "
            f"config.json of these weights, or remove it"
        )
    known = (sound_from if dialect == "hf-ast" else video_from)(config, preprocessor)
    if dialect == "hf-vivit":  # its processor normalises twice, and published weights were not trained so
        known = replace(known, mean=None, std=None)
    act = config.get("hidden_act")
    return replace(
        known, eps=number(config, "layer_norm_eps"), gelu=act if act is None else GELU.get(str(act), str(act))
    )


def video_from(config: Json, preprocessor: Json) -> Known:
    of_vjepa = config.get("model_type") == "vjepa2"
    frames = count(config, "frames_per_clip" if of_vjepa else "num_frames")
    return Known(
        heads=count(config, "num_attention_heads"),
        clip=join(frames, *pair(config, "crop_size" if of_vjepa else "image_size")),
        classes=labels(config.get("id2label")),
        mean=numbers(preprocessor, "image_mean"),
        std=numbers(preprocessor, "image_std"),
    )


def sound_from(config: Json, preprocessor: Json) -> Known:
    mean, std = number(preprocessor, "mean"), number(preprocessor, "std")
    return Known(
        heads=count(config, "num_attention_heads"),
        clip=join(1, count(config, "num_mel_bins"), count(config, "max_length")),
        stride=join(1, count(config, "frequency_stride"), count(config, "time_stride")),
        classes=labels(config.get("id2label")),
        mean=None if mean is None else (mean,),
        std=None if std is None else (2 * std,),  # AST divides by twice the deviation
        sample_rate=count(preprocessor, "sampling_rate"),
    )


def known_from_timm(config: Json) -> Known:
    args, settings = section(config, "model_args"), section(config, "pretrained_cfg") or config
    architecture = str(config.get("architecture") or settings.get("architecture"))
    if re.search(OTHER_GELU, architecture):
        raise ValueError(f"config.json: {architecture} has another GELU than timm's other ViTs, which tubelet lacks")
    size = settings.get("input_size")
    side = pair({"input_size": size[1:]} if isinstance(size, list) else {}, "input_size")
    clip = join(1, *(pair(args, "img_size") if "img_size" in args else side))
    per_window = SWIN_WINDOW_RATIO * (count(args, "patch_size") or 4)
    with_windows = clip is not None and architecture.startswith("swinv2_cr")
    return Known(
        heads=heads_of_timm(architecture, args),
        clip=clip,
        window=(1, clip[1] // per_window, clip[2] // per_window) if clip and with_windows else None,
        classes=labels(config.get("label_names") or settings.get("label_names")),
        mean=numbers(settings, "mean"),
        std=numbers(settings, "std"),
        crop_share=number(settings, "crop_pct"),
    )


def heads_of_timm(architecture: str, args: Json) -> int | tuple[int, ...] | None:
    """As told in its arguments, or as its name says."""
    if isinstance(told := args.get("num_heads"), list) and all(is_count(heads) for heads in told):
        return tuple(told)
    if told is not None:
        return count(args, "num_heads")
    if found := re.match(r"swinv2_cr_([a-z]+)", architecture):
        first = SWIN_HEADS.get(found[1])
        return first and tuple(first * 2**stage for stage in range(4))
    if exception := next((heads for name, heads in HEADS_OF_SOME.items() if re.match(name, architecture)), None):
        return exception
    found = re.match(r"(?:vit|deit3?)_([a-z]+)_(?:distilled_)?(?:patch\d+|r\d*)_", architecture)
    return VIT_HEADS.get(found[1]) if found else None


# ---- values of JSON, checked


def section(config: Json, key: str) -> Json:
    found = config.get(key) or {}
    return found if isinstance(found, dict) else wrong(key, found, "an object")


def count(config: Json, key: str) -> int | None:
    value = config.get(key)
    return value if value is None or is_count(value) else wrong(key, value, "a whole number from 1 up")


def number(config: Json, key: str) -> float | None:
    value = config.get(key)
    return value if value is None or is_number(value) else wrong(key, value, "a number")


def pair(config: Json, key: str) -> tuple[int | None, int | None]:
    """Height and width, from two numbers or from one for both."""
    value = config.get(key)
    both = value if isinstance(value, list) else [value, value]
    if value is not None and not (len(both) == 2 and all(is_count(side) for side in both)):
        wrong(key, value, "a whole number from 1 up, or two")
    return both[0], both[1]


def join(frames: int | None, high: int | None, wide: int | None) -> Size3 | None:
    return (frames, high, wide) if frames and high and wide else None


def numbers(config: Json, key: str) -> tuple[float, ...] | None:
    values = config.get(key)
    if values is not None and not (isinstance(values, list) and values and all(is_number(value) for value in values)):
        wrong(key, values, "a list of numbers")
    return values if values is None else tuple(values)


def labels(names: object) -> tuple[str, ...] | None:
    """Class names, from a list or from {"0": name, ...}; one that comes again gets a number: "crane (2)"."""
    if not names:
        return None
    if isinstance(names, dict):
        names = [names.get(str(i)) for i in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        wrong("the class names", names, "a list of names, or names numbered from 0 without gaps")
    given: dict[str, None] = {}
    for name in names:
        again, times = name, 1
        while again in given:
            times += 1
            again = f"{name} ({times})"
        given[again] = None
    return tuple(given)


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def wrong(key: str, value: object, expected: str) -> NoReturn:
    raise ValueError(f"{key} = {str(value)[:80]} in the settings beside the weights, expected {expected}")
