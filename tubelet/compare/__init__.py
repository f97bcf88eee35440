"""Candidates side by side: which way to train is better for some data, within a budget of time."""

from tubelet.compare.comparison import compare

__all__ = ["compare"]
