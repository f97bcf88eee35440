"""Who may import whom: what stands in ORDER imports only what stands before it."""

import ast
from pathlib import Path

import pytest

import tubelet

PACKAGE = Path(tubelet.__file__).parent

# Every name at the top of the package. The nouns come first; a verb is the command of that name.
ORDER = (
    *("version", "system", "tasks", "nn", "weights", "media", "data", "synthetic", "runs", "features"),
    *(
        "predict",
        "stream",
        "evaluate",
        "relevance",
        "report",
        "export",
        "embed",
        "convert",
        "convert_labels",
        "check",
        "prepare",
    ),
    *(
        "info",
        "demo",
        "train",
        "pretrain",
        "compare",
        "bench",
        "commands",
        "cli",
        "__main__",
        "",
    ),  # "" is tubelet itself
)
APART = {"nn": (), "media": ("system",), "data": ("system", "tasks", "media")}  # clips know no model

# What can run what is in a file, unpack it anywhere, or start a program.
UNSAFE_MODULES = {
    *("pickle", "_pickle", "pickletools", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"),
    *("yaml", "ruamel", "subprocess", "tarfile", "multiprocessing", "code", "runpy"),
}
UNSAFE_CALLS = {"eval", "exec", "__import__"}
UNSAFE_METHODS = {"extractall", "system", "popen"}  # of archives; of os
UNSAFE_FLAGS = {"allow_pickle", "shell"}

# One file reads pickles, and only where the user asks for it; one opens safetensors, after a look at the header.
PICKLES, SAFETENSORS = "tubelet.weights.formats.pickle_file", "tubelet.weights.formats.safetensors_file"
STARTS_PYTHON = "tubelet.system.child"  # itself, in a process of its own
READERS = ("safetensors.safe_open", "safetensors.torch.load", "safetensors.torch.load_file", "safetensors.deserialize")


def imports(tree: ast.AST) -> list[str]:
    """Dotted names of all that a file imports, anywhere in it; `from a import b` counts as a.b."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += ["." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names]
    return names


def room(dotted: str) -> str:
    return [*dotted.split("."), ""][1]


def wrong(module: str, source: str) -> list[str]:
    """What the file of `module` does that it must not."""
    tree, here = ast.parse(source), room(module)
    names = imports(tree)
    found = [f"relative import {name}" for name in names if name.startswith(".")]
    rooms = {room(name) for name in names if name.split(".")[0] == "tubelet"}
    may = {here, *APART.get(here, ORDER[: ORDER.index(here)])}
    found += [f"{here} imports {other or 'tubelet'}" for other in sorted(rooms - may)]
    if module != PICKLES:
        unsafe = UNSAFE_MODULES - ({"subprocess"} if module == STARTS_PYTHON else set())
        found += [f"imports {name}" for name in names if name.split(".")[0] in unsafe]
        found += ["imports torch.load"] * names.count("torch.load") + ["calls torch.load"] * calls_torch_load(tree)
    if module != SAFETENSORS:
        found += [f"imports {name}" for name in names if name in READERS]
    if module != "tubelet.media.decoder":
        found += [f"imports {name}" for name in names if name.split(".")[0] == "av"]
    return found + [f"calls {name}" for name in unsafe_calls(tree)]


def calls_torch_load(tree: ast.AST) -> int:
    return sum(isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load" for node in ast.walk(tree))


def unsafe_calls(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in UNSAFE_CALLS:
            found.append(node.id)
        elif isinstance(node, ast.Attribute) and node.attr in UNSAFE_METHODS:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg in UNSAFE_FLAGS:
            found.append(node.arg)
    return found


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("tubelet", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def test_every_file_is_looked_at():
    assert {"tubelet", "tubelet.nn", "tubelet.nn.grid", "tubelet.weights.init.from_image", "tubelet.info"} <= set(
        modules()
    )
    assert {room(module) for module in modules()} == set(ORDER)


@pytest.mark.parametrize("module", modules())
def test_arrows_go_one_way(module):
    assert wrong(module, modules()[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("tubelet.nn.grid", "import tubelet.weights.store", "nn imports weights"),
        ("tubelet.nn", "from tubelet import data", "nn imports data"),
        ("tubelet.nn.grid", "import tubelet", "nn imports tubelet"),
        ("tubelet.weights.store", "def f():\n    from tubelet.media.reader import read", "weights imports media"),
        ("tubelet.weights.store", "from tubelet.data import items", "weights imports data"),
        ("tubelet.media.reader", "from tubelet.data.clip_spec import ClipSpec", "media imports data"),
        ("tubelet.data.items", "from tubelet.nn import Grid", "data imports nn"),
        ("tubelet.data.items", "from tubelet.cli import main", "data imports cli"),
        ("tubelet.tasks.classification", "import tubelet.nn", "tasks imports nn"),
        ("tubelet.tasks.classification", "from tubelet import media", "tasks imports media"),
        ("tubelet.predict.answer", "from tubelet.train.config import TrainConfig", "predict imports train"),
        ("tubelet.train.plan", "import tubelet.cli", "train imports cli"),
        ("tubelet.data.items", "from . import spec", "relative import"),
        ("tubelet.media.writer", "import av.container", "imports av.container"),
        ("tubelet.cli", "if True:\n    from av import open", "imports av.open"),
        ("tubelet.cli", "import pickle", "imports pickle"),
        ("tubelet.cli", "from joblib import load", "imports joblib.load"),
        ("tubelet.runs.run", "import torch\nstate = torch.load('a.pt')", "calls torch.load"),
        ("tubelet.runs.run", "from torch import load", "imports torch.load"),
        ("tubelet.runs.run", "import numpy as np\nnp.load('a', allow_pickle=True)", "calls allow_pickle"),
        ("tubelet.runs.run", "run = eval\nrun('1')", "calls eval"),
        ("tubelet.runs.run", "exec('a = 1')", "calls exec"),
        ("tubelet.runs.run", "import yaml", "imports yaml"),
        ("tubelet.runs.run", "from subprocess import run", "imports subprocess.run"),
        ("tubelet.runs.run", "run('ls', shell=True)", "calls shell"),
        ("tubelet.runs.run", "import os\nos.system('ls')", "calls os.system"),
        ("tubelet.weights.formats.open", "archive.extractall('.')", "calls archive.extractall"),
        ("tubelet.weights.store", "from safetensors.torch import load_file", "imports safetensors.torch.load_file"),
        ("tubelet.weights.store", "import pickletools", "imports pickletools"),
        ("tubelet.weights.formats.pickle_file", "exec('a = 1')", "calls exec"),
    ],
)
def test_the_check_finds_a_wrong_arrow(module, source, message):
    assert any(found.startswith(message) for found in wrong(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tubelet.train.trainer", "from tubelet.nn import Grid\nfrom tubelet.data import items\nmodel.eval()"),
        ("tubelet.weights.store", "from tubelet.nn.model import ModelConfig\nfrom tubelet.weights import source"),
        ("tubelet.media.decoder", "import av"),
        ("tubelet.tasks.classification", "import numpy as np\nnp.load('a.npy')"),
    ],
)
def test_the_check_lets_right_arrows_pass(module, source):
    assert wrong(module, source) == []
