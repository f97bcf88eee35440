"""Broken folders and tables: all that is wrong is said at once, each with its kind and its place."""

import os
import pickle
import shutil
import unicodedata
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_sets import TINY_FLAGS, command, write_videos

from tubelet.data.items import find_items
from tubelet.data.problems import KINDS, DataProblems, Problem
from tubelet.tasks import MultiLabel, Regression


def put(root: Path, *names: str) -> Path:
    """Sounds of one size, each its own; "a.wav=b.wav": a copy of b, "a.wav>b.wav": a link to it, "a/": a folder."""
    for name in names:
        path, copied, original = name.partition("=")
        path, linked, target = path.partition(">")
        file = root / path
        (file if path.endswith("/") else file.parent).mkdir(parents=True, exist_ok=True)
        if copied:
            shutil.copyfile(root / original, file)
        elif linked:
            file.symlink_to(root / target)
        elif not path.endswith("/"):
            with wave.open(str(file), "wb") as sound:
                sound.setparams((1, 2, 16000, 0, "NONE", ""))
                sound.writeframes(os.fsencode(str(file)[-64:]).rjust(64) * 10)
    return root


GOOD = ("walk/a.wav", "walk/b.wav", "run/c.wav", "run/d.wav")
TRAIN = tuple(f"train/{name}" for name in GOOD)
FLAT = ("a.wav", "b.wav", "c.wav", "d.wav")


def folder(*names: str) -> Callable[[Path], Path]:
    return lambda root: put(root, *names)


def table(text: str | bytes, *names: str, name: str = "t.csv") -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        put(root, *(names or FLAT))
        (root / name).write_bytes(text.encode(errors="surrogateescape") if isinstance(text, str) else text)
        return root / name

    return make


def rows(*lines: str, header: str = "path,label,start,end,split") -> Callable[[Path], Path]:
    """Lines 2 to 5 are fine, and those given come after them."""
    good = [
        f"{path},{label}" + "," * (header.count(",") - 1) for path, label in zip(FLAT, ("walk", "walk", "run", "run"))
    ]
    return table("\n".join([header, *good, *lines]) + "\n")


def pipe(root: Path) -> Path:
    os.mkfifo(root / "clips.csv")
    return root / "clips.csv"


E_NFC, E_NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
BYTES = os.fsdecode(b"caf\xe9")
ROOT = "."  # stands for the data set as a whole

