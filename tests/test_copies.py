"""Files that hold the same are found by looking into few of them, and what they do to a data set is told."""

import random
import shutil
from pathlib import Path

import pytest
from test_problems import put

from tubelet.data import duplicates
from tubelet.data.duplicates import same_contents
from tubelet.data.items import find_items
from tubelet.data.splits import assign_splits

GOOD = ("walk/a.wav", "walk/b.wav", "run/c.wav", "run/d.wav")


def wavs(root: Path, *contents: bytes) -> list[str]:
    """Files 0.wav, 1.wav ... whose headers are fine and whose samples are the bytes."""
    for number, content in enumerate(contents):
        size = len(content).to_bytes(4, "little")
        form = b"fmt \x10\0\0\0\1\0\1\0\x80>\0\0\0}\0\0\2\0\x10\0"
        (root / f"{number}.wav").write_bytes(b"RIFF" + size + b"WAVE" + form + b"data" + size + content)
    return [f"{number}.wav" for number in range(len(contents))]


@pytest.mark.parametrize("seed", range(5))
def test_brute_force_agrees(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    paths = wavs(tmp_path, *(bytes([draw.randrange(3)]) * draw.choice([2000, 9000, 9002]) for _ in range(40)))
    for number in range(40, 46):
        (tmp_path / f"{number}.wav").symlink_to(tmp_path / f"{draw.randrange(40)}.wav")
        paths.append(f"{number}.wav")
    sets: dict[bytes, list[str]] = {}
    for path in sorted(paths):
        sets.setdefault((tmp_path / path).read_bytes(), []).append(path)
    expected = sorted(tuple(same) for same in sets.values() if len(same) > 1)
    assert same_contents(tmp_path, draw.sample(paths, len(paths))) == tuple(expected)


@pytest.mark.parametrize("place", [0, 100, 4095, 4096, 2**20 - 45, -(2**20), -4097, -1])
def test_one_other_byte_within_a_mb_of_an_end_tells_files_apart(tmp_path: Path, place: int) -> None:
    content = bytearray(3 * 2**20)
    first, second, changed = bytes(content), bytes(content), content
    changed[place] = 1
    paths = wavs(tmp_path, first, second, bytes(changed))
    assert same_contents(tmp_path, paths) == (("0.wav", "1.wav"),)


def test_files_of_other_sizes_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = wavs(tmp_path, *(bytes(number) for number in range(10, 400)), bytes(10))
    opened: list[tuple[str, int]] = []
    whole = duplicates._ends
    monkeypatch.setattr(
        duplicates, "_ends", lambda path, most: (opened.append((path.name, most)), whole(path, most))[1]
    )
    assert same_contents(tmp_path, paths) == (("0.wav", "390.wav"),)
    assert sorted(opened) == [(name, most) for name in ("0.wav", "390.wav") for most in (4096, 2**20)]


def test_files_that_begin_otherwise_are_not_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = wavs(tmp_path, *(number.to_bytes(2, "big") * 3000 for number in range(50)))
    lengths: list[int] = []
    whole = duplicates._ends
    monkeypatch.setattr(duplicates, "_ends", lambda path, most: (lengths.append(most), whole(path, most))[1])
    assert same_contents(tmp_path, paths) == ()
    assert set(lengths) == {4096}


def test_equal_contents_that_are_no_media_and_files_that_are_gone_are_left_to_the_reader(tmp_path: Path) -> None:
    put(tmp_path, *(f"{split}/{name}" for name in GOOD for split in ("train", "val")))
    for name in ("train/walk/a.wav", "val/run/c.wav", "train/run/d.wav"):
        (tmp_path / name).write_text("<html>Video unavailable</html>")
    for name in ("train/walk/b.wav", "val/run/d.wav"):
        (tmp_path / name).write_bytes(b"")
    assert find_items(tmp_path).copies == ()
    assert same_contents(tmp_path, ["gone.wav", "gone.wav", "train"]) == ()


def test_copies_in_one_class_and_split_are_noted(tmp_path: Path) -> None:
    put(tmp_path, *(f"train/{name}" for name in GOOD), "train/walk/e.wav=train/walk/a.wav", "val/walk/f.wav")
    source = find_items(put(tmp_path, "test/walk/g.wav=val/walk/f.wav"))
    assert source.notes == (
        "copies of other clips of their class (1): 'train/walk/e.wav'",
        "clips both in val and in test (1): 'val/walk/f.wav'",
    )
    assert source.copies == (("test/walk/g.wav", "val/walk/f.wav"), ("train/walk/a.wav", "train/walk/e.wav"))


def test_parts_of_copies_are_clips_of_their_own(tmp_path: Path) -> None:
    put(tmp_path, *GOOD, "walk/e.wav=walk/a.wav")
    text = "path,label,start,end\nwalk/a.wav,walk,0,1\nwalk/e.wav,run,1,2\nwalk/a.wav,walk,0.5,2\nrun/c.wav,run,,\n"
    (tmp_path / "t.csv").write_text(text)
    source = find_items(tmp_path / "t.csv")
    assert source.notes == ()
    assert source.copies == (("walk/a.wav", "walk/e.wav"),)


@pytest.mark.parametrize("seed", range(8))
def test_where_we_split_copies_stay_together(tmp_path: Path, seed: int) -> None:
    put(tmp_path, *(f"{label}/{n}.wav" for label in ("walk", "run") for n in range(6)))
    for label in ("walk", "run"):
        put(tmp_path, *(f"{label}/{n + 6}.wav={label}/{n}.wav" for n in range(6)))
    source = assign_splits(find_items(tmp_path), val_share=0.3, seed=seed)
    split = {item.path: item.split for item in source.items}
    assert set(split.values()) == {"train", "val"}
    assert all(len({split[path] for path in paths}) == 1 for paths in source.copies)
    assert source.notes[-1] == "12 groups with copies of clips of others; they stay together"


def test_bytes_that_are_not_utf8_in_file_names_do_no_harm(tmp_path: Path) -> None:
    name = b"caf\xe9.wav".decode(errors="surrogateescape")
    put(tmp_path, *GOOD, f"walk/{name}", f"walk/deep/{name}=walk/{name}")
    source = assign_splits(find_items(tmp_path))
    assert source.notes[0] == r"copies of other clips of their class (1): 'walk/deep/caf\udce9.wav'"
    assert source.copies == ((f"walk/{name}", f"walk/deep/{name}"),)


def test_a_copied_set_of_which_one_file_changed_is_another(tmp_path: Path) -> None:
    put(tmp_path, *GOOD)
    shutil.copytree(tmp_path / "walk", tmp_path / "walk" / "again")
    assert len(find_items(tmp_path).copies) == 2
    file = tmp_path / "walk" / "again" / "a.wav"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert len(find_items(tmp_path).copies) == 1
