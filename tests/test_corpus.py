"""Three hundred files that are broken, odd or none: each gives what it holds or the code of what is wrong with it."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import GROUPS, Row, make_all
from hanging import ending

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import views
from tubelet.media.health import Health, examine
from tubelet.media.reader import MediaError, index, read_frames, read_sound
from tubelet.nn import create_model
from tubelet.predict.predictor import Predictor
from tubelet.tasks import Classification

torch.set_num_threads(1)

FILES = [(group, name) for group, rows in GROUPS.items() for name in rows]
each_file = pytest.mark.parametrize("file", FILES, ids=[f"{group}-{ascii(name)[1:-1][:40]}" for group, name in FILES])

File = tuple[str, str]
Made = dict[File, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_all(tmp_path_factory.mktemp("corpus"))


def row_of(file: File) -> Row:
    return GROUPS[file[0]][file[1]]


def outcome(read: Callable[[], object], path: Path) -> str:
    """ "ok" or the code; anything but a MediaError passes on, and fails the test."""
    code, message = "ok", f"{shown(path)}: "
    try:
        with ending():
            read()
    except MediaError as error:
        code, message = error.code, str(error)
    assert message.startswith(f"{shown(path)}: ")
    assert message.isprintable()
    return code


def shown(path: Path) -> str:
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(path))


def read_all_frames(path: Path) -> None:
    found = index(path)
    times = found.times if len(found.times) else np.array([0.0])
    frames = read_frames(path, times)
    assert frames.shape == (len(times), found.height, found.width, 3)
    assert (np.diff(times) >= 0).all()
    assert times[0] == 0


def read_all_sound(path: Path) -> None:
    samples = read_sound(path, sample_rate=8000)
    assert samples.size > 0
    assert np.abs(samples).max() <= 1


def test_there_are_enough_files_of_every_kind() -> None:
    assert len(FILES) >= 300
    codes = {code for _, name in FILES for code in "|".join(row_of((_, name))[1:3]).split("|")}
    missing = {"unreadable"} if os.geteuid() == 0 else set()  # a superuser may read all
    assert codes - {""} == set(CODES) - missing


CODES = (
    *("ok", "missing", "not-a-file", "unreadable", "empty", "blocked", "no-decoder", "no-moov", "truncated"),
    *("not-video", "no-picture", "no-sound", "too-big", "no-frames", "damaged"),
)


@each_file
def test_reading_gives_what_is_there_or_the_right_code(
    made: Made, file: File, capfd: pytest.CaptureFixture[str]
) -> None:
    path, row = made[file], row_of(file)
    assert outcome(lambda: read_all_frames(path), path) in row.frames.split("|")
    assert outcome(lambda: read_all_sound(path), path) in row.expected_sound.split("|")
    assert capfd.readouterr() == ("", ""), "the decoder is silent"


MESSAGES = {
    (
        "cut",
        "half.mp4",
    ): "its table of contents (moov) is missing: the recording or the download is incomplete. Download",
    ("cut", "in-moov.mp4"): "it ends before its first picture. The copy or download was probably cut short: fetch it",
    ("cut", "head-h264.flv"): "it starts like a media file, but a needed part is missing or damaged. The copy",
    ("playlist", "hls.mp4"): "it is a playlist or a script, which are not read as they may open other files. Pass the",
    ("playlist", "rare.mxf"): "it is a rare format, which is not read as it may be unsafe. Convert it, to MP4",
    ("no media", "text.ts"): "its content is no video but text. Check that it is the file you mean",
    ("no media", "random.jpg"): "its content is no picture. Check that it is the file you mean",
    ("no media", "archive.mp4"): "its content is no video, image or sound that can be read (InvalidDataError). Check",
    ("no media", "empty.mp4"): "the file is empty. Copy or download it again",
    ("streams", "zzzz.mp4"): "is not read. Convert it, to H.264 for instance",
    ("streams", "zzzz.m4a"): "is not read. Convert it, to AAC for instance",
    ("lying", "bomb.jpg"): "its pictures have 60000x60000 pixels, more than 67108864 in all. Scale it down first",
    ("place", "dangling.mp4"): "it cannot be found (the link leads nowhere). Check the path",
    ("place", "missing.mp4"): "it cannot be found (No such file or directory). Check the path",
    ("place", "pipe.mp4"): "it is a folder, a pipe or a device, not a file. Pass a media file",
}


@pytest.mark.parametrize("file", MESSAGES, ids=[name for _, name in MESSAGES])
def test_the_message_says_what_is_wrong_and_what_to_do(made: Made, file: File) -> None:
    with pytest.raises(MediaError) as caught:
        read_all_frames(made[file])
    assert MESSAGES[file] in str(caught.value)


@each_file
def test_its_health_is_known(made: Made, file: File, capfd: pytest.CaptureFixture[str]) -> None:
    path, row = made[file], row_of(file)
    with ending():
        health, quick = examine(path), examine(path, quick=True)
    expected = row.expected_health.split("|")
    assert health.code in expected
    check_health(health)
    check_health(quick)
    if not quick.ok:  # quick sees less, and what it sees is there
        assert quick.code == health.code or not health.ok
    if row.frames == "ok":
        assert health.usable
        assert health.frames >= 1
        assert (health.height, health.width) == (index(path).height, index(path).width)
    if "ok" not in row.frames and "ok" not in expected:
        assert not health.usable
    assert capfd.readouterr() == ("", "")


def check_health(health: Health) -> None:
    assert health.ok == (health.code == "ok") == (health.message == "")
    assert health.usable or not health.ok
    assert health.usable == (health.frames > 0)
    ends = [0.0, *(second for span in health.bad_spans for second in span)]
    assert ends == sorted(ends)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    spec = ClipSpec(
        frames=4, seconds_between_frames=0.1, resize=(32, 32), crop=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    model = create_model("vivit1-P/16x4", clip=(4, 32, 32), num_classes=2)
    return Predictor(model, spec, Classification(("a", "b")), device="cpu")


def test_predictions_keep_their_place_and_say_why_there_is_none(
    made: Made, predictor: Predictor, capfd: pytest.CaptureFixture[str]
) -> None:
    predictions = predictor.predict_files(made.values())
    assert [one.path for one in predictions] == [str(path) for path in made.values()]
    for one, file in zip(predictions, made, strict=True):
        reason = why_no_answer(made[file], predictor.spec)
        assert (one.label is None) == bool(reason), file
        assert one.status == (reason or "ok")
        if row_of(file).frames in CODES[1:]:
            assert one.label is None, file
    assert sum(one.label is not None for one in predictions) > 100
    assert capfd.readouterr() == ("", "")


def why_no_answer(path: Path, spec: ClipSpec) -> str:
    """Empty where the model has something to look at."""
    try:
        views(path, spec)
    except MediaError as error:
        return str(error)
    return ""