# What is made, and all that is expected: the kind and the place of each problem.
BROKEN: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    # folders
    "missing": (lambda root: root / "nowhere", ["missing ."]),
    "a name too long": (lambda root: root / ("x" * 300), ["missing ."]),
    "one file": (lambda root: put(root, "a.wav") / "a.wav", ["layout ."]),
    "a pipe": (pipe, ["layout ."]),
    "empty": (lambda root: root, ["layout ."]),
    "hidden only": (folder(".git/a.wav", "__MACOSX/b.wav", "._c.wav"), ["layout ."]),
    "loose files": (folder(*FLAT), ["layout ."]),
    "loose files in splits": (folder("train/a.wav", "val/b.wav"), ["layout train", "layout val"]),
    "a split without classes": (folder(*TRAIN, "val/a.wav"), ["layout val"]),
    "classes beside splits": (folder(*TRAIN, "sit/e.wav"), ["layout ."]),
    "links back alone": (lambda root: put(root, "knot>."), ["layout ."]),
    "one class": (folder(*GOOD[:2]), ["few-classes ."]),
    "one clip in all": (folder("walk/a.wav"), ["few-classes .", "few-clips class 'walk'"]),
    "a clip each": (folder("walk/a.wav", "run/a.wav"), ["few-clips class 'run'", "few-clips class 'walk'"]),
    "empty classes": (folder(*GOOD, "sit/", "stand/deep/"), ["empty-class sit", "empty-class stand"]),
    "nothing but empty classes": (folder("sit/", "stand/"), ["empty-class sit", "empty-class stand"]),
    "an empty class in train": (folder(*TRAIN, "train/sit/", "val/sit/a.wav"), ["empty-class train/sit"]),
    "an empty class, and one class": (folder("sit/"), ["empty-class sit", "few-classes ."]),
    "case": (folder(*GOOD, "Walk/e.wav"), ["alike-classes classes 'Walk' and 'walk'"]),
    "case, and one class": (
        folder(*GOOD[:2], "Walk/e.wav"),
        ["alike-classes classes 'Walk' and 'walk'", "few-classes ."],
    ),
    "case across splits": (folder(*TRAIN, "val/RUN/e.wav"), ["alike-classes classes 'RUN' and 'run'"]),
    "spaces": (folder(*GOOD, "walk /e.wav"), ["alike-classes classes 'walk' and 'walk '"]),
    "forms": (
        folder(*GOOD, f"{E_NFC}/a.wav", f"{E_NFD}/b.wav"),
        [r"alike-classes classes 'e\u0301' and '\xe9'"],
    ),
    "line end in a class": (folder(*GOOD, "a\nb/e.wav", "a\nb/f.wav"), [r"class-name class 'a\nb'"]),
    "escape code in a class": (folder(*GOOD, "\x1b[2J/e.wav", "\x1b[2J/f.wav"), [r"class-name class '\x1b[2J'"]),
    "bytes in a class": (folder(*GOOD, f"{BYTES}/e.wav", f"{BYTES}/f.wav"), [r"class-name class 'caf\udce9'"]),
    "a blank class": (folder(*GOOD, " /e.wav", " /f.wav"), ["class-name class ' '"]),
    "a class of val alone": (folder(*TRAIN, "val/sit/e.wav", "val/sit/f.wav"), ["unseen-class class 'sit'"]),
    "classes of val and test alone": (
        folder(*TRAIN, "val/sit/e.wav", "test/sit/f.wav", "test/lie/g.wav"),
        ["unseen-class class 'sit'", "unseen-class class 'lie'"],
    ),
    "kinds": (folder(*GOOD, "walk/a.mp4", "run/b.png"), ["mixed-kinds ."]),
    "a link under two labels": (folder(*GOOD, "run/e.wav>walk/a.wav"), ["two-labels run/e.wav and walk/a.wav"]),
    "a copy under two labels": (folder(*GOOD, "run/e.wav=walk/a.wav"), ["two-labels run/e.wav and walk/a.wav"]),
    "a link in the class": (folder(*GOOD, "walk/e.wav>walk/a.wav"), ["repeated walk/a.wav and walk/e.wav"]),
    "a copy in train and test": (
        folder(*TRAIN, "test/walk/e.wav=train/walk/a.wav", "test/run/e.wav"),
        ["leak test/walk/e.wav and train/walk/a.wav"],
    ),
    "a link in train and val": (
        folder(*TRAIN, "val/walk/e.wav>train/walk/a.wav"),
        ["leak train/walk/a.wav and val/walk/e.wav"],
    ),
    "a copy in train and val under two labels": (
        folder(*TRAIN, "val/run/e.wav=train/walk/a.wav"),
        ["two-labels train/walk/a.wav and val/run/e.wav"],
    ),
    "two copies in test": (
        folder(*TRAIN, "test/walk/e.wav=train/walk/a.wav", "test/walk/f.wav=train/walk/b.wav"),
        ["leak test/walk/e.wav and train/walk/a.wav", "leak test/walk/f.wav and train/walk/b.wav"],
    ),
    "six at once": (
        folder(
            *(*TRAIN, "train/sit/", "val/Walk/e.wav", "val/lie/f.wav", "val/lie/g.wav", "train/walk/h.png"),
            *("val/run/i.wav=train/run/c.wav", "train/run/j.wav=train/walk/b.wav"),
        ),
        [
            "empty-class train/sit",
            "alike-classes classes 'Walk' and 'walk'",
            "unseen-class class 'lie'",
            "mixed-kinds .",
            "leak train/run/c.wav and val/run/i.wav",
            "two-labels train/run/j.wav and train/walk/b.wav",
        ],
    ),
    # tables
    "no header": (table("a.wav,walk\nb.wav,run\n"), ["header ."]),
    "an empty table": (table(""), ["header ."]),
    "a header alone": (table("path,label\n\n \n"), ["layout ."]),
    "a header with a column twice": (table("path,label,label\n"), ["header ."]),
    "a header with two faults": (table("path,path,name\n"), ["header .", "header ."]),
    "a header with a broken quote": (table('"path,label\na.wav,walk\n'), ["header ."]),
    "UTF-16": (table("path,label\na.wav,walk\n".encode("utf-16")), ["unreadable ."]),
    "Latin 1 labels": (rows("a.wav,caf\udce9,0,1,", "b.wav,caf\udce9,0,1,"), [r"class-name class 'caf\udce9'"]),
    "an open quote": (rows('"a.wav,walk,0,1,', "b.wav,walk,0,1,"), ["broken-row t.csv line 6"]),
    "a quote in the way": (
        rows('"a"x,walk,0,1,', "gone.wav,run,,,"),
        ["broken-row t.csv line 6", "missing-file t.csv line 7"],
    ),
    "cells": (rows("a.wav,walk", "a.wav,walk,0,1,train,x"), ["cells t.csv line 6", "cells t.csv line 7"]),
    "missing files": (rows("x.wav,run,,,", "", "a,run,,,"), ["missing-file t.csv line 6", "missing-file t.csv line 8"]),
    "a path too long": (rows(f"{'x' * 5000}.wav,run,,,"), ["missing-file t.csv line 6"]),
    "no media": (rows("t.csv,run,,,"), ["not-media t.csv line 6"]),
    "nothing in a line but a split": (rows(",,,,train"), ["empty-path t.csv line 6", "empty-label t.csv line 6"]),
    "times": (
        rows("a.wav,walk,x,nan,", "a.wav,walk,2,1,", "a.wav,walk,-1,,"),
        ["times t.csv line 6", "times t.csv line 6", "times t.csv line 7", "times t.csv line 8"],
    ),
    "a split": (rows("a.wav,walk,0,1,hold"), ["split t.csv line 6"]),
    "a row twice": (rows("a.wav,walk,,,"), ["repeated a.wav"]),
    "two labels": (rows("a.wav,run,,,"), ["two-labels a.wav"]),
    "two labels of a part": (rows("a.wav,run,1,2,", "./a.wav,walk,1,2,"), ["two-labels a.wav#t=1,2"]),
    "in val and test": (
        table("path,label,start,split\na.wav,walk,1,val\na.wav,walk,1,test\nb.wav,run,,val\nc.wav,run,,val\n"),
        ["repeated a.wav#t=1"],
    ),
    "in train and test": (rows("a.wav,walk,,,test"), ["leak a.wav"]),
    "parts that overlap in train and test": (
        table(
            "path,label,start,end,split\na.wav,walk,0,2,train\na.wav,walk,1,3,test\na.wav,walk,3,4,train\n"
            "b.wav,run,,1,test\nb.wav,run,1,,train\n"
        ),
        ["leak a.wav#t=0,2 and a.wav#t=1,3"],
    ),
    "a class whose lines are all faulty counts": (
        table("path,label\na.wav,walk\nb.wav,walk\nx.wav,run\ny.wav,run\n"),
        ["missing-file t.csv line 4", "missing-file t.csv line 5"],
    ),
    "all lines faulty": (
        table("path,label\nx.wav,\n,run\n"),
        ["missing-file t.csv line 2", "empty-label t.csv line 2", "empty-path t.csv line 3", "few-classes ."],
    ),
    "several classes": (
        rows("a.wav,walk;;run,0,1,", "b.wav,run; run,0,1,", "c.wav,,0,1,", "d.wav,(none),0,1,", "d.wav,;,0,2,"),
        ["label t.csv line 6", "label t.csv line 7", "label t.csv line 10"],
    ),
    "class folders of several classes": (
        folder(*GOOD, "walk;;run/e.wav", "walk;run/f.wav"),
        ["label class 'walk;;run'"],
    ),
    "numbers": (
        table("path,speed,angle\na.wav,1,-2e3\nb.wav,x,nan\nc.wav,,\nd.wav,1\nd.wav,2;3,\n"),
        ["label t.csv line 3", "cells t.csv line 5", "label t.csv line 6"],
    ),
    "numbers without their columns": (table("path,speed\na.wav,1\n"), ["header ."]),
    "nine at once": (
        rows(
            *("gone.wav,run,,,", "a.wav,,,,", "b.wav,walk,x,,", "b.wav,walk,0,1,all", "b.wav,walk", "c.wav,Run,0,1,"),
            *("a.wav,run,,,", "d.wav,run,0,1,val", "c.wav,run,,,"),
        ),
        [
            *("missing-file t.csv line 6", "empty-label t.csv line 7", "times t.csv line 8", "split t.csv line 9"),
            *("cells t.csv line 10", "alike-classes classes 'Run' and 'run'", "two-labels a.wav"),
            *("leak d.wav#t=0,1 and d.wav", "repeated c.wav"),
        ],
    ),
}


