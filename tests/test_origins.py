"""How published models saw their files."""

import pytest

from tubelet.convert.published_inputs import clip_spec
from tubelet.data.clip_spec import ClipSpec

GREY = {"mean": (0.5,), "std": (0.5,)}


def spec(dialect: str, clip: tuple[int, int, int]) -> ClipSpec:
    found, _ = clip_spec(dialect, clip, **GREY, channels=3)
    assert found is not None
    return found


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
    found = spec(dialect, clip)
    assert found.clip_size == clip
    assert found.resize == (resize, resize)
    assert found.seconds_between_frames == pytest.approx(seconds)
    assert (found.kind, found.mean, found.std) == ("video", (0.5,) * 3, (0.5,) * 3)


def test_what_is_a_convention_is_noted_unless_it_was_told() -> None:
    _, notes = clip_spec("hf-vjepa2", (64, 256, 256), **GREY, channels=3)
    assert notes == ["frames 0.25 s apart, a guess: V-JEPA 2 was pretrained so, its classifiers differ"]
    told, notes = clip_spec("hf-vjepa2", (64, 256, 256), **GREY, channels=3, seconds_between_frames=0.1)
    assert told is not None
    assert (told.seconds_between_frames, notes) == (0.1, [])


def test_pictures() -> None:
    found, _ = clip_spec("timm", (1, 224, 112), **GREY, channels=3, crop_share=0.875)
    assert found is not None
    assert (found.kind, found.crop, found.resize, found.frames) == ("image", (224, 112), (256, 128), 1)
    assert spec("timm", (1, 224, 112)).resize == (224, 112)


@pytest.mark.parametrize("dialect", ["hf-ast", "audiomae"])
def test_sound(dialect: str) -> None:
    found, notes = clip_spec(dialect, (1, 128, 1024), mean=(-4.0,), std=(9.0,), channels=1, sample_rate=8000)
    assert found is not None
    assert (found.kind, found.channels, found.crop, found.mean, found.std) == (
        "sound",
        "mel",
        (128, 1024),
        (-4.0,),
        (9.0,),
    )
    assert (found.seconds_between_frames, found.sample_rate, notes) == (0.010, 8000, [])


@pytest.mark.parametrize(("dialect", "channels"), [("timm", 1), ("scenic", 4), ("metatransformer", 3)])
def test_what_is_not_known_is_not_made_up(dialect: str, channels: int) -> None:
    found, notes = clip_spec(dialect, (1, 32, 32), **GREY, channels=channels)
    assert found is None
    assert notes == [f"no ClipSpec: how clips of {channels} channels were made for {dialect} is not known"]


@pytest.mark.parametrize(("dialect", "channels"), [("scenic", 3), ("hf-ast", 1)])
def test_no_time_between_frames_is_an_error(dialect: str, channels: int) -> None:
    with pytest.raises(ValueError, match=r"seconds_between_frames=0\.0, expected more than 0"):
        clip_spec(dialect, (1, 32, 32), **GREY, channels=channels, seconds_between_frames=0.0)
