"""The vectors of a folder, and which of them are the nearest to another: exact cosines, one product with all."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tubelet.embed.embedder import Embedder
from tubelet.embed.folder import FILE, Row, part_files, read_vectors

BLOCK_ROWS = 2048  # of a product: they stay in a processor's cache for a second look, at their lengths
NEAR = 1e-4  # more than float32 is wrong by; those so near to the last hit are computed in float64
TINY = np.finfo(np.float32).tiny


class Hit(NamedTuple):
    """A file, or a part of it, and the cosine of its vector with the one that was asked for."""

    path: str
    start_seconds: float
    end_seconds: float
    similarity: float


class Embeddings:
    """The vectors (N, D) of a folder, mapped into memory, and their rows.

    >>> Embeddings.load("runs/embedded").search(clip, k=5)
    """

    def __init__(
        self,
        vectors: np.ndarray,
        rows: list[Row],
        settings: dict[str, Any],
        *,
        folder: Path,
        run: Path | None = None,
        device: str = "auto",
    ):
        self.vectors, self.rows, self.settings, self.folder = vectors, rows, settings, folder
        self.run, self.device = run or Path(settings["run"]), device

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], *, run: str | os.PathLike[str] | None = None, device: str = "auto"
    ) -> "Embeddings":
        """Those that `tubelet embed` wrote into a folder.

        run: where the weights are that made them; where the folder says if left out. They are read when a clip or a
        file is asked about.

        Raises:
            ValueError: no vectors there, or a damaged file.
        """
        folder = Path(folder)
        if not (folder / FILE).is_file():
            begun = "begun and not finished: the same `tubelet embed` goes on" if part_files(folder) else ""
            raise ValueError(f"{folder}: no vectors ({FILE}): {begun or 'name a folder that `tubelet embed` wrote'}")
        found = read_vectors(folder / FILE)
        rows = [row for row in found.rows if row.code == "ok"]
        if not rows:
            raise ValueError(
                f"{folder}: no vectors, for none of {len(found.rows)} files could be read: see index.jsonl"
            )
        place = None if run is None else Path(run)
        return cls(found.vectors, rows, found.settings, folder=folder, run=place, device=device)

    @cached_property
    def embedder(self) -> Embedder:
        """The model that made the vectors. Raises ValueError where it is gone, or another one is there now."""
        told = self.settings
        try:
            found = Embedder.load(self.run, views=told["views"], device=self.device, dtype=told["dtype"])
        except ValueError as error:
            raise ValueError(
                f"{self.folder}: the model that made its vectors, {told['model']} of {self.run}, cannot be used "
                f"({error}): say where it is with --run"
            ) from error
        if found.key != told["encoder"]:
            raise ValueError(
                f"{self.folder}: made by {told['model']} (encoder {told['encoder'][:8]}), while {self.run} holds "
                f"{found.name} (encoder {found.key[:8]}): name the run that made it with --run, or embed again into "
                "another folder"
            )
        return found

    def search(self, clip_or_vector: Tensor | np.ndarray, k: int = 10) -> list[Hit]:
        """The k nearest to a clip (C, T, H, W), or to a vector (D,): (path, start_seconds, end_seconds, similarity).

        The likest first, of equal ones the first row. Fewer where there are fewer.

        Raises:
            ValueError: another shape, a vector that is not finite or of length 0, or, for a clip, no such model.
        """
        query = torch.as_tensor(clip_or_vector)
        vector = self.embedder.embed(query[None]) if query.ndim == 4 else query.detach().cpu().float().numpy()
        if vector.shape != self.vectors.shape[1:]:
            raise ValueError(
                f"got {tuple(query.shape)}, expected a vector of {self.vectors.shape[1]} numbers or a clip (C, T, H, W)"
            )
        return [self.hit(row, similarity) for row, similarity in rank(self.vectors, vector, k)]

    def hit(self, row: int, similarity: float) -> Hit:
        return Hit(self.rows[row].path, *self.rows[row].span, similarity)


def rank(vectors: np.ndarray, query: np.ndarray, k: int) -> list[tuple[int, float]]:
    """(N, D), (D,) -> up to k rows and their cosines, in float64, the largest first, of equal ones the first row.

    A vector of length 0 has no direction: its cosine is 0. Vectors are read block by block, each once.

    Raises ValueError: k below 1, a query that is not finite or of length 0, or vectors that are not finite.
    """
    if k < 1:
        raise ValueError(f"k is {k}: expected 1 or more")
    length = float(np.linalg.norm(query.astype(np.float64)))
    if not np.isfinite(length) or length == 0:
        raise ValueError(f"the vector asked about has the length {length}: it has no direction, expected a finite one")
    direction = (query / length).astype(np.float32)
    rough = np.empty(len(vectors), np.float32)
    for first in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[first : first + BLOCK_ROWS]
        squares = np.einsum("nd,nd->n", block, block)
        if not np.isfinite(squares).all():
            wrong = first + int(np.isfinite(squares).argmin())
            raise ValueError(f"vector {wrong} is not finite: damaged, embed again into another folder")
        # not `@`: its threads, on processors that are busy, wait longer for each other than this takes
        rough[first : first + len(block)] = np.einsum("nd,d->n", block, direction) / np.sqrt(np.maximum(squares, TINY))
    k = min(k, len(vectors))
    least = np.partition(rough, len(rough) - k)[len(rough) - k]
    near = np.flatnonzero(rough >= least - NEAR)
    exact = np.concatenate(
        [measure(vectors[part], query) for part in np.array_split(near, len(near) // BLOCK_ROWS + 1)]
    )
    order = np.lexsort((near, -exact))[:k]
    return list(zip(near[order].tolist(), exact[order].tolist(), strict=True))


def measure(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(N, D), (D,) -> cosines (N,) float64, of each row the same bits wherever it stands."""
    vectors, query = vectors.astype(np.float64), query.astype(np.float64)
    lengths = np.sqrt((vectors * vectors).sum(1) * (query * query).sum())
    return (vectors * query).sum(1) / np.where(lengths > 0, lengths, 1.0)
