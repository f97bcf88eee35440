"""The processes that train together: one, or those that torchrun started."""

import atexit
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.distributed as dist

from tubelet.system.device import find_device
from tubelet.system.errors import environment_error

Value = TypeVar("Value")


class Elsewhere(ValueError):
    """Another process of the team could not go on, and says why; this one stops too."""


@dataclass(frozen=True)
class Team:
    """This process among its team, and the device it computes on; its place among those of its node, one machine."""

    rank: int
    size: int
    device: torch.device
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def join(cls, device: str) -> "Team":
        """Joins the team that torchrun's environment describes; alone without it.

        Raises:
            ValueError: the device is unknown or not there.
        """
        rank, size, local, local_size = (int(os.environ.get(name, default)) for name, default in TORCHRUN)
        if size > 1 and not dist.is_initialized():
            dist.init_process_group()
            atexit.register(dist.destroy_process_group)  # not before: the next training goes on with the same team
            if "OMP_NUM_THREADS" not in os.environ:  # as torchrun sets it; else each would take all processors
                torch.set_num_threads(max(1, torch.get_num_threads() // local_size))
        node = (
            (local, local_size) if local < local_size <= size else (0, 1)
        )  # not every launcher says how many there are
        team = cls(rank, size, torch.device("cpu"), *node)
        team = replace(team, device=team.run_together(lambda: find_device(device, local)))
        if team.device.type == "cuda":
            torch.cuda.set_device(team.device)
        return team

    @property
    def first(self) -> bool:
        return self.rank == 0

    def run_together(self, work: Callable[[], Value]) -> Value:
        """Each process does its own work. If it is wrong in one, none goes on, for the others would wait for ever.

        Raises:
            ValueError, EnvironmentTrouble: what went wrong, in the first process in which it did.
            Elsewhere: in all others.
        """
        value: list[Value] = []
        error: Exception | None = None
        try:
            value.append(work())
        except Exception as failure:
            error = failure if isinstance(failure, ValueError) else environment_error(failure)
            if error is None:
                raise
        wrong = error is not None and not isinstance(error, Elsewhere)  # who stops for another does not say why
        failed = [rank for rank, wrong in enumerate(self.gather(wrong)) if wrong]
        if failed and failed[0] != self.rank:
            raise Elsewhere(f"process {failed[0]} of {self.size} cannot go on: see what it says")
        if error is not None:
            raise error
        return value[0]

    def run_in_first(self, work: Callable[[], Value]) -> Value:
        """Runs `work` in the first process alone and returns its value in every process. Raises as `run_together`."""
        return self.hear_first(self.run_together(lambda: work() if self.first else None))  # type: ignore[return-value]

    def hear_first(self, value: Value) -> Value:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather_numbers(self, numbers: Sequence[float]) -> list[list[float]]:
        """Every process's numbers, as many from each, by rank, in every process: one small tensor."""
        if self.size == 1:
            return [list(numbers)]
        own = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        box = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(box, own)
        return torch.stack(box).tolist()

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, by rank, in every process."""
        if self.size == 1:
            return [value]
        box: list[Value | None] = [None] * self.size
        dist.all_gather_object(box, value)
        return box  # type: ignore[return-value]  # every place is filled now


TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