TASKS_OF: dict[str, dict[str, Any]] = {
    "several classes": {"task": MultiLabel},
    "class folders of several classes": {"task": MultiLabel},
    "numbers": {"task": Regression, "labels": ("speed", "angle")},
    "numbers without their columns": {"task": Regression, "labels": ("speed", "angle")},
}


def problems_of(data: Path, **task: Any) -> DataProblems:
    with pytest.raises(DataProblems) as caught:
        find_items(data, **task)
    return caught.value


@pytest.mark.parametrize("name", BROKEN)
def test_all_that_is_wrong_is_told(tmp_path: Path, name: str) -> None:
    make, expected = BROKEN[name]
    data = make(tmp_path)
    error = problems_of(data, **TASKS_OF.get(name, {}))
    found = [f"{one.kind} {ROOT if one.where == str(data) else one.where}" for one in error.problems]
    assert sorted(found) == sorted(expected)
    text = str(error)
    assert text.startswith(f"{data}: ")
    assert all(one.message in text and one.where in text for one in error.problems)
    assert text.replace("\n  ", "").isprintable()


def test_every_kind_of_problem_is_met() -> None:
    met = {found.split()[0] for _, expected in BROKEN.values() for found in expected}
    assert met | {"overlap"} == set(KINDS)  # of segments alone: test_recordings.py
    assert len(BROKEN) >= 40


