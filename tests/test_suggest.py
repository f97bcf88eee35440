"""`tubelet suggest`: which clips it names, what it writes into a table, and what it refuses."""

import csv
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from naming import naming
from small_sets import command, write_images
from test_embeddings import CPU, IMAGE, write_weights

from tubelet.embed import coverage
from tubelet.embed.coverage import choose
from tubelet.embed.embeddings import Embeddings
from tubelet.embed.folder import FILE, Row, Vectors, write_vectors

CLASSES, EACH, WIDTH = ("run", "sit", "walk"), 12, 8


def make_vectors(classes: int = len(CLASSES), each: int = EACH, seed: int = 0) -> np.ndarray:
    """(classes x each, WIDTH), a cloud for each class about a place of its own, away from 0 as features are."""
    rng = np.random.default_rng(seed)
    places = rng.standard_normal((classes, WIDTH)).repeat(each, axis=0)
    return (3 + places + 0.3 * rng.standard_normal(places.shape)).astype(np.float32)


def write_folder(place: Path, rows: list[Row], vectors: np.ndarray) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    settings = {"run": "/none", "model": "none", "encoder": "0" * 64, "width": vectors.shape[1]}
    write_vectors(place / FILE, Vectors(settings, rows, vectors))
    return place


def names() -> list[str]:
    return [f"{label}/{number:02d}.mp4" for label in CLASSES for number in range(EACH)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """embedded/, of clips that are there but hold a few bytes alone, each its own."""
    for name in names():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    rows = [Row(str(tmp_path / name), None, None, f"{at:016x}", seconds=2.0) for at, name in enumerate(names())]
    return write_folder(tmp_path / "embedded", rows, make_vectors())


def ask(folder: Path, *flags: str | Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in run(folder, *flags).splitlines()]


def run(folder: Path, *flags: str | Path) -> str:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command("suggest", folder, "--json", *flags) == 0
    return out.getvalue()


def asked_names(found: list[dict[str, object]], root: Path) -> list[str]:
    return [Path(str(one["path"])).relative_to(root).as_posix() for one in found]


def read(table: Path) -> list[dict[str, str]]:
    with open(table, newline="") as file:
        return list(csv.DictReader(file))


# ---- what is chosen


def choose_slowly(vectors: np.ndarray, free: list[bool], groups: list[str], count: int) -> list[int]:
    """`choose` without labels, by its definition, one number at a time."""
    x = vectors.astype(float) - vectors[np.array(free)].astype(float).mean(0)
    x = [one / math.sqrt(sum(one * one)) for one in x]

    def says(one: int, other: int) -> float:
        return math.exp(-sum((x[one] - x[other]) ** 2))

    chosen: list[int] = []
    told = [row for row, is_free in enumerate(free) if not is_free]
    for _ in range(count):
        left = [row for row, is_free in enumerate(free) if is_free and row not in chosen]
        served = {groups[row] for row in (*told, *chosen)}
        left = [row for row in left if groups[row] not in served] or left

        def gain(row: int) -> float:
            others = [other for other, is_free in enumerate(free) if is_free]
            known = [max((says(one, other) for one in (*told, *chosen)), default=0.0) for other in others]
            return sum(max(says(row, other) - least, 0) for other, least in zip(others, known, strict=True))

        gains = {row: gain(row) for row in left}
        chosen.append(next(row for row in left if gains[row] >= max(gains.values()) - 1e-4))
    return chosen


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grouped", [False, True])
def test_what_is_chosen_is_what_says_the_most_by_brute_force(seed: int, grouped: bool) -> None:
    vectors, rng = make_vectors(4, 6, seed), np.random.default_rng(seed)
    free = (rng.random(24) > 0.2 * seed / 3).tolist()
    groups = [str(number % 5) if grouped else str(number) for number in range(24)]
    found = choose(vectors, [""] * 24, np.array(free), groups, count=7)
    assert [one.row for one in found] == choose_slowly(vectors, free, groups, 7)
    assert sum(one.stands_for for one in found) <= sum(free)
    assert all(one.stands_for >= 1 for one in found)


def test_vectors_that_are_not_finite_are_refused() -> None:
    vectors = make_vectors()
    vectors[7, 2] = np.nan
    with pytest.raises(ValueError, match=naming(7)):
        choose(vectors, [""] * 36, np.ones(36, bool), [""] * 36, count=1)


def test_the_first_are_one_of_each_kind_and_stand_for_all() -> None:
    found = choose(make_vectors(), [""] * 36, np.ones(36, bool), [str(row) for row in range(36)], count=3)
    assert {one.row // EACH for one in found} == {0, 1, 2}
    assert [one.stands_for for one in found] == [EACH] * 3


def test_labelled_kinds_come_last_and_doubt_is_said() -> None:
    vectors = make_vectors()
    vectors[0] = (vectors[1:EACH].mean(0) + vectors[EACH : 2 * EACH].mean(0)) / 2  # a run that is nearly a sit
    free, labels = np.ones(36, bool), [""] * 36
    for row in (1, 2, 3, 13, 14, 15):
        free[row], labels[row] = False, CLASSES[row // EACH]
    found = choose(vectors, labels, free, [str(row) for row in range(36)], count=30)
    assert found[0].row // EACH == 2  # of a class that nothing is known of
    (doubtful,) = (one for one in found if one.row == 0)
    assert {*(doubtful.between or ())} == {"run", "sit"}
    assert sum(one.between is None for one in found) > 15
    rest = [one.row for one in found if one.row // EACH < 2]
    assert rest[0] == 0


def test_probabilities_are_those_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    vectors, targets = make_vectors(seed=3), np.arange(36) // EACH
    for classes in (2, 3):
        known = targets < classes
        found = coverage.predict(vectors[known], targets[known], vectors)
        mean, spread = vectors.mean(0), vectors.std(0)
        model = LogisticRegression(
            tol=1e-8, max_iter=1000, C=2.0 if classes == 2 else 1.0
        )  # ours has a row for each of two
        theirs = model.fit((vectors[known] - mean) / spread, targets[known]).predict_proba((vectors - mean) / spread)
        np.testing.assert_allclose(found, theirs, atol=2e-3)


def test_of_very_many_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "MOST_ROWS", 10)
    monkeypatch.setattr(coverage, "BLOCK_ROWS", 3)
    groups, free = [str(row) for row in range(36)], np.ones(36, bool)
    free[:5] = False
    one, same, other = (
        [pick.row for pick in choose(make_vectors(), [""] * 36, free, groups, count=8, seed=seed)] for seed in (1, 1, 2)
    )
    assert one == same != other
    assert len({*one}) == 8
    assert min(one) >= 5
    assert len(choose(make_vectors(), [""] * 36, free, groups, count=31)) == 31


# ---- the folder and the table


def test_nothing_is_written_without_a_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tubelet.system.console.console._width", None)  # whatever COLUMNS says
    before = sorted(tmp_path.rglob("*"))
    assert command("suggest", folder, "--count", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "0:00.0 to 0:02.0" in lines[1]
    assert f"typical of {EACH} clips without a label" in lines[1]
    assert sorted(tmp_path.rglob("*")) == before
    assert run(folder, "--count", "5") == run(folder, "--count", "5")
    assert ask(folder, "--count", "3") == ask(folder, "--count", "5")[:3] or len(ask(folder, "--count", "5")) == 5
    found = ask(folder, "--count", "3")
    assert [one["rank"] for one in found] == [1, 2, 3]
    assert {*found[0]} == {"rank", "path", "start_seconds", "end_seconds", "why"}


def test_a_table_is_begun_filled_in_and_gone_on_with(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "labels.csv"
    first = asked_names(ask(folder, "--labels", table, "--count", "4"), tmp_path)
    assert table.read_bytes().splitlines()[0] == b"path,label"
    assert [row["path"] for row in read(table)] == first
    assert {row["label"] for row in read(table)} == {""}
    second = asked_names(ask(folder, "--labels", table, "--count", "4"), tmp_path)
    assert "4 rows suggested before" in capsys.readouterr().err
    assert not {*first} & {*second}
    text = table.read_text()
    for name in (*first, *second):
        text = text.replace(f"{name},", f"{name},{Path(name).parent}")
    table.write_text(text)
    third = asked_names(ask(folder, "--labels", table, "--count", "28"), tmp_path)
    assert sorted((*first, *second, *third)) == names()
    assert "suggested before" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "before",
    [
        'label;path;note\r\nrun;run/00.mp4;a, "b"\r\n;sit/00.mp4;\r\n',
        "\ufeffpath,label\nrun/00.mp4,run",
        "path\tlabel\tsplit\nrun/00.mp4\trun\ttrain\n\n",
        'path,label,who\n"run/00.mp4",run,"\udcff\n2"\n',
        "path,label\n",
    ],
)
def test_what_a_table_holds_stays_to_the_byte(before: str, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "my table.csv"
    old = before.encode(errors="surrogateescape")
    table.write_bytes(old)
    found = ask(folder, "--labels", table, "--count", "3")
    new = table.read_bytes()
    assert new.startswith(old)
    added = new[len(old) :].decode()
    ending = "\r\n" if b"\r\n" in old else "\n"
    assert added.count(ending) == 3 + (not before.endswith("\n"))
    assert added.endswith(ending)
    for name in asked_names(found, tmp_path):
        assert name in added
    assert not {"run/00.mp4"} & {*asked_names(found, tmp_path)}
    again = asked_names(ask(folder, "--labels", table, "--count", "3"), tmp_path)  # which reads what was written
    assert not {*again} & {*asked_names(found, tmp_path)}


def test_paths_are_as_tables_have_them(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    table = tmp_path / "elsewhere" / "labels.csv"
    ask(folder, "--labels", table, "--count", "2")
    assert all(row["path"].startswith(f"{tmp_path}/") for row in read(table))
    (tmp_path / "=1.mp4").write_text("x")
    odd = write_folder(tmp_path / "odd", [Row(str(tmp_path / "=1.mp4"), None, None, "m")], make_vectors()[:1])
    ask(odd, "--labels", tmp_path / "odd.csv", "--count", "1")
    assert [row["path"] for row in read(tmp_path / "odd.csv")] == ["./=1.mp4"]
    assert command("suggest", odd, "--labels", tmp_path / "odd.csv", "--count", "1") == 2


@pytest.mark.parametrize("split", ["test", "val"])
def test_what_is_held_out_is_never_named_nor_a_copy_of_it(split: str, folder: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "run" / "03.mp4", tmp_path / "copy of test.mp4")
    rows = Embeddings.load(folder).rows
    from tubelet.data.duplicates import mark_content

    rows = [Row(row.path, None, None, mark_content(Path(row.path)), seconds=2.0) for row in rows]
    folder = write_folder(tmp_path / "marked", rows, make_vectors())
    table = tmp_path / "labels.csv"
    lines = ["path,label,split", f"copy of test.mp4,run,{split}", *(f"{name},sit,{split}" for name in names()[12:20])]
    table.write_text("\n".join(lines) + "\n")
    found = asked_names(ask(folder, "--labels", table, "--count", "27"), tmp_path)
    assert sorted(found) == sorted({*names()} - {"run/03.mp4", *names()[12:20]})


def test_no_two_of_one_content(folder: Path, tmp_path: Path) -> None:
    rows = [Row(str(tmp_path / name), None, None, f"{at // 2:016x}", seconds=2.0) for at, name in enumerate(names())]
    folder = write_folder(tmp_path / "pairs", rows, make_vectors())
    (tmp_path / "labels.csv").write_text("path,label\nrun/01.mp4,run\n")
    found = asked_names(ask(folder, "--labels", tmp_path / "labels.csv", "--count", "17"), tmp_path)
    assert len({names().index(name) // 2 for name in found}) == 17
    assert "run/00.mp4" not in found


def test_one_of_each_group_before_any_has_two(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    lines = [f"{name},,room-{at % 6}" for at, name in enumerate(names())]
    lines[0] = "run/00.mp4,run,room-0"
    text = "\n".join(["path,label,group", *lines]) + "\n"
    table.write_text(text)
    found = asked_names(ask(folder, "--labels", table, "--count", "12"), tmp_path)
    assert [names().index(name) % 6 for name in found[:5]] != [0] * 5
    assert sorted(names().index(name) % 6 for name in found[:5]) == [1, 2, 3, 4, 5]
    assert table.read_text() == text  # all are listed there


def test_windows_are_named_by_their_times(tmp_path: Path) -> None:
    vectors = make_vectors()
    files = [tmp_path / f"{at // 6}.mp4" for at in range(36)]
    for file in files:
        file.write_text(file.name)
    rows = [
        Row(str(file), 2.0 * (at % 6), 2.0 * (at % 6) + 2, f"{at // 6}", seconds=2.0) for at, file in enumerate(files)
    ]
    folder, table = write_folder(tmp_path / "out", rows, vectors), tmp_path / "labels.csv"
    found = ask(folder, "--labels", table, "--count", "6")
    assert len({one["path"] for one in found}) == 6
    assert [(float(row["start"]), float(row["end"])) for row in read(table)] == [
        (one["start_seconds"], one["end_seconds"]) for one in found
    ]
    (tmp_path / "short.csv").write_text("path,label,start,end\n0.mp4,run,1,5\n1.mp4,sit,,\n")
    left = ask(folder, "--labels", tmp_path / "short.csv", "--count", "27")
    starts = sorted(one["start_seconds"] for one in left if str(one["path"]).endswith("/0.mp4"))
    assert starts == [6.0, 8.0, 10.0]
    (tmp_path / "narrow.csv").write_text("path,label\n0.mp4,run\n")
    assert command("suggest", folder, "--labels", tmp_path / "narrow.csv", "--count", "2") == 2
    assert (tmp_path / "narrow.csv").read_text() == "path,label\n0.mp4,run\n"


def test_a_contact_sheet_shows_them(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 3)
    weights = write_weights(tmp_path / "weights", IMAGE)
    assert command("embed", weights, data, "--out", tmp_path / "out", *CPU) == 0
    page = tmp_path / "page.html"
    found = ask(tmp_path / "out", "--count", "4", "--out", page)
    text = page.read_text()
    assert text.count("<img") == 4
    assert text.count("<h2>") == 0
    for one in found:
        assert f"<code>{one['path']}</code>" in text
        assert str(one["why"]) in text


def test_a_table_that_cannot_be_replaced_stays(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nrun/00.mp4,run\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(table))

    monkeypatch.setattr("os.replace", full)
    assert command("suggest", folder, "--labels", table) == 4
    assert table.read_text() == "path,label\nrun/00.mp4,run\n"
    assert not [file for file in tmp_path.iterdir() if file.name.endswith(".tmp")]
    assert re.search(naming(table), capsys.readouterr().err)


# ---- what is refused: one message, exit code 2


@pytest.mark.parametrize(
    ("text", "flags", "values"),
    [
        (None, ("--count", "37"), ("36 clips", "--count 37")),
        (None, ("--count", "0"), ("--count 0",)),
        (None, ("--seed", "-1"), ("--seed -1",)),
        ("path,label\nrun/00.mp4,\n", ("--count", "36"), ("35 clips", "1 row", "--count 36")),
        ("path,label\nothers/1.mp4,x\nothers/2.mp4,y\n", (), ("2 rows", "embedded", "run/00.mp4")),
        ("a,b\n1,2\n", (), ("'a,b'", "path", "label")),
        ("path,label,split\nrun/00.mp4,run,tset\n", (), ("line 2", "'tset'")),
        ("path,label\nrun/00.mp4\n", (), ("line 2", "1 cell")),
    ],
)
def test_what_cannot_be(
    text: str | None,
    flags: tuple[str, ...],
    values: tuple[str, ...],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = tmp_path / "labels.csv"
    typed: list[str | Path] = ["suggest", folder, *flags]
    if text is not None:
        table.write_text(text)
        typed += ["--labels", table]
    assert command(*typed) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"tubelet: (.*\n)(  .*\n)*", shown.err), shown.err
    for value in values:
        assert value in shown.err
    assert text is None or table.read_text() == text


def test_places_that_cannot_be(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for typed, values in (
        ((tmp_path,), (tmp_path, "vectors.safetensors", "`tubelet embed`")),
        ((folder, "--labels", tmp_path / "labels.xlsx"), ("--labels", tmp_path / "labels.xlsx", ".csv")),
        ((folder, "--labels", tmp_path / "nowhere" / "a.csv"), ("--labels", tmp_path / "nowhere" / "a.csv")),
    ):
        assert command("suggest", *typed) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert re.search(naming(*values), shown.err), shown.err
