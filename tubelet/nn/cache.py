"""The last few values of something that is slow to make."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Values by their key, at most so many; the oldest goes first. Several threads may ask."""

    def __init__(self, most: int):
        self.most = most
        self.values: dict[Hashable, Value] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        if torch.compiler.is_compiling():  # a tracer's tensors must not outlive it
            return make()
        found = self.values.get(key)
        if found is None:
            with torch.inference_mode(False):  # or training could not use what prediction had made
                found = self.values[key] = make()
            for old in list(self.values)[: -self.most]:
                self.values.pop(old, None)
        return found
