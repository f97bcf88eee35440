"""The pyramid that finds segments, and the streamer that asks it: laws, and oracles that look at all at once."""

import math

import pytest
import torch
from torch import Tensor

from tubelet.nn.pyramid import FURTHEST, REACH, Pyramid, PyramidConfig, assign, levels_for, pyramid_loss
from tubelet.nn.segment_streamer import SPREAD, SegmentStreamer, StepSegment


def make(levels: int = 4, classes: int = 3, *, seed: int = 0) -> Pyramid:
    """A pyramid that finds many things."""
    torch.manual_seed(seed)
    pyramid = Pyramid(PyramidConfig(inputs=6, num_classes=classes, levels=levels, dim=16))
    with torch.no_grad():
        pyramid.classify[-1].weight.mul_(8)
        pyramid.classify[-1].bias.fill_(-1.0)
        pyramid.measure[-1].bias.fill_(2.0)
        pyramid.measure[-1].weight.mul_(3)
    return pyramid.eval()


def overlap(one: StepSegment, other: StepSegment) -> float:
    shared = max(0.0, min(one.end, other.end) - max(one.start, other.start))
    return shared / max(1e-6, one.end - one.start + other.end - other.start - shared)


@torch.no_grad()
def find_at_once(pyramid: Pyramid, steps: Tensor, least: float) -> list[StepSegment]:
    """All segments by the definition, one place after the other."""
    found: list[tuple[int, StepSegment]] = []
    for level, given in enumerate(pyramid(steps[None])):
        chances = given.logits[0].sigmoid().tolist()
        for number, row in enumerate(chances):
            for place, chance in enumerate(row):
                left, right = ([0.0, *row][place], [*row, 0.0][place + 1])
                if chance >= least and chance > left and chance >= right:
                    before, after = given.distances[0, number, :, place].tolist()
                    middle = place * 2**level
                    found.append((level, StepSegment(middle - before, middle + after, number, chance)))
    kept = []
    for level, one in found:
        rivals = [
            overlap(one, other)
            for beside, other in found
            if abs(beside - level) <= 1 and other.number == one.number
            if other.score > one.score or (other.score == one.score and beside < level)
        ]
        score = one.score * math.exp(-(max(rivals, default=0.0) ** 2) / SPREAD)
        if score >= least:
            end = len(steps) - 0.5
            kept.append(StepSegment(max(-0.5, one.start), min(end, one.end), one.number, score))
    return sorted(kept)


def check_same(found: list[StepSegment], expected: list[StepSegment]) -> None:
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 7, 64, 333])
def test_finds_what_is_there_at_once_whatever_the_pieces(levels: int, count: int) -> None:
    pyramid = make(levels)
    steps = torch.randn(count, 6, generator=torch.Generator().manual_seed(count))
    expected = find_at_once(pyramid, steps, 0.2)
    for size in (1, 17, 400):
        streamer = SegmentStreamer(pyramid, least_score=0.2)
        live = [one for piece in steps.split(size) for one in streamer.push(piece)]
        check_same(sorted([*live, *streamer.finish()]), expected)
        assert not streamer.candidates.open.any()


def test_a_segment_is_given_once_its_delay_has_passed_and_memory_does_not_grow() -> None:
    streamer = SegmentStreamer(make(3), least_score=0.2)
    held, given = [], 0
    for number in range(900):
        for one in streamer.push(torch.randn(1, 6)):
            given += 1
            assert number - one.end <= streamer.delay
        held.append((len(streamer.steps), len(streamer.candidates.start)))
    assert given > 100
    early, late = (max(map(sum, part)) for part in (held[100:450], held[450:]))
    assert late <= 1.5 * early


def test_finishing_without_a_step_finds_nothing() -> None:
    assert SegmentStreamer(make(), least_score=0.2).finish() == []


def test_a_place_sees_so_far_and_no_further() -> None:
    pyramid = make(4)
    steps = torch.randn(1, 256, 6)
    with torch.no_grad():
        before = pyramid(steps)
        changed = steps.clone()
        changed[0, 128] += 5.0
        after = pyramid(changed)
    for level, (one, other) in enumerate(zip(before, after, strict=True)):
        touched = torch.nonzero((one.logits != other.logits).any(1)[0]).flatten() * 2**level
        assert (touched - 128).abs().max() <= pyramid.sight(level)


