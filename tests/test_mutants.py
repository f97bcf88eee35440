"""Small files spoiled at random, by number: whatever FFmpeg makes of them, a reader gives frames or a MediaError.

They are read in a child process, so that a crash there is a test that fails here. `make soak` reads ten times as many.
One of them alone, with its traceback: python tests/test_mutants.py NUMBER
"""

import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from small_files import small_file, video

from tubelet.media.health import examine
from tubelet.media.reader import MediaError, index, read_frames, read_sound

SEED = 5
COUNT = 20_000 if os.environ.get("TUBELET_SOAK") else 1_000
AT_ONCE = min(COUNT, 2_000)  # mutants to a child
MOST_SECONDS = 30.0  # of the processor, for one file; a slow machine needs 1.5
HANGS_SECONDS = 100.0
MOST_MEMORY_BYTES = 2**30  # beyond what the child takes before the first mutant
SPOILED = (
    *("h264.mp4", "front.mov", "fragments.mp4", "h264.mkv", "h264.ts", "h264.flv", "h264.h264", "hevc.mp4"),
    *("vp8.webm", "vp9.webm", "mpeg4.avi", "mpeg1.mpg", "mpeg2.ts", "flv1.flv", "wmv2.wmv", "mjpeg.avi", "ffv1.mkv"),
    *("plain.gif", "png.png", "jpeg.jpg", "aac.m4a", "mp3.mp3", "opus.ogg", "sounding.mp4"),
)
EXTREMES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

# ---- making them


@cache
def sounding() -> bytes:
    return video("a.mp4", sound_hz=440)


def base_of(number: int) -> str:
    return SPOILED[number % len(SPOILED)]


def mutant(number: int) -> bytes:
    """One to three edits of a small file; half of them near its start, where the headers are."""
    name, rng = base_of(number), np.random.default_rng([SEED, number])
    content = bytearray(sounding() if name == "sounding.mp4" else small_file(name))
    for _ in range(rng.integers(1, 4)):
        edit = EDITS[rng.integers(len(EDITS))]
        reach = min(len(content), 1000) if rng.integers(2) else len(content)
        edit(content, int(rng.integers(reach)), rng)
        if len(content) < 16:
            break
    return bytes(content)


def flip_bits(content: bytearray, place: int, rng: np.random.Generator) -> None:
    for spot in rng.integers(place, min(place + 200, len(content)), rng.integers(1, 9)):
        content[spot] ^= 1 << rng.integers(8)


def delete_block(content: bytearray, place: int, rng: np.random.Generator) -> None:
    del content[place : place + int(rng.integers(1, 200))]


def insert_block(content: bytearray, place: int, rng: np.random.Generator) -> None:
    content[place:place] = rng.bytes(int(rng.integers(1, 200)))


def repeat_block(content: bytearray, place: int, rng: np.random.Generator) -> None:
    content[place:place] = content[place : place + int(rng.integers(1, 500))]


def set_extreme(content: bytearray, place: int, rng: np.random.Generator) -> None:
    order = ("big", "little")[rng.integers(2)]
    content[place : place + 4] = EXTREMES[rng.integers(len(EXTREMES))].to_bytes(4, order)


def truncate(content: bytearray, place: int, rng: np.random.Generator) -> None:
    del content[place:]


EDITS: tuple[Callable[[bytearray, int, np.random.Generator], None], ...] = (
    *(flip_bits, flip_bits, delete_block, insert_block, repeat_block),
    *(set_extreme, set_extreme, truncate),
)

# ---- reading them, in the child


def read(path: Path, number: int) -> str:
    """What a user's code does with a file: a code, or "frames", "sound", or both."""
    outcomes = []
    for kind, use in (("frames", use_frames), ("sound", use_sound)):
        try:
            use(path)
            outcomes.append(kind)
        except MediaError as error:
            outcomes.append(error.code)
    if number % 8 == 0:
        json.dumps(vars(examine(path)))
    return " ".join(dict.fromkeys(outcomes))


