"""From a folder or a table to batches; `ClipDataset` for a training loop of one's own. Imports no torch before that."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tubelet.data.torch_dataset import ClipDataset as ClipDataset


def __getattr__(name: str) -> object:
    if name == "ClipDataset":
        from tubelet.data.torch_dataset import ClipDataset

        return ClipDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