def test_counts_by_kind_come_first(tmp_path: Path) -> None:
    make, expected = BROKEN["six at once"]
    head = str(problems_of(make(tmp_path))).splitlines()[0]
    assert head.startswith(f"{tmp_path}: 6 problems (1 ")
    assert all(f"1 {found.split()[0]}" in head for found in expected)


def test_many_of_one_kind_do_not_hide_the_others() -> None:
    many = [Problem("missing-file", f"t.csv line {n}", "gone") for n in range(2, 60)]
    error = DataProblems("/data", [*many, Problem("leak", "a.wav", "in train and test"), many[0]])
    lines = str(error).splitlines()
    assert lines[0] == "/data: 60 problems (59 missing-file, 1 leak):"
    assert lines[1:-1] == [f"  t.csv line {n}: gone" for n in range(2, 21)] + ["  a.wav: in train and test"]
    assert lines[-1] == "  and 40 more, which `tubelet check /data --json` lists"


def test_one_problem_is_one_line() -> None:
    assert str(DataProblems("/data", [Problem("layout", "val", "empty")])) == "/data: val: empty"


def test_the_error_passes_between_processes() -> None:
    error = DataProblems("/data", [Problem("layout", "/data", "empty"), Problem("leak", "a", "b")])
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, DataProblems)
    assert (again.origin, again.problems, str(again)) == (error.origin, error.problems, str(error))


def test_folders_and_tables_that_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *GOOD, "sit/e.wav", "run/deep/f.wav", "stand/")
    (tmp_path / "t.csv").write_text("path,label\n")
    listed, read = os.scandir, Path.read_bytes

    def closed(path: Path) -> None:
        if path.name in ("sit", "deep", "t.csv"):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", lambda path: (closed(Path(path)), listed(path))[1])
    monkeypatch.setattr(Path, "read_bytes", lambda path: (closed(path), read(path))[1])
    error = problems_of(tmp_path)
    assert [(one.kind, one.where) for one in error.problems] == [
        ("unreadable", "run/deep"),
        ("unreadable", "sit"),
        ("empty-class", "stand"),
    ]
    assert error.problems[0].message == "cannot be looked into (Permission denied); check its permissions or remove it"
    table = problems_of(tmp_path / "t.csv")
    assert str(table) == f"{tmp_path / 't.csv'}: cannot be opened (Permission denied); check its permissions"


def test_the_command_line_tells_all_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_videos(tmp_path / "data", 2)
    put(data, "sit/", "Dark/a.wav", "bright/2.mp4=dark/0.mp4")
    assert command("train", data, "--out", tmp_path / "run", *TINY_FLAGS) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    assert f"tubelet: {data}: 4 problems" in said.err
    for told in (
        "1 empty-class",
        "1 alike-classes",
        "1 mixed-kinds",
        "1 two-labels",
        "bright/2.mp4 and dark/0.mp4: the",
    ):
        assert told in said.err
    assert not (tmp_path / "run").exists()


def test_a_misspelled_class_is_told_from_one_that_is_new(tmp_path: Path) -> None:
    error = problems_of(put(tmp_path, *TRAIN, "val/walk/e.wav", "val/wlak/f.wav", "test/lie/g.wav"))
    unseen = {problem.where: problem.message for problem in error.problems}
    assert [problem.kind for problem in error.problems] == ["unseen-class", "unseen-class"]
    assert unseen["class 'wlak'"].endswith("did you mean 'walk'?")
    assert "did you mean" not in unseen["class 'lie'"]
