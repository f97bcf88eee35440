"""How published models saw their files."""

from dataclasses import replace
from typing import Any

import pytest
from naming import naming
from tiny import tiny

from tubelet.convert.published_inputs import clip_spec
from tubelet.data.clip_spec import ClipSpec
from tubelet.weights.dialects.reference import Source, find_dialect
from tubelet.weights.dialects.settings import Given, Settings
from tubelet.weights.dialects.vit import IMAGENET_MEAN, IMAGENET_STD


def spec(
    dialect: str,
    clip: tuple[int, int, int],
    seconds_between_frames: float | None = None,
    *,
    settings: dict[str, Any] | None = None,
    **config: Any,
) -> tuple[ClipSpec | None, list[str]]:
    """What is known of the input of a grey model of that dialect and clip."""
    given = Given(heads=4, clip=clip)
    source = Source(state={}, dialect=find_dialect(dialect), given=given, settings=Settings(**settings or {}))
    changed = replace(tiny("vit").config, clip=clip, **({"mean": (0.5,), "std": (0.5,)} | config))
    return clip_spec(source, changed, seconds_between_frames=seconds_between_frames)


@pytest.mark.parametrize(
    ("dialect", "clip", "seconds", "resize"),
    [
        ("scenic", (32, 224, 224), 2 / 25, 256),
        ("hf-vivit", (32, 224, 224), 2 / 25, 256),
        ("timesformer", (8, 224, 224), 32 / 30, 256),
        ("hf-timesformer", (16, 448, 448), 16 / 30, 512),
        ("hf-timesformer", (96, 224, 224), 4 / 30, 256),
        ("hf-timesformer", (300, 224, 224), 1 / 30, 256),
        ("hf-videomae", (16, 224, 224), 4 / 30, 224),
        ("hf-vjepa2", (64, 256, 256), 1 / 4, 292),
    ],
)
def test_video(dialect: str, clip: tuple[int, int, int], seconds: float, resize: int) -> None:
    found, _ = spec(dialect, clip)
    assert found is not None
    assert found.clip_size == clip
    assert found.resize == (resize, resize)
    assert found.seconds_between_frames == pytest.approx(seconds)
    assert (found.kind, found.mean, found.std) == ("video", (0.5,) * 3, (0.5,) * 3)


def test_what_is_a_convention_is_noted_unless_it_was_given() -> None:
    _, notes = spec("hf-vjepa2", (64, 256, 256))
    assert notes == ["frames 0.25 s apart, a guess: V-JEPA 2 was pretrained so, its classifiers differ"]
    given, notes = spec("hf-vjepa2", (64, 256, 256), 0.1)
    assert given is not None
    assert (given.seconds_between_frames, notes) == (0.1, [])


def test_pictures() -> None:
    found, notes = spec("timm", (1, 224, 112), settings={"crop_share": 0.875, "mean": (0.5,)})
    assert found is not None
    assert (found.kind, found.crop, found.resize, found.frames) == ("image", (224, 112), (256, 128), 1)
    assert notes == []
    found, notes = spec("timm", (1, 224, 112), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert found is not None
    assert found.resize == (224, 112)
    assert "ImageNet" in notes[0]


@pytest.mark.parametrize("dialect", ["hf-ast", "audiomae"])
def test_sound(dialect: str) -> None:
    log_mel = {"mean": (-4.0,), "std": (9.0,), "channels": 1}
    found, notes = spec(dialect, (1, 128, 1024), settings={"sample_rate": 8000}, **log_mel)
    assert found is not None
    assert (found.kind, found.channels, found.crop) == ("sound", "mel", (128, 1024))
    assert (found.mean, found.std) == ((-4.0,), (9.0,))
    assert (found.seconds_between_frames, found.sample_rate, notes) == (0.010, 8000, [])
    assert "order only" in spec(dialect, (1, 128, 1024), **log_mel, num_classes=527)[1][0]


@pytest.mark.parametrize(("dialect", "channels"), [("timm", 1), ("scenic", 4), ("metatransformer", 3)])
def test_what_is_not_known_is_not_made_up(dialect: str, channels: int) -> None:
    found, notes = spec(dialect, (1, 32, 32), channels=channels)
    assert found is None
    assert notes == [f"no ClipSpec: how clips of {channels} channels were made for {dialect} is not known"]


@pytest.mark.parametrize(("dialect", "channels"), [("scenic", 3), ("hf-ast", 1)])
def test_no_time_between_frames_is_an_error(dialect: str, channels: int) -> None:
    with pytest.raises(ValueError, match=naming("seconds_between_frames=0.0")):
        spec(dialect, (1, 32, 32), 0.0, channels=channels)
