"""The terms under which weights were published: they go along with all that is made of them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

TERMS = "terms"  # in `about` of a model file, and in the settings of a run


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The licence of published weights.

    weights: which, in words. licence: SPDX's name, or its own. commercial: whether it allows commercial use.
    gated: who wants the weights must ask for them.
    """

    weights: str
    licence: str
    commercial: bool = True
    gated: bool = False

    def __str__(self) -> str:
        limits = [] if self.commercial else ["no commercial use"]
        limits += ["gated, to be asked for by each who uses them"] if self.gated else []
        return f"{self.weights} were published under {self.licence}" + (f": {'; '.join(limits)}" if limits else "")

    @property
    def binding(self) -> bool:
        """Whether they forbid what free licences allow."""
        return self.gated or not self.commercial


def write_terms(terms: Iterable[Terms]) -> dict[str, list[dict[str, Any]]]:
    """An entry of `about`; nothing where there are none."""
    listed = [asdict(one) for one in terms]
    return {TERMS: listed} if listed else {}


def read_terms(about: Mapping[str, Any]) -> tuple[Terms, ...]:
    """Raises ValueError for an entry that `write_terms` did not write."""
    try:
        return tuple(Terms(**one) for one in about.get(TERMS, ()))
    except TypeError as error:
        raise ValueError(f"the terms of these weights are damaged ({error}): convert or train them again") from error