@pytest.mark.parametrize("longest", [0.5, 8, 9, 16, 17, 1000])
def test_the_last_level_reaches_the_ends_of_the_longest_segment(longest: float) -> None:
    levels = levels_for(longest)
    assert longest / 2 <= REACH * 2 ** (levels - 1) <= FURTHEST * 2 ** (levels - 1)
    assert levels == 1 or longest / 2 > REACH * 2 ** (levels - 2)


def test_every_segment_is_learned_by_places_in_its_middle_that_reach_its_ends() -> None:
    generator = torch.Generator().manual_seed(3)
    starts = torch.rand(60, generator=generator) * 180
    lengths = torch.exp(torch.rand(60, generator=generator) * 5 - 1.5)
    segments = torch.stack([starts, (starts + lengths).clamp(max=199), torch.arange(60) % 20], 1)
    targets = assign(segments, num_classes=20, steps=200, levels=4)
    learned = set()
    for level, one in enumerate(targets):
        for number, place in torch.nonzero(one.held).tolist():
            before, after = one.distances[number, :, place].tolist()
            middle = place * 2**level
            near = [
                i
                for i, (start, end, label) in enumerate(segments.tolist())
                if label == number and abs(middle - before - start) < 0.6 and abs(middle + after - end) < 0.6
            ]
            assert near
            learned |= {*near}
            start, end, _ = segments[near[0]].tolist()
            assert abs(middle - (start + end) / 2) <= 1.5 * 2**level
    rows = segments.tolist()
    alone = {
        i
        for i, (start, end, label) in enumerate(rows)
        if not any(label == c and a < end and start < b for j, (a, b, c) in enumerate(rows) if j != i)
    }
    assert alone <= learned


def test_learns_to_find_what_the_steps_show() -> None:
    torch.manual_seed(0)
    pyramid = Pyramid(PyramidConfig(inputs=2, num_classes=2, levels=3, dim=32))
    optimizer = torch.optim.AdamW(pyramid.parameters(), lr=2e-3)

    def draw(rng: torch.Generator) -> tuple[Tensor, Tensor]:
        steps, rows = torch.zeros(100, 2), []
        for number in (0, 1):
            at = 0
            while (at := at + int(torch.randint(3, 20, (1,), generator=rng))) < 90:
                length = int(torch.randint(2, 24, (1,), generator=rng))
                end = min(at + length, 99)
                steps[at:end, number] = 1
                rows.append([at - 0.5, end - 0.5, number])
                at = end
        return steps + 0.1 * torch.randn(steps.shape, generator=rng), torch.tensor(rows)

    rng = torch.Generator().manual_seed(0)
    for _ in range(150):
        steps, segments = draw(rng)
        focal, apart = pyramid_loss(pyramid(steps[None]), assign(segments, num_classes=2, steps=100, levels=3))
        ((focal + apart) / len(segments)).backward()
        optimizer.step()
        optimizer.zero_grad()
    steps, segments = draw(rng)
    streamer = SegmentStreamer(pyramid, least_score=0.4)
    found = [*streamer.push(steps), *streamer.finish()]
    truth = [StepSegment(start, end, int(number), 1.0) for start, end, number in segments.tolist()]
    hit = [max((overlap(one, other) for other in found if other.number == one.number), default=0.0) for one in truth]
    assert sum(each > 0.7 for each in hit) >= 0.8 * len(truth)
    assert len(found) <= 1.3 * len(truth)


@pytest.mark.parametrize("shape", [(1, 0, 6), (1, 5, 7), (5, 6)])
def test_steps_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=str(shape[-1])):
        make()(torch.zeros(shape))


@pytest.mark.parametrize("values", [{"inputs": 0}, {"num_classes": 0}, {"levels": 0.5}, {"dim": "8"}])
def test_settings_that_no_pyramid_has_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        PyramidConfig(**{"inputs": 4, "num_classes": 2} | values)  # type: ignore[arg-type]
