"""The settings of a model in a file, which may come from anywhere: read, checked, and of other versions upgraded."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, TypeVar, get_args

from tubelet.nn.config import EmbedConfig, ModelConfig, Stage, WindowStage
from tubelet.weights.upgrade import upgrade

Settings = TypeVar("Settings")

# What no model comes near: a file with more is damaged, or made to cost memory and time.
MOST = 2**20
MOST_PARTS = 64  # of a list, letters of a word
MOST_LAYERS = 256
MOST_PIXELS = 2**30  # of a clip

STAGES: Mapping[object, type[Stage] | type[WindowStage]] = {"blocks": Stage, "windows": WindowStage}


def read_config(values: Any) -> ModelConfig:
    """The configuration whose `to_json` a file holds, or the settings that tubelet 0.1.0 wrote.

    Raises:
        ValueError: a key that is unknown, or missing and without a default; a value of the wrong kind, or larger than
            in any model.
    """
    if not isinstance(values, dict):
        raise ValueError(f"model settings that are a {type(values).__name__}, expected an object")
    values = dict(values) if "stages" in values else upgrade(values)
    stages = values["stages"]
    if isinstance(stages, list | tuple) and len(stages) <= MOST_PARTS:
        values["stages"] = tuple(read_stage(stage) for stage in stages)
    if "embed" in values:
        values["embed"] = read(EmbedConfig, values["embed"])
    config = read(ModelConfig, values)
    check_sizes(config)
    return config


def read_stage(values: Any) -> Stage | WindowStage:
    kind = str(values.get("kind") if isinstance(values, dict) else None)
    if kind not in STAGES:
        raise ValueError(f"model settings with a stage of kind {kind[:80]}, expected blocks or windows")
    return read(STAGES[kind], values)


def read(kind: type[Settings], values: Any) -> Settings:
    """A dataclass from its JSON."""
    if not isinstance(values, dict):
        raise ValueError(f"model settings with {str(values)[:80]}, expected an object")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    needed = {name for name, field in known.items() if field.default is MISSING}
    if wrong := sorted(set(values) - set(known) | needed - set(values)):
        raise ValueError(f"model settings that are unknown or missing: {', '.join(wrong)}: made by another version?")
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    for name, value in settings.items():
        if not fits(value, known[name].type):
            kind_name = getattr(known[name].type, "__name__", known[name].type)
            raise ValueError(
                f"model settings with {name} = {str(values[name])[:80]}, expected {kind_name}, at most {MOST}"
            )
    return kind(**settings)


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of the kind that a field is declared as, and of a size that is met in models."""
    if isinstance(kind, UnionType):
        return any(fits(value, one) for one in get_args(kind))
    if kind is int:
        return type(value) is int and 0 <= value <= MOST
    if kind is float:
        return type(value) in (int, float) and abs(value) <= MOST  # type: ignore[arg-type]  # false for NaN too
    parts = get_args(kind)
    if parts and isinstance(parts[0], str):  # a Literal
        return value in parts
    if not parts:  # str, bool, None, a dataclass
        return type(value) is kind and (not isinstance(value, str) or len(value) <= MOST_PARTS)
    if not isinstance(value, tuple) or len(value) > MOST_PARTS:
        return False
    if parts[-1] is Ellipsis:
        parts = parts[:1] * len(value)
    return len(value) == len(parts) and all(map(fits, value, parts))


def check_sizes(config: ModelConfig) -> None:
    """Raises ValueError for sizes that no model has."""
    stages = config.stages
    blocks = [stage.depth + stage.pool_depth if stage.kind == "blocks" else sum(stage.depths) for stage in stages]
    layers = sum(blocks) + sum(config.embed.layers)
    if layers > MOST_LAYERS or math.prod(config.clip) > MOST_PIXELS or not stages:
        raise ValueError(
            f"model settings with {len(stages)} stages, {layers} layers and a clip of {config.clip}, expected 1 stage "
            f"or more, at most {MOST_LAYERS} layers and {MOST_PIXELS} pixels"
        )
    if min([config.channels] + [min(stage.dim, stage.mlp_dim) for stage in stages]) < 1:
        raise ValueError("model settings with a width or channels below 1")
    if min(stage.eps for stage in stages) < 0 or min(getattr(stage, "pool_eps", 0.0) for stage in stages) < 0:
        raise ValueError("model settings with an eps below 0")
