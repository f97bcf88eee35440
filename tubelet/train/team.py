"""The processes that train together: one, or those that torchrun started."""

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


@dataclass(frozen=True)
class Team:
    """This process among its team, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: str) -> "Team":
        """Joins the team that torchrun's environment describes; alone without it.

        Raises:
            ValueError: the device is unknown or not there.
        """
        rank, size, local = (int(os.environ.get(name, default)) for name, default in TORCHRUN)
        found = find_device(device, local)
        if size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if found.type == "cuda" else "gloo")
        if found.type == "cuda":
            torch.cuda.set_device(found)
        return cls(rank, size, found)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def agree(self, value: Value) -> Value:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, by rank, in every process."""
        if self.size == 1:
            return [value]
        box: list[Value | None] = [None] * self.size
        dist.all_gather_object(box, value)
        return box  # type: ignore[return-value]  # every place is filled now

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()


TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called `name`; "auto" takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: expected auto, cpu, cuda or mps") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {name!r} is not there: this torch sees no GPU; use --device cpu")
        return torch.device("cuda", local_rank if device.index is None else device.index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not there: use --device cpu")
    return device
