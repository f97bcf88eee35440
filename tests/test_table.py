"""Tables of any make become items; every faulty line is named; what is written is read back."""

import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from naming import naming

from tubelet.data.items import Item, find_items
from tubelet.data.problems import DataProblems
from tubelet.data.splits import assign_splits
from tubelet.data.table import read_table, write_table


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.fsencode(name))
    return root


def _table(root: Path, text: str | bytes, *clips: str) -> Path:
    _touch(root, *(clips or ("a.mp4", "b.mp4", "c.mp4", "d.mp4")))
    file = root / "clips.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


FOUR = ("walk/a.mp4", "walk/b.mp4", "run/c.mp4", "run/d.mp4")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_tables_of_any_make(tmp_path: Path, separator: str, newline: str, mark: str) -> None:
    lines = [
        "Path,Label,start,end,split,group",
        "a.mp4,walk,0.5,2,train,g",
        "b.mp4,walk,,1.5,Valid,",
        "",
        "c.mp4,run,3,,,",
    ]
    lines += ["d.mp4,run,,,,", ",,,,,", "./sub//e.mp4, run ,,,,"]
    text = mark + newline.join(lines).replace(",", separator) + newline
    file = _table(tmp_path, text, "a.mp4", "b.mp4", "c.mp4", "d.mp4", "sub/e.mp4")
    assert find_items(file).items == (
        Item("a.mp4", "walk", 0.5, 2.0, "train", "g"),
        Item("b.mp4", "walk", None, 1.5, "val", ""),
        Item("c.mp4", "run", 3.0, None, "", ""),
        Item("d.mp4", "run"),
        Item("sub/e.mp4", "run"),
    )


def test_paths_below_the_table_become_relative_and_others_stay(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    _touch(outside, "x.mp4", "y.mp4")
    rows = [f"{inside}/a.mp4,walk", "b.mp4,run", f"{outside}/x.mp4,walk", "../out/y.mp4,run"]
    source = find_items(_table(inside, "\n".join(["path,label", *rows])))
    assert {item.path for item in source.items} == {"a.mp4", "b.mp4", f"{outside}/x.mp4", "../out/y.mp4"}


def test_unread_columns_are_noted(tmp_path: Path) -> None:
    text = "label,fps,path,url\nwalk,25,a.mp4,u\nwalk,25,b.mp4,u\nrun,25,c.mp4,u\nrun,25,d.mp4,u\n"
    assert find_items(_table(tmp_path, text)).notes == ("clips.csv: columns not read: 'fps', 'url'",)


def test_parts_of_one_file_are_different_clips(tmp_path: Path) -> None:
    text = "path,label,start,end\na.mp4,walk,0,1\na.mp4,run,1,2\na.mp4,walk,2,3\na.mp4,run,3,\n"
    assert len(find_items(_table(tmp_path, text)).items) == 4


TIMES = {"62.5": 62.5, "1:02.5": 62.5, "00:00:01": 1.0, "00:01:02.500": 62.5, "90:00": 5400.0, "1:2:3": 3723.0}
TIMES |= {" 0:07 ": 7.0, "1e1": 10.0, "10:00:00.": 36000.0}
NO_TIMES = ("1:60", "1:60:00", "1:2:3:4", "-0:01", "0:-1", ":30", "1:", "1:0x1", "١:٠٢", "inf")


def test_times_are_seconds_or_read_off_a_clock(tmp_path: Path) -> None:
    names = [f"{number}.mp4" for number in range(len(TIMES))]
    text = "path,label,start\n" + "".join(f"{name},walk,{time}\n" for name, time in zip(names, TIMES))
    items = find_items(_table(tmp_path, text, *names), minimum_classes=1).items
    assert [item.start_seconds for item in items] == list(TIMES.values())


@pytest.mark.parametrize(
    ("row", "kind", "values"),
    [
        ("gone.mp4,walk,,,,", "missing-file", ("'gone.mp4'",)),
        (" ,walk,,,,", "empty-path", ()),
        ("a.mp4,,,,,", "empty-label", ()),
        ("a.mp4", "cells", (1, 6)),
        ("a.mp4,walk,,,,,x", "cells", (7, 6)),
        ("notes.txt,walk,,,,", "not-media", ("'notes.txt'",)),
        ("a.mp4,walk,x,,,", "times", ("start 'x'",)),
        ("a.mp4,walk,,nan,,", "times", ("end 'nan'",)),
        ("a.mp4,walk,-1,,,", "times", ("start '-1'",)),
        *((f"a.mp4,walk,{time},,,", "times", (f"start '{time}'",)) for time in NO_TIMES),
        ("a.mp4,walk,2,2,,", "times", ("start 2.0", "end 2.0")),
        ("a.mp4,walk,,0,,", "times", ("start 0.0", "end 0.0")),
        ("a.mp4,walk,,,hold,", "split", ("'hold'", "train", "val", "valid")),
        ('"a.mp4,walk,,,,', "broken-row", ()),
    ],
)
def test_faulty_lines(tmp_path: Path, row: str, kind: str, values: tuple[object, ...]) -> None:
    text = f"path,label,start,end,split,group\nb.mp4,walk,,,,\n{row}"
    with pytest.raises(DataProblems, match=naming("line 3")) as caught:
        find_items(_table(tmp_path, text, "a.mp4", "b.mp4", "notes.txt"))
    first = caught.value.problems[0]
    assert (first.kind, first.where) == (kind, "clips.csv line 3")
    assert re.search(naming(*values), first.message)


def test_all_faults_are_counted_and_twenty_shown(tmp_path: Path) -> None:
    text = "path,label\n" + "".join(f"{i}.mp4,{'walk' if i % 2 else 'run'}\n" for i in range(30))
    with pytest.raises(DataProblems, match=naming(tmp_path / "clips.csv", 30, "30 missing-file")) as caught:
        find_items(_table(tmp_path, text))
    _, *lines, last = str(caught.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines] == [f"clips.csv line {number}" for number in range(2, 22)]
    assert last == f"  and 10 more, which `tubelet check {tmp_path / 'clips.csv'} --json` lists"
    assert [problem.where for problem in caught.value.problems] == [f"clips.csv line {n}" for n in range(2, 32)]


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("a.mp4,walk\nb.mp4,run\n", "header", ("'a.mp4,walk'", "path", "label")),
        ("", "header", ("''", "path", "label")),
        ("a.mp4 0\n", "header", ("'a.mp4 0'", "path", "label")),
        ("path,label,label\n", "header", ("'label'",)),
        ("path,label\n\n", "layout", ()),
        ("path,label\n".encode("utf-16"), "unreadable", ("'CSV UTF-8'",)),
        ("path,label\na.mp4,café\n".encode("latin-1"), "class-name", (r"'caf\udce9'", "UTF-8")),
        ("path,label\na.mp4,walk\nb.mp4,Walk\n", "alike-classes", ("'Walk'", "'walk'")),
        ("path,label\na.mp4,walk\na.mp4,run\n", "two-labels", ("a.mp4", "'run'", "'walk'")),
        ("path,label,start,end\na.mp4,walk,1,2\na.mp4,run,1,2\n", "two-labels", ("a.mp4#t=1,2", "'run'", "'walk'")),
        ("path,label\na.mp4,walk\na.mp4,walk\n", "repeated", ("a.mp4", "1 repeated", "1 few-classes")),
        ("path,label,split\na.mp4,walk,train\na.mp4,walk,val\n", "leak", ("a.mp4", "train", "val")),
        ("path,label,split\na.mp4,walk,val\na.mp4,walk,test\n", "repeated", ("a.mp4", "1 repeated")),
        ("path,label\na.mp4,walk\nb.mp4,walk\n", "few-classes", ("'walk'", 1, 2)),
    ],
)
def test_faulty_tables(tmp_path: Path, text: str | bytes, kind: str, values: tuple[object, ...]) -> None:
    with pytest.raises(DataProblems, match=naming(tmp_path / "clips.csv", *values)) as caught:
        find_items(_table(tmp_path, text))
    assert caught.value.problems[0].kind == kind


