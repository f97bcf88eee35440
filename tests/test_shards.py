"""Tar shards in WebDataset's layout: the same clips as files, the same bits."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_server import serve
from media_files import write_numbered, write_sound
from naming import naming
from safetensors.torch import load_file
from small_sets import command, pictures, tiny_config, write_image, write_videos

from tubelet.check import check
from tubelet.data.duplicates import mark_content, same_contents
from tubelet.data.items import find_items
from tubelet.data.problems import DataProblems
from tubelet.data.walk import list_media
from tubelet.media.bytes import members, open_bytes, stat
from tubelet.media.errors import MediaError
from tubelet.media.health import examine
from tubelet.media.reader import index, read_frames, read_sound
from tubelet.media.tar import list_members
from tubelet.tasks import MultiLabel
from tubelet.train.train import train_fn


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes of tars are kept, but not among the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def write_tar(tar: Path, members: Mapping[str, bytes], *, form: int = tarfile.PAX_FORMAT) -> Path:
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w", format=form) as file:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            file.addfile(about, io.BytesIO(content))
    return tar


def pack(folder: Path, tar: Path) -> Path:
    """Class folders as a shard: the label of walk/a.mp4 in walk/a.cls."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content: dict[str, bytes] = {}
    for file in files:
        name = file.relative_to(folder)
        content |= {name.as_posix(): file.read_bytes(), name.with_suffix(".cls").as_posix(): file.parent.name.encode()}
    return write_tar(tar, content)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_where_python_finds_them(tmp_path: Path, form: int) -> None:
    long = "a" * 90 + "/" + "b" * 60
    odd = {} if form == tarfile.USTAR_FORMAT else {"c" * 300 + ".mp4": b"long", "wörter.mp4": b"letters"}
    tar = write_tar(tmp_path / "a.tar", {"./a.mp4": b"x" * 511, long: b"y" * 513, "z": b"", **odd}, form=form)
    with tarfile.open(tar, "a", format=form) as file:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.LNKTYPE, "z"
        file.addfile(link)
    with tarfile.open(tar) as file:
        expected = [(one.name.removeprefix("./"), one.offset_data, one.size) for one in file if one.isreg()]
    expected = [one for one in expected if one[0] != "link"]
    with open_bytes(tar) as file:
        assert [tuple(one) for one in list_members(str(tar), file, tar.stat().st_size)] == expected


def test_a_number_that_needs_more_than_its_field(tmp_path: Path) -> None:
    about = tarfile.TarInfo("a.mp4")
    about.size = 5
    header = bytearray(about.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (5).to_bytes(11)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + b"hello".ljust(512, b"\0") + bytes(1024))
    assert [(one.name, one.size) for one in members(tmp_path / "a.tar").values()] == [("a.mp4", 5)]


def test_the_index_of_a_tar_is_kept_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = write_tar(tmp_path / "a.tar", {"a.mp4": b"1"})
    assert [*members(tar)] == ["a.mp4"]
    monkeypatch.setattr("tubelet.media.bytes._tars", type(members.__globals__["_tars"])())
    monkeypatch.setattr("tubelet.media.bytes.list_members", lambda *_: pytest.fail("its headers are read again"))
    assert [*members(tar)] == ["a.mp4"]
    monkeypatch.undo()
    write_tar(tar, {"b.mp4": b"2", "c.mp4": b"3"})
    assert [*members(tar)] == ["b.mp4", "c.mp4"]


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda data: data[:700], "truncated"),
        (lambda data: data[:1024], "truncated"),
        (lambda data: data[:1500], "truncated"),
        (lambda data: data[:1024] + b"x" * 512 + data[1536:], "damaged"),
        (lambda data: b"\x1f\x8b" + bytes(range(256)) * 4, "blocked"),
    ],
)
def test_a_tar_that_is_none(tmp_path: Path, damage: Callable[[bytes], bytes], code: str) -> None:
    tar = write_tar(tmp_path / "a.tar", {"a.mp4": b"x" * 400, "b.mp4": b"x" * 4000})
    tar.write_bytes(damage(tar.read_bytes()))
    with pytest.raises(MediaError) as caught:
        members(tar)
    assert (caught.value.code, caught.value.path) == (code, str(tar))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".png", ".wav"])
