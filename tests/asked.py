"""What a device is asked for: it has to finish all its work before it can say."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Asked(TorchDispatchMode):
    """Counts the times, inside the `with`, that a value is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.times += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
        return function(*args, **(kwargs or {}))