def test_a_split_written_and_read_is_the_same(tmp_path: Path) -> None:
    awkward = ("run/a, b.mp4", 'run/"q".mp4', "run/ é\n.mp4", "walk/-x;y.mp4", "walk/=1+1.mp4")
    source = assign_splits(find_items(_touch(tmp_path / "data", *FOUR, *awkward)), seed=3)
    timed = replace(source.items[0], start_seconds=1 / 3, end_seconds=1e9 / 7)
    source = replace(source, items=(timed, *source.items[1:]), notes=())
    write_table(tmp_path / "split.csv", source.items)
    assert tuple(read_table(tmp_path / "split.csv", root=tmp_path / "data").items) == source.items


def test_parts_of_one_file_have_names_of_their_own() -> None:
    times = [(None, None), (None, 2.0), (1.5, None), (1.5, 4.0)]
    names = [Item("a.mp4", "walk", start, end).name for start, end in times]
    assert names == ["a.mp4", "a.mp4#t=,2", "a.mp4#t=1.5", "a.mp4#t=1.5,4"]


@pytest.mark.parametrize("text", ["\n \n,,\npath,label{}", "path;label{}", "\ufeffpath\tlabel{}"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\n\n"])
def test_blank_lines_anywhere_and_any_line_end_do_no_harm(tmp_path: Path, text: str, newline: str) -> None:
    lines = "".join(
        f"\n{path},{label}" for path, label in (("a.mp4", "w"), ("b.mp4", "w"), ("c.mp4", "r"), ("d.mp4", "r"))
    )
    separator = ";" if ";" in text else "\t" if "\t" in text else ","
    text = text.format(lines.replace(",", separator)).replace("\n", newline)
    assert [item.path for item in find_items(_table(tmp_path, text)).items] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


@pytest.mark.parametrize(("said", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_tables_and_disks_may_write_an_accent_differently(tmp_path: Path, said: str, there: str) -> None:
    said, there = (unicodedata.normalize(form, "é/é.mp4") for form in (said, there))
    file = _table(tmp_path, f"path,label\n{said},w\nb.mp4,w\nc.mp4,r\nd.mp4,r\n", there, "b.mp4", "c.mp4", "d.mp4")
    assert there in [item.path for item in find_items(file).items]


def test_bytes_that_are_not_utf8_in_paths_do_no_harm(tmp_path: Path) -> None:
    name = b"caf\xe9.mp4".decode(errors="surrogateescape")
    text = b"path,label\ncaf\xe9.mp4,w\nb.mp4,w\nc.mp4,r\nd.mp4,r\n"
    assert name in [item.path for item in find_items(_table(tmp_path, text, name, "b.mp4", "c.mp4", "d.mp4")).items]
    with pytest.raises(DataProblems, match=naming("clips.csv line 6", r"'x\udce9.mp4'")):
        find_items(_table(tmp_path, text + b"x\xe9.mp4,r\n"))
