"""Segments of a video whose steps are pushed as they come: the same, whatever the pieces."""

from typing import NamedTuple

import torch
from torch import Tensor

from tubelet.nn.pyramid import FURTHEST, Level, Pyramid

TOGETHER = 1024  # steps that the pyramid sees at a time: bounds memory, whatever is pushed
SPREAD = 0.3  # of the Gaussian by which a segment is made less likely that overlaps a likelier one


class StepSegment(NamedTuple):
    """A range of time in steps, from 0 at the middle of the first step, its class and its score in 0..1."""

    start: float
    end: float
    number: int
    score: float


class Candidates(NamedTuple):
    """Ranges that places have given, (N,) each; `open`: not yet settled."""

    level: Tensor
    number: Tensor
    start: Tensor
    end: Tensor
    score: Tensor
    open: Tensor

    def where(self, chosen: Tensor) -> "Candidates":
        return Candidates(*(column[chosen] for column in self))


class SegmentStreamer:
    """Finds the segments of a video, whose steps (t, D) are pushed in pieces of any length.

    A place is read when all that it sees is there, if it is likelier than its neighbours. What it finds is settled when
    every place is read that could find a rival: a segment of the same class, of its own level or one beside it, that
    overlaps it. A likelier rival lowers its score (Gaussian soft suppression, by overlap with the raw scores: what is
    settled never depends on what comes later). Memory does not grow.

    Source of the suppression: arXiv 1704.04503; all at once rather than one after another as in arXiv 2003.10152.

    >>> streamer = SegmentStreamer(pyramid, least_score=0.3)
    >>> found = [*streamer.push(steps), *streamer.finish()]
    """

    def __init__(self, pyramid: Pyramid, *, least_score: float):
        self.pyramid, self.least_score = pyramid.eval(), least_score
        self.levels = range(pyramid.config.levels)
        self.coarsest = 2 ** (pyramid.config.levels - 1)
        self.steps, self.first = torch.empty(0, pyramid.config.inputs), 0  # those still needed, number of the first
        self.read = [0 for _ in self.levels]  # places of each level
        self.candidates = Candidates(*(torch.empty(0, dtype=torch.float64) for _ in Candidates._fields))

    @property
    def seen(self) -> int:
        """Steps pushed so far."""
        return self.first + len(self.steps)

    @property
    def delay(self) -> int:
        """Steps, at most, that must follow the end of a segment before it is given; fewer for those of finer levels."""
        return int((FURTHEST + 2) * self.coarsest) + self.pyramid.sight(self.levels[-1])

    def push(self, steps: Tensor) -> list[StepSegment]:
        """The next steps (t, D) -> the segments that are now settled."""
        found = []
        for piece in steps.split(TOGETHER):
            self.steps = torch.cat([self.steps, piece.float().cpu()])
            found += self.settle(end=False)
        return found

    def finish(self) -> list[StepSegment]:
        """The segments that were not settled before the video ended."""
        return self.settle(end=True)

    def settle(self, *, end: bool) -> list[StepSegment]:
        if len(self.steps):
            self.look(end=end)
        found, horizon = self.candidates, self.horizon(end=end)
        own = torch.stack([horizon[(found.level.long() + by).clamp(0, len(horizon) - 1)] for by in (-1, 0, 1)])
        settled = found.open.bool() & (found.end <= own.amin(0))
        rows = zip(*(column[settled].tolist() for column in (found.start, found.end, found.number)), strict=True)
        scores = suppressed(found, settled).tolist()
        length = float(self.seen) - 0.5
        segments = [
            StepSegment(max(-0.5, start), min(length, stop), int(number), score)
            for (start, stop, number), score in zip(rows, scores, strict=True)
            if score >= self.least_score
        ]
        self.candidates = found._replace(open=found.open.bool() & ~settled)
        self.forget(horizon)
        return sorted(segments)

    @torch.no_grad()
    def look(self, *, end: bool) -> None:
        """Reads the places that now see all that they will ever see."""
        known = [self.known_places(level, end=end) for level in self.levels]
        if known == self.read:
            return
        for number, given in enumerate(self.pyramid(self.steps[None])):
            self.read_level(number, given, known[number])
        self.read = known
        needed = min((self.read[n] - 1) * 2**n - self.pyramid.sight(n) for n in self.levels)
        drop = max(0, needed) // self.coarsest * self.coarsest - self.first
        if drop > 0:
            self.steps, self.first = self.steps[drop:].clone(), self.first + drop

    def known_places(self, level: int, *, end: bool) -> int:
        """Places of a level of which, and of the next one, nothing that they see is missing."""
        if end:
            return -(-self.seen // 2**level)
        return max(self.read[level], (self.seen - 1 - self.pyramid.sight(level)) // 2**level)

    def read_level(self, number: int, given: Level, known: int) -> None:
        offset = self.first // 2**number
        scores = given.logits[0].sigmoid()  # (K, P)
        left = torch.cat([torch.zeros(len(scores), 1), scores[:, :-1]], 1)
        right = torch.cat([scores[:, 1:], torch.zeros(len(scores), 1)], 1)
        likely = (scores >= self.least_score) & (scores > left) & (scores >= right)
        likely[:, : self.read[number] - offset] = False
        likely[:, known - offset :] = False
        classes, places = torch.nonzero(likely, as_tuple=True)
        before, after = given.distances[0, classes, :, places].double().unbind(1)  # float32 cannot tell hours to 1 ms
        where = (places + offset) * 2**number
        level, is_open = torch.full_like(before, number), torch.ones_like(before)
        new = (level, classes, where - before, where + after, scores[classes, places], is_open)
        self.candidates = Candidates(*map(torch.cat, zip(self.candidates, new, strict=True)))

    def horizon(self, *, end: bool) -> Tensor:
        """For each level the step before which no segment can begin that is not yet found."""
        if end:
            return torch.full((len(self.levels),), torch.inf)
        return torch.tensor([(self.read[n] - FURTHEST) * 2**n for n in self.levels])

    def forget(self, horizon: Tensor) -> None:
        """Drops what is settled and can be nobody's rival any more."""
        found = self.candidates
        open_from = found.start[found.open.bool()].min() if found.open.any() else torch.tensor(torch.inf)
        self.candidates = found.where(found.open.bool() | (found.end > torch.minimum(open_from, horizon.min())))


def suppressed(found: Candidates, chosen: Tensor) -> Tensor:
    """The scores of the chosen ones (N,) bool, lowered by their likelier rivals among all."""
    mine, scores = found.where(chosen), []
    for i in range(len(mine.start)):
        rival = (found.number == mine.number[i]) & ((found.level - mine.level[i]).abs() <= 1)
        finer = (found.score == mine.score[i]) & (found.level < mine.level[i])
        likelier = (found.score > mine.score[i]) | finer
        rivals = found.where(rival & likelier)
        shared = (torch.minimum(rivals.end, mine.end[i]) - torch.maximum(rivals.start, mine.start[i])).clamp(min=0)
        union = (rivals.end - rivals.start) + (mine.end[i] - mine.start[i]) - shared
        most = (shared / union.clamp(min=1e-6)).max() if len(shared) else torch.tensor(0.0)
        scores.append(mine.score[i] * torch.exp(-(most**2) / SPREAD))
    return torch.stack(scores) if scores else torch.empty(0)
