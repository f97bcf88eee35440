"""Tokens that see motion: self-similarity against brute force, and what moves where."""

from itertools import product

import pytest
import torch
from tiny import clip_for, tiny
from torch import Tensor
from torch.testing import assert_close

from tubelet.nn.self_similarity import FLAT, RADIUS, SHARPNESS, SelfSimilarityEmbed, square_px


def made(patch: tuple[int, int, int]) -> SelfSimilarityEmbed:
    torch.manual_seed(0)
    return SelfSimilarityEmbed(3, 24, patch).eval()


@pytest.mark.parametrize(
    ("patch", "px"), [(16, 4), (12, 4), (14, 14), (8, 4), (4, 4), (10, 10), (7, 7), (9, 9), (2, 2), (1, 1)]
)
def test_places_divide_a_patch(patch: int, px: int) -> None:
    assert square_px(patch) == px
    assert patch % px == 0


def described(frames: Tensor, cell: int) -> Tensor:
    """By loops: grey frames (T, H, W) of a clip -> (T, h, w, 16), a square by 4 x 4 means of half a square."""
    frames, half = frames / frames.std(), cell // 2
    count = frames.shape[1] // half, frames.shape[2] // half
    found = torch.zeros(len(frames), count[0] // 2, count[1] // 2, 16)
    for t, y, x in product(*map(range, found.shape[:3])):
        means = []
        for i, j in product(range(-1, 3), repeat=2):
            row, column = min(max(2 * y + i, 0), count[0] - 1), min(max(2 * x + j, 0), count[1] - 1)
            means.append(frames[t, row * half : (row + 1) * half, column * half : (column + 1) * half].mean())
        around = torch.stack(means)
        around = around - around.mean()
        found[t, y, x] = around / (around.square().sum() + FLAT**2 * 16).sqrt()
    return found


@pytest.mark.parametrize("patch", [(2, 8, 12), (1, 4, 8)])
def test_origins_are_softmaxed_cosines_with_the_frame_before(patch: tuple[int, int, int]) -> None:
    embed, clip = made(patch), torch.randn(2, 3, 4, 16, 24)
    found = embed.origins(clip)
    (bh, bw), (kh, kw) = embed.squares, embed.around
    for number in range(2):
        vectors = described(clip[number].mean(0), 4)
        for t, row, column in product(range(4), range(16 // patch[1]), range(24 // patch[2])):
            before = vectors[max(t - 1, 0)]
            for i, j in product(range(bh), range(bw)):
                ours, scores = vectors[t, row * bh + i, column * bw + j], torch.zeros(kh, kw)
                for y, x in product(range(kh), range(kw)):
                    square = row * bh + y - RADIUS, column * bw + x - RADIUS
                    if 0 <= square[0] < before.shape[0] and 0 <= square[1] < before.shape[1]:
                        scores[y, x] = SHARPNESS * ours @ before[square]
                given = found[number, t, row, column].unflatten(0, (bh * bw, kh * kw))[i * bw + j]
                assert_close(given, scores.flatten().softmax(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shift", [(0, 0), (0, 1), (-1, 0), (2, -1)])
def test_the_likeliest_origin_is_where_things_were(shift: tuple[int, int]) -> None:
    """A picture that moves by whole squares: in the middle of the frame, where nothing comes in from outside."""
    embed, cell = made((2, 12, 12)), 4
    picture = torch.randn(1, 3, 48, 60)
    moved = picture.roll((shift[0] * cell, shift[1] * cell), (2, 3))
    found = embed.origins(torch.stack([picture, moved], 2))[0, 1, 2, 2]  # in the frame that came second, mid-way
    squares, around = 3, 3 + 2 * RADIUS
    for number, chances in enumerate(found.unflatten(0, (squares**2, around**2))):
        y, x = divmod(int(chances.argmax()), around)
        assert (y - RADIUS - number // squares, x - RADIUS - number % squares) == (-shift[0], -shift[1])


@pytest.mark.parametrize(
    ("length", "looked_at"), [(4, [1, 3, 5, 7]), (2, [1, 3, 5, 7]), (1, range(8)), (8, [1, 3, 5, 7])]
)
def test_every_second_frame_is_looked_at_where_tubelets_are_pairs(
    length: int, looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    embed, clip = made((length, 8, 8)), torch.randn(1, 3, 8, 16, 24)
    given, origins = list[Tensor](), embed.origins
    monkeypatch.setattr(embed, "origins", lambda frames: given.append(frames) or origins(frames))
    embed(clip)
    assert_close(given[0], clip[:, :, list(looked_at)])


def test_brightness_and_colour_of_a_whole_clip_change_no_origin() -> None:
    embed, clip = made((2, 8, 8)), torch.randn(1, 3, 4, 16, 24)
    assert_close(embed.origins(3 * clip + 0.7), embed.origins(clip), rtol=1e-4, atol=1e-6)


def test_flat_pictures_come_from_anywhere() -> None:
    embed = made((1, 8, 8))
    chances = embed.origins(torch.full((1, 3, 3, 16, 16), 0.3))
    assert_close(chances, torch.full_like(chances, 1 / (embed.around[0] * embed.around[1])))


def test_what_is_not_learned_is_not_computed_backwards() -> None:
    model = tiny("vivit1", embed="similarity")
    embed, clip = model.embed, clip_for(model)
    assert isinstance(embed, SelfSimilarityEmbed)
    assert not embed.origins(clip).requires_grad
    model(clip).sum().backward()
    assert all(parameter.grad is not None for parameter in embed.parameters())
