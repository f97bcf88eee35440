"""The examples of docs/own-loop.md that need other libraries: they learn, from the clips of each epoch, resumed too.

python -m venv ../peers
../peers/bin/pip install -c constraints.txt -e . transformers accelerate lightning
../peers/bin/python tests/own_loop_peers.py
"""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from small_sets import write_videos
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

import tubelet
from tubelet.data import ClipDataset

PAGE = Path(__file__).parent.parent / "docs" / "own-loop.md"
EPOCHS, LEARNED = 6, 0.9


def example(library: str) -> str:
    (found,) = re.findall(rf"^```python {library}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return found


def run(source: str) -> dict[str, Any]:
    """The names of an example that has run."""
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(compile(source, str(PAGE), "exec"), names)
    return names


def mark(clip: Tensor) -> str:
    return sha256(clip.numpy().tobytes()).hexdigest()


@contextmanager
def watch() -> Iterator[Counter[str]]:
    """The clips that a model learns from meanwhile."""
    seen: Counter[str] = Counter()

    def look(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, tubelet.SpaceTimeTransformer) and module.training:
            seen.update(map(mark, given[0].cpu()))

    handle = register_module_forward_pre_hook(look)
    try:
        yield seen
    finally:
        handle.remove()


def expected(first: int) -> Counter[str]:
    """The clips of the epochs from the first on, read without any library."""
    data = ClipDataset("clips/", frames=16, size=112, seconds_between_frames=0.1)
    found: Counter[str] = Counter()
    for epoch in range(first, EPOCHS):
        data.set_epoch(epoch)
        found.update(mark(clip) for clip, _ in data)
    return found


def change(source: str, old: str, new: str) -> str:
    assert old in source, old
    return source.replace(old, new)


def check_trainer(source: str) -> float:
    with watch() as seen:
        names = run(source)
    assert seen == expected(0), "clips of the Trainer"
    checkpoints = sorted(Path("runs/trainer").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    half = checkpoints[EPOCHS // 2 - 1]
    with watch() as seen:
        run(change(source, "trainer.train()", f"trainer.train(resume_from_checkpoint={str(half)!r})"))
    assert seen == expected(EPOCHS // 2), "clips of the Trainer, resumed"
    return names["trainer"].evaluate()["eval_accuracy"]


def check_lightning(source: str) -> float:
    with watch() as seen:
        names = run(source)
    assert seen == expected(0), "clips of Lightning"
    half = change(source, "runs/lightning", "runs/half")
    run(change(half, f"max_epochs={EPOCHS}", f"max_epochs={EPOCHS // 2}"))
    (checkpoint,) = Path("runs/half").rglob("*.ckpt")
    loader = "DataLoader(val, batch_size=4)"
    with watch() as seen:
        run(change(half, f"{loader})", f"{loader}, ckpt_path={str(checkpoint)!r})"))
    assert seen == expected(EPOCHS // 2), "clips of Lightning, resumed"
    return names["trainer"].callback_metrics["accuracy"].item()


CHECKS: dict[str, Callable[[str], float]] = {"transformers": check_trainer, "lightning": check_lightning}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_videos(Path("clips"), 10)
        for library, check in CHECKS.items():
            accuracy = check(example(library))
            print(f"{library} {version(library)}: accuracy {accuracy:.3f} of clips held out")
            assert accuracy >= LEARNED, accuracy
        os.chdir(PAGE.parent)


if __name__ == "__main__":
    main()