def use_frames(path: Path) -> None:
    found = index(path)
    times = found.times[[0, len(found.times) // 2, -1]] if len(found.times) else np.zeros(1)
    frames = read_frames(path, times, cover=(32, 32) if found.height * found.width > 10**6 else None)
    assert frames.shape[0] == len(times)
    assert frames.dtype == np.uint8


def use_sound(path: Path) -> None:
    samples = read_sound(path, sample_rate=8000)
    assert np.isfinite(samples).all()
    assert samples.size > 0


def read_all(first: int, count: int, abort_at: int) -> None:
    """Prints the number of each mutant before it is read, and a summary as JSON at the end."""
    import resource  # there is none on Windows

    def memory_bytes() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    for name in SPOILED[:-1]:
        small_file(name)
    outcomes: Counter[str] = Counter()
    foreign: dict[int, str] = {}
    checksums, slowest, before = dict[int, int](), (0.0, 0), memory_bytes()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            print(number, flush=True)
            path = Path(folder, f"{number}-{base_of(number)}")
            content = mutant(number)
            checksums[number] = zlib.crc32(content)
            path.write_bytes(content)
            faulthandler.dump_traceback_later(HANGS_SECONDS, exit=True)
            start = time.process_time()
            try:
                outcomes[read(path, number)] += 1
            except Exception:
                foreign[number] = traceback.format_exc()
            slowest = max(slowest, (time.process_time() - start, number))
            if number == abort_at:
                os.abort()
            path.unlink()
    faulthandler.cancel_dump_traceback_later()
    memory = memory_bytes() - before
    found = {"outcomes": outcomes, "foreign": foreign, "slowest": slowest, "memory_bytes": memory}
    print(json.dumps({**found, "checksums": checksums}))


# ---- the tests


def in_a_child(first: int, count: int, *, abort_at: int = -1) -> dict:
    """Runs `read_all` in a process of its own; fails where that dies."""
    arguments = [sys.executable, __file__, *map(str, (first, count, abort_at))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    *numbers, last = done.stdout.splitlines() or [""]
    if done.returncode:
        pytest.fail(f"mutant {last} of seed {SEED} ended the reader ({done.returncode}): {done.stderr[-2000:]}")
    assert done.stderr == "", "the decoder is silent"
    assert len(numbers) == count
    return json.loads(last)


@pytest.mark.parametrize("first", range(0, COUNT, AT_ONCE))
def test_mutants_give_frames_or_a_media_error(first: int) -> None:
    found = in_a_child(first, AT_ONCE)
    for number, reason in found["foreign"].items():
        pytest.fail(f"mutant {number} of seed {SEED} ({base_of(int(number))}): {reason}")
    seconds, number = found["slowest"]
    assert seconds < MOST_SECONDS, f"mutant {number} of seed {SEED} ({base_of(number)}) took {seconds:.1f} s"
    assert found["memory_bytes"] < MOST_MEMORY_BYTES
    codes = Counter()
    for outcome, times in found["outcomes"].items():
        codes.update(dict.fromkeys(outcome.split(), times))
    assert sum(found["outcomes"].values()) == AT_ONCE
    assert {"frames", "sound", "truncated", "damaged", "no-frames", "no-moov"} <= set(codes)
    print(f"\nslowest: {number}, {seconds:.2f} s; {found['memory_bytes'] / 1e6:.0f} MB; {dict(codes.most_common())}")


def test_a_crash_is_a_failure_that_names_the_mutant() -> None:
    with pytest.raises(pytest.fail.Exception, match=rf"mutant 2 of seed {SEED} ended the reader \(-6\)"):
        in_a_child(0, 5, abort_at=2)


def test_a_mutant_can_be_made_again_from_its_number() -> None:
    there = in_a_child(0, 60)["checksums"]
    differ = [number for number in range(60) if zlib.crc32(mutant(number)) != there[str(number)]]
    assert differ == [], f"of {sorted({base_of(number) for number in differ})}"


if __name__ == "__main__":
    if len(sys.argv) == 2:
        alone = int(sys.argv[1])
        Path(name := f"{alone}-{base_of(alone)}").write_bytes(mutant(alone))
        print(name, read(Path(name), 0))
    else:
        read_all(*map(int, sys.argv[1:]))
