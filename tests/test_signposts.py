"""What CONTRIBUTING, README, docs and docstrings name stands where they say."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from test_arrows import ORDER

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = sorted((ROOT / "tubelet").rglob("*.py"))
FOLDERS = ("tubelet", "tests", "benchmarks", "docs")


def paths_in(text: str) -> set[str]:
    """Paths of the repository that stand in backticks or links: `tubelet/nn/grid.py`, (docs/train.md#length)."""
    found = re.findall(rf"[`(]((?:{'|'.join(FOLDERS)})/[\w./-]*)", text)
    return {path.rstrip("./") for path in found}


def names_in(text: str) -> set[str]:
    """Dotted names in backticks: `tubelet.nn.Grid`, `tubelet.load(path)`."""
    return set(re.findall(r"`(tubelet(?:\.\w+)+)", text)) - {"tubelet.json"}  # a file of an export


def misplaced_in(text: str) -> list[tuple[str, str]]:
    """Names that do not stand where they are said to: `FAMILIES` in `tubelet/nn/families.py`, at the top of it."""
    said = re.findall(r"`(\w+)(?:\([^`]*\))?`\s+(?:in|of)\s+`((?:tubelet|tests|benchmarks)/[\w./]+\.py)`", text)
    top = r"^(?:def |class |){}\b(?! *\.)"
    return [
        (name, path)
        for name, path in said
        if not (ROOT / path).exists() or not re.search(top.format(name), (ROOT / path).read_text(), re.M)
    ]


def exists(name: str) -> bool:
    """Whether a dotted name can be imported, or is an attribute of something that can."""
    module, *rest = name.split(".")
    found = import_module(module)
    for place, part in enumerate(rest):
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = import_module(".".join([module, *rest[: place + 1]]))
            except ImportError:
                return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_what_there_is(page: Path) -> None:
    text = page.read_text()
    assert [path for path in sorted(paths_in(text)) if not (ROOT / path).exists()] == []
    assert [name for name in sorted(names_in(text)) if not exists(name)] == []
    assert misplaced_in(text) == []
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:`|\$ )make ([a-z]+)", text)) <= targets
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+[./][^)#\s]*)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_docstrings_name_what_there_is() -> None:
    wrong = {}
    for source in SOURCES:
        text = source.read_text()
        lost = [path for path in paths_in(text) if not (ROOT / path).exists()]
        lost += [name for name in names_in(text) if not exists(name)]
        if lost:
            wrong[source.relative_to(ROOT).as_posix()] = sorted(lost)
    assert wrong == {}


def test_contributing_has_the_order_of_imports() -> None:
    listed = re.findall(r"^```\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
    assert listed[0].split() == [name for name in ORDER if name not in ("__main__", "")]


def test_the_check_finds_a_name_in_the_wrong_file() -> None:
    right = "`FAMILIES` in `tubelet/nn/families.py`, `blocks(size)` of\n`tubelet/nn/families.py`"
    assert misplaced_in(right) == []
    for name, path in (("FAMILIES", "tubelet/nn/model.py"), ("EMBED", "tubelet/nn/build.py"), ("x", "tests/y.py")):
        assert misplaced_in(f"{right}; `{name}` in `{path}`") == [(name, path)]


@pytest.mark.parametrize(
    ("text", "path", "name"),
    [
        ("see `tubelet/nn/gird.py`", "tubelet/nn/gird.py", None),
        ("[a](docs/nothing.md)", "docs/nothing.md", None),
        ("`tubelet.nn.Gird`", None, "tubelet.nn.Gird"),
        ("`tubelet.laod(path)`", None, "tubelet.laod"),
    ],
)
def test_the_check_finds_a_wrong_signpost(text: str, path: str | None, name: str | None) -> None:
    assert (path is None) == (paths_in(text) == set())
    assert path is None or not (ROOT / path).exists()
    assert names_in(text) == (set() if name is None else {name})
    assert name is None or not exists(name)
