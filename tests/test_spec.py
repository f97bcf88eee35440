"""ClipSpec: it goes to JSON and back without loss, and says what contradicts what."""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest

from tubelet.data.clip_spec import ClipSpec

VIDEO: dict[str, Any] = {
    "frames": 16,
    "seconds_between_frames": 1 / 12,
    "resize": (64, 80),
    "crop": (64, 64),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.1),
}
IMAGE = {**VIDEO, "kind": "image", "frames": 1, "seconds_between_frames": 0.0}
SOUND = {
    "kind": "sound",
    "frames": 1,
    "seconds_between_frames": 0.01,
    "resize": (128, 1024),
    "crop": (128, 1024),
    "mean": (-4.2677393,),
    "std": (9.1379,),
    "channels": "mel",
}


@pytest.mark.parametrize("fields", [VIDEO, IMAGE, SOUND, {**VIDEO, "channels": "bgr"}], ids=str)
def test_round_trip_through_json_text_is_exact(fields: dict[str, Any]) -> None:
    spec = ClipSpec(**fields)
    again = ClipSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert asdict(again) == asdict(spec)


def test_sizes_of_each_kind() -> None:
    video, image, sound = (ClipSpec(**fields) for fields in (VIDEO, IMAGE, SOUND))
    assert (video.clip_size, video.num_channels) == ((16, 64, 64), 3)
    assert (image.clip_size, image.num_channels) == ((1, 64, 64), 3)
    assert (sound.clip_size, sound.num_channels) == ((1, 128, 1024), 1)
    assert video.span_seconds == pytest.approx(16 / 12)
    assert image.span_seconds == 0
    assert sound.span_seconds == pytest.approx(10.24)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**VIDEO, "kind": "film"}, "kind='film', expected one of video, image, sound"),
        ({**VIDEO, "channels": "rgba"}, "channels='rgba', expected one of"),
        ({**VIDEO, "channels": "mel"}, "sound has channels='mel'"),
        ({**SOUND, "channels": "gray"}, "sound has channels='mel'"),
        ({**VIDEO, "crop": (65, 64)}, r"crop=\(65, 64\) is larger than resize=\(64, 80\)"),
        ({**VIDEO, "crop": (64, 81)}, r"crop=\(64, 81\) is larger than resize"),
        ({**VIDEO, "crop": (0, 64)}, r"crop=\(0, 64\), expected \(H, W\)"),
        ({**VIDEO, "resize": 64}, r"resize=64, expected \(H, W\)"),
        ({**VIDEO, "resize": [64, 80]}, r"resize=\[64, 80\], expected \(H, W\)"),
        ({**SOUND, "crop": (128, 512)}, "sound is not resized"),
        ({**VIDEO, "frames": 0}, "frames=0, expected a whole number from 1 up"),
        ({**VIDEO, "frames": 2.0}, "frames=2.0, expected a whole number"),
        ({**VIDEO, "sample_rate": -1}, "sample_rate=-1, expected a whole number"),
        ({**IMAGE, "frames": 2}, "frames=2 with kind='image'; expected frames=1"),
        ({**IMAGE, "seconds_between_frames": 0.1}, "with kind='image'; expected 0.0"),
        ({**VIDEO, "seconds_between_frames": 0.0}, "expected more than 0 for video"),
        ({**SOUND, "seconds_between_frames": -0.01}, "expected more than 0 for sound"),
        ({**VIDEO, "seconds_between_frames": float("nan")}, "seconds_between_frames=nan, expected a finite number"),
        ({**VIDEO, "mean": (0.5,)}, "mean has 1 numbers, channels='rgb' needs 3"),
        ({**VIDEO, "std": (1.0,) * 4}, "std has 4 numbers, channels='rgb' needs 3"),
        ({**VIDEO, "std": (0.5, 0.0, 0.5)}, "expected numbers above 0"),
        ({**VIDEO, "mean": ("a", "b", "c")}, "expected a tuple of finite numbers"),
        ({**VIDEO, "mean": 0.5}, "mean=0.5, expected a tuple of finite numbers"),
    ],
)
def test_contradictions_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipSpec(**fields)


def test_unknown_and_missing_keys_are_named() -> None:
    values = ClipSpec(**VIDEO).to_json()
    del values["crop"], values["sample_rate"]
    values["fps"] = 25
    with pytest.raises(ValueError, match=r"unknown keys \['fps'\], missing keys \['crop', 'sample_rate'\]"):
        ClipSpec.from_json(values)


def test_the_command_line_can_read_a_spec_without_torch() -> None:
    code = "import sys, tubelet.data.clip_spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