def test_a_member_is_read_as_the_file_would_be(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    if suffix == ".wav":
        write_sound(file, np.sin(np.arange(8000) / 20), sample_rate=16000)
    elif suffix == ".png":
        write_image(file, pictures(60, [1], frames=1)[0])
    else:
        write_numbered(file, 60, sound_hz=None if suffix == ".avi" else 440)
    tar = write_tar(tmp_path / "x.tar", {"pad": b"p" * 700, f"walk/a{suffix}": file.read_bytes()})
    member = f"{tar}/walk/a{suffix}"
    mine, theirs = index(member), index(file)
    for field, value in vars(theirs).items():
        assert field == "path" or np.array_equal(getattr(mine, field), value), field
    ours, other = vars(examine(member)), vars(examine(file))
    assert {**ours, "path": ""} == {**other, "path": ""}
    if suffix == ".wav":
        assert np.array_equal(read_sound(member, sample_rate=8000), read_sound(file, sample_rate=8000))
    else:
        times = np.array([0.0, 1.3, 0.7])
        assert np.array_equal(read_frames(member, times), read_frames(file, times))
    assert mark_content(member) == mark_content(file)
    assert same_contents(tmp_path, [f"a{suffix}", f"x.tar/walk/a{suffix}"]) == (
        (f"a{suffix}", f"x.tar/walk/a{suffix}"),
    )


def test_a_member_that_is_not_there(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", {"a.mp4": b"1"})
    with pytest.raises(MediaError) as caught:
        stat(f"{tar}/b.mp4")
    assert caught.value.code == "missing"


def labels_of(data: Path, **settings: Any) -> dict[str, tuple[str, str, str]]:
    found = find_items(data, minimum_classes=1, minimum_clips=1, **settings)
    return {item.path: (item.label, item.split, item.group) for item in found.items}


def clips(count: int) -> list[bytes]:
    return [b"clip %d" % number for number in range(count)]


def test_labels_stand_beside_the_clips(tmp_path: Path) -> None:
    one, two, three, four, five = clips(5)
    write_tar(
        tmp_path / "train-000000.tar",
        {"walk/a.mp4": one, "walk/a.cls": b"walk\n", "b.mp4": two, "b.json": b'{"label": "run", "group": "g"}'},
    )
    write_tar(tmp_path / "val" / "000000.tar", {"c.hd.mp4": three, "c.txt": b"walk", "d.mp4": four, "d.cls": b"run"})
    write_tar(tmp_path / "test_1.tar", {"e.mp4": five, "e.txt": b"a man walks", "e.cls": b"walk", "._e.mp4": b""})
    assert labels_of(tmp_path) == {
        "train-000000.tar/walk/a.mp4": ("walk", "train", ""),
        "train-000000.tar/b.mp4": ("run", "train", "g"),
        "val/000000.tar/c.hd.mp4": ("walk", "val", ""),
        "val/000000.tar/d.mp4": ("run", "val", ""),
        "test_1.tar/e.mp4": ("walk", "test", ""),
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [("classes.txt", "jump\nrun\n"), ("classes.json", '["jump", "run"]'), ("classes.json", '{"run": 1, "jump": 0}')],
)
def test_numbers_of_classes_have_names(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    one, two = clips(2)
    write_tar(tmp_path / "0.tar", {"a.mp4": one, "a.cls": b"1", "b.mp4": two, "b.json": b'{"label": 0}'})
    assert [label for label, _, _ in labels_of(tmp_path).values()] == ["run", "jump"]


def test_labels_of_other_tasks(tmp_path: Path) -> None:
    one, two = clips(2)
    write_tar(tmp_path / "0.tar", {"a.mp4": one, "a.json": b'{"label": ["x", "y"]}', "b.mp4": two, "b.cls": b"y"})
    assert [label for label, _, _ in labels_of(tmp_path, task=MultiLabel).values()] == ["x;y", "y"]


def test_clips_without_a_label_are_left_out_with_a_note(tmp_path: Path) -> None:
    one, two = clips(2)
    write_tar(tmp_path / "0.tar", {"a.mp4": one, "a.cls": b"x", "b.mp4": two})
    found = find_items(tmp_path, minimum_classes=1, minimum_clips=1)
    assert [item.path for item in found.items] == ["0.tar/a.mp4"]
    assert any("1 clip" in note for note in found.notes)


def test_tars_in_a_table(tmp_path: Path) -> None:
    one, two, three = clips(3)
    write_tar(tmp_path / "far" / "a.tar", {"a.mp4": one, "a.cls": b"x"})
    write_tar(tmp_path / "far" / "train-b.tar", {"b.mp4": two, "b.cls": b"x"})
    (tmp_path / "c.mp4").write_bytes(three)
    table = tmp_path / "all.csv"
    table.write_text("path,split\nfar/a.tar,test\nfar/train-b.tar,\n")
    assert labels_of(table) == {"far/a.tar/a.mp4": ("x", "test", ""), "far/train-b.tar/b.mp4": ("x", "train", "")}
    assert list_media(table).files == ("far/a.tar/a.mp4", "far/train-b.tar/b.mp4")
    table.write_text("path,label\nfar/a.tar,\nc.mp4,z\nfar/train-b.tar/b.mp4,w\n")
    assert {path: label for path, (label, _, _) in labels_of(table).items()} == {
        "far/a.tar/a.mp4": "x",
        "c.mp4": "z",
        "far/train-b.tar/b.mp4": "w",
    }
    table.write_text("path,label\nfar/a.tar/none.mp4,x\n")
    with pytest.raises(DataProblems) as caught:
        find_items(table)
    assert "missing-file" in {problem.kind for problem in caught.value.problems}


def test_compressed_tars_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar.gz", "w:gz"):
        pass
    with pytest.raises(DataProblems) as caught:
        find_items(tmp_path)
    assert [(one.kind, one.where) for one in caught.value.problems][:1] == [("unreadable", "0.tar.gz")]


def test_a_tar_beside_class_folders_is_passed_over(tmp_path: Path) -> None:
    write_videos(tmp_path, 2)
    pack(tmp_path, tmp_path / "all.tar")
    assert len(find_items(tmp_path).items) == 4
    assert len(list_media(tmp_path).files) == 4


def weights(run: Path) -> Mapping[str, Any]:
    return load_file(run / "model.safetensors")


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The same clips in class folders and in shards, and a run on the first."""
    root = tmp_path_factory.mktemp("sets")
    write_videos(root / "folders" / "train", 4)
    write_videos(root / "folders" / "val", 2, first=4)
    for split in ("train", "val"):
        pack(root / "folders" / split, root / "shards" / f"{split}-000000.tar")
    train_fn(tiny_config(root / "folders", root / "run"), show=False)
    return root / "folders", root / "shards", root / "run"


def test_training_from_shards_gives_the_same_bits(sets: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, shards, run = sets
    train_fn(tiny_config(shards, tmp_path / "run"), show=False)
    assert equal(weights(run), weights(tmp_path / "run"))


def test_training_from_shards_elsewhere_gives_the_same_bits(sets: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, shards, run = sets
    tars = sorted(shards.glob("*.tar"))
    with serve(files={f"/{tar.name}": tar.read_bytes() for tar in tars}) as server:
        rows = "".join(f"{server.url}/{tar.name}\n" for tar in tars)
        (tmp_path / "clips.csv").write_text(f"path\n{rows}")
        train_fn(tiny_config(tmp_path / "clips.csv", tmp_path / "run"), show=False)
        for tar in tars:
            assert server.sent(f"/{tar.name}") <= tar.stat().st_size
    assert equal(weights(run), weights(tmp_path / "run"))


def test_commands_take_shards(
    sets: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders, shards, run = sets
    answers = {}
    for data in (folders, shards):
        assert command("predict", run, data, "--device", "cpu", "--json") == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        answers[data] = {Path(line["path"]).parts[-2:]: line["probabilities"] for line in lines}
    assert answers[folders] == answers[shards]
    one = shards / "val-000000.tar"
    assert command("predict", run, one, f"{one}/dark/4.mp4", "--device", "cpu") == 0
    assert command("eval", run, shards, "--device", "cpu") == 0
    assert command("check", shards) == 0
    assert len(check(one, show=False)) == 4
    assert command("embed", run, shards, "--out", tmp_path / "vectors", "--device", "cpu") == 0
    assert command("prepare", shards, tmp_path / "small", "--short-side", "16") == 0
    assert (tmp_path / "small" / "train-000000.tar" / "dark" / "0.mp4").is_file()
    with pytest.raises(ValueError, match=naming("a.tgz", "compressed")):
        list_media(write_tar(tmp_path / "a.tgz", {}))
