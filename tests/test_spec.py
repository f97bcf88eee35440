"""ClipSpec: it goes to JSON and back without loss, and says what contradicts what."""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest
from naming import naming

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
    ("fields", "values"),
    [
        ({**VIDEO, "kind": "film"}, ("kind='film'", "video", "image", "sound")),
        ({**VIDEO, "channels": "rgba"}, ("channels='rgba'", "rgb", "mel")),
        ({**VIDEO, "channels": "mel"}, ("kind='video'", "channels='mel'", "sound")),
        ({**SOUND, "channels": "gray"}, ("kind='sound'", "channels='gray'", "'mel'")),
        ({**VIDEO, "crop": (65, 64)}, ("crop=(65, 64)", "resize=(64, 80)")),
        ({**VIDEO, "crop": (64, 81)}, ("crop=(64, 81)", "resize=(64, 80)")),
        ({**VIDEO, "crop": (0, 64)}, ("crop=(0, 64)", "(H, W)")),
        ({**VIDEO, "resize": 64}, ("resize=64", "(H, W)")),
        ({**VIDEO, "resize": [64, 80]}, ("resize=[64, 80]", "(H, W)")),
        ({**SOUND, "crop": (128, 512)}, ("sound", "crop=(128, 512)", "resize=(128, 1024)")),
        ({**VIDEO, "frames": 0}, ("frames=0", 1)),
        ({**VIDEO, "frames": 2.0}, ("frames=2.0", "whole")),
        ({**VIDEO, "sample_rate": -1}, ("sample_rate=-1", 1)),
        ({**IMAGE, "frames": 2}, ("frames=2", "kind='image'", "frames=1")),
        ({**IMAGE, "seconds_between_frames": 0.1}, ("seconds_between_frames=0.1", "kind='image'", "0.0")),
        ({**VIDEO, "seconds_between_frames": 0.0}, ("seconds_between_frames=0.0", 0, "video")),
        ({**SOUND, "seconds_between_frames": -0.01}, ("seconds_between_frames=-0.01", 0, "sound")),
        ({**VIDEO, "seconds_between_frames": float("nan")}, ("seconds_between_frames=nan", "finite")),
        ({**VIDEO, "mean": (0.5,)}, ("mean", 1, "channels='rgb'", 3)),
        ({**VIDEO, "std": (1.0,) * 4}, ("std", 4, "channels='rgb'", 3)),
        ({**VIDEO, "std": (0.5, 0.0, 0.5)}, ("std=(0.5, 0.0, 0.5)", 0)),
        ({**VIDEO, "mean": ("a", "b", "c")}, ("mean=('a', 'b', 'c')", "finite")),
        ({**VIDEO, "mean": 0.5}, ("mean=0.5", "tuple")),
    ],
)
def test_contradictions_are_named(fields: dict[str, Any], values: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=naming(*values)):
        ClipSpec(**fields)


def test_unknown_and_missing_keys_are_named() -> None:
    values = ClipSpec(**VIDEO).to_json()
    del values["crop"], values["sample_rate"]
    values["fps"] = 25
    with pytest.raises(ValueError, match=naming("['fps']", "['crop', 'sample_rate']")):
        ClipSpec.from_json(values)


def test_the_command_line_can_read_a_spec_without_torch() -> None:
    code = "import sys, tubelet.data.clip_spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
