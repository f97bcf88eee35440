"""A window that slides over pushed frames says what the model says of the windows cut out of the whole clip."""

import random
from typing import Any

import pytest
import torch
from naming import naming
from tiny import TOKENISERS, VIDEO, tiny
from torch import Tensor
from torch.testing import assert_close

from tubelet.nn import SpaceTimeTransformer, Streamer, classify_steps, encode_steps
from tubelet.nn.split import encodes_steps_apart
from tubelet.nn.streamer import TOGETHER, Answer

FRAMES = 29
# Tokenisers and settings that bear on time: (family, settings).
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in VIDEO},
    "vit on single frames": ("vit", {}),
    **{f"vivit2 {kind}": ("vivit2", settings) for kind, settings in TOKENISERS.items()},
    "vivit1 conv": ("vivit1", {"embed": "conv"}),
    "vivit2 uniform frames": ("vivit2", {"patch": (1, 4, 4), "frames": 4}),
    "vivit2 overlapping": ("vivit2", {"patch": (3, 4, 4), "stride": (1, 4, 4)}),
    "vivit1 overlapping": ("vivit1", {"patch": (3, 4, 4), "stride": (2, 4, 4), "clip": (9, 8, 12)}),
    "vivit2 with gaps": ("vivit2", {"patch": (2, 4, 4), "stride": (3, 4, 4)}),
    "vivit2 single frames": ("vivit2", {"patch": (1, 4, 4)}),
    "vivit2 padded": ("vivit2", {"pad": "mean", "patch": (2, 4, 5)}),
    "vivit2 mean pooling": ("vivit2", {"pool": "mean"}),
    "vivit2 rotary": ("vivit2", {"position": "rotary"}),
    "vivit2 sincos": ("vivit2", {"position": "sincos"}),
    "vivit2 average of frames": ("vivit2", {"temporal_depth": 0}),
    "vivit2 without head": ("vivit2", {"num_classes": 0}),
}
# each step of their tokens is of its own frames; that this is so shows in the answers
CACHING = {
    name
    for name, (family, settings) in MODELS.items()
    if family in ("vivit2", "pe", "pevideo", "dinov3", "siglip2") and tiny(family, **settings).embed.steps_apart
}


def make(name: str) -> SpaceTimeTransformer:
    family, settings = MODELS[name]
    return tiny(family, **({"clip": (10, 8, 12)} if name == "vivit2 overlapping" else {}) | settings)


def lengths(model: SpaceTimeTransformer, window_steps: int, hop_steps: int) -> tuple[int, int]:
    """Steps -> frames."""
    patch, stride = model.embed.patch[0], model.embed.stride[0]
    return patch + (window_steps - 1) * stride, hop_steps * stride


def cut_out(model: SpaceTimeTransformer, clip: Tensor, window: int, hop: int) -> list[Answer]:
    """The definition: whole windows, a hop apart, then the last whole one; all whole steps where there is no window."""
    patch, stride = model.embed.patch[0], model.embed.stride[0]
    whole = patch + (clip.shape[1] - patch) // stride * stride
    if clip.shape[1] < patch:
        return []
    if whole < window:
        return [(0, model(clip[None, :, :whole])[0])]
    firsts = sorted({*range(0, whole - window + 1, hop), whole - window})
    return [(first, model(clip[None, :, first : first + window])[0]) for first in firsts]


def pushed(streamer: Streamer, clip: Tensor, sizes: list[int]) -> list[Answer]:
    answers = [answer for piece in clip.split(sizes, 1) for answer in streamer.push(piece)]
    return answers + streamer.finish()


def pieces(total: int, largest: int) -> list[int]:
    """Random sizes that add up."""
    found = []
    while sum(found) < total:
        found.append(min(random.randint(0, largest), total - sum(found)))
    return found


def check(got: list[Answer], expected: list[Answer]) -> None:
    assert [first for first, _ in got] == [first for first, _ in expected]
    for (_, one), (_, other) in zip(got, expected, strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)


# ---- the law


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_every_answer_is_the_models_on_the_window_cut_out(name: str) -> None:
    model = make(name)
    clip = torch.randn(3, FRAMES, 8, 12)
    for window_steps, hop_steps in ((1, 1), (4, 1), (4, 3), (3, 5), (30, 2)):
        window, hop = lengths(model, window_steps, hop_steps)
        expected = cut_out(model, clip, window, hop)
        for largest in (5, FRAMES):
            streamer = Streamer(model, window=window, hop=hop)
            check(pushed(streamer, clip, pieces(FRAMES, largest)), expected)
            assert streamer.recomputes == (name not in CACHING)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vivit2", "vivit2 overlapping", "vivit2 with gaps", "vivit1", "vivit1 overlapping"])
def test_streams_of_any_length(name: str) -> None:
    model = make(name)
    for frames in range(1, 24):
        clip = torch.randn(3, frames, 8, 12)
        for window, hop in (lengths(model, 4, 2), lengths(model, 2, 3)):
            expected = cut_out(model, clip, window, hop)
            check(pushed(Streamer(model, window=window, hop=hop), clip, pieces(frames, 5)), expected)


@torch.no_grad()
def test_an_answer_comes_with_the_frame_that_makes_its_window_whole() -> None:
    model = make("vivit2")
    streamer = Streamer(model, window=8, hop=4)
    came = {}
    for number in range(20):
        for first, _ in streamer.push(torch.randn(3, 1, 8, 12)):
            came[first] = number
    assert came == {0: 7, 4: 11, 8: 15, 12: 19}
    assert streamer.finish() == []


@torch.no_grad()
def test_pixels_are_normalised_as_the_model_does() -> None:
    for name in ("vivit2", "vivit1"):
        model = make(name)
        clip = torch.randint(0, 256, (3, 12, 8, 12), dtype=torch.uint8)
        check(pushed(Streamer(model, window=8, hop=2), clip, [5, 7]), cut_out(model, clip, 8, 2))


def test_the_model_is_put_in_eval_mode_and_no_gradient_is_kept() -> None:
    for name in ("vivit2", "vivit1"):
        model = make(name).train()
        answers = Streamer(model, window=4, hop=2).push(torch.randn(3, 9, 8, 12))
        assert not model.training
        assert not any(logits.requires_grad for _, logits in answers)


# ---- memory and work


@torch.no_grad()
@pytest.mark.parametrize("name", ["vivit2", "vivit1", "vivit2 overlapping", "vivit2 with gaps"])
@pytest.mark.parametrize(("window_steps", "hop_steps"), [(4, 1), (4, 4), (2, 5)])
def test_what_is_held_does_not_grow(name: str, window_steps: int, hop_steps: int) -> None:
    model = make(name)
    window, hop = lengths(model, window_steps, hop_steps)
    streamer = Streamer(model, window=window, hop=hop)
    patch, stride = model.embed.patch[0], model.embed.stride[0]
    most = (window if streamer.recomputes else 0) + patch + stride  # a step that is not whole yet
    for _ in range(60):
        streamer.push(torch.randn(3, 5, 8, 12))
        assert streamer.frames.shape[1] <= most
        assert streamer.frames.untyped_storage().nbytes() <= 4 * 3 * most * 8 * 12
        assert len(streamer.codes) <= (0 if streamer.recomputes else window_steps)
        assert streamer.codes.untyped_storage().nbytes() <= 4 * 24 * window_steps


@torch.no_grad()
def test_each_step_is_encoded_once_and_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("vivit2")
    seen: list[int] = []
    embed = model.embed_clip

    def counting(clip: Tensor) -> object:
        seen.append(clip.shape[2] // 2)
        return embed(clip)

    monkeypatch.setattr(model, "embed_clip", counting)
    pushed(Streamer(model, window=8, hop=2), torch.randn(3, 101, 8, 12), [101])
    assert sum(seen) == 50
    assert max(seen) == TOGETHER


@torch.no_grad()
def test_a_model_in_two_halves_is_the_model() -> None:
    for name in CACHING - {"vivit2 overlapping", "vivit2 with gaps"}:
        model = make(name)
        clip = torch.randn(3, 8, 8, 12)
        assert_close(classify_steps(model, encode_steps(model, clip)[None])[0], model(clip[None])[0])


# ---- codes


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(CACHING))
def test_codes_of_one_stream_give_the_answers_of_any_other(name: str) -> None:
    model = make(name)
    clip = torch.randn(3, FRAMES, 8, 12)
    first = Streamer(model, window=lengths(model, 1, 9)[0], hop=lengths(model, 1, 9)[1])
    codes = []
    for piece in clip.split(pieces(FRAMES, 9), 1):
        first.push(piece)
        codes.append(first.fresh)
    encoded = torch.cat([code for code in codes if len(code)])
    assert len(encoded) == first.steps
    for window, hop in (lengths(model, 4, 1), lengths(model, 3, 2), lengths(model, 40, 2)):
        again = Streamer(model, window=window, hop=hop)
        answers = [answer for part in encoded.split(5) for answer in again.push_codes(part)] + again.finish()
        check(answers, cut_out(model, clip, window, hop))
        assert len(again.codes) <= max(1, (window - model.embed.patch[0]) // model.embed.stride[0] + 1)


# ---- errors


@pytest.mark.parametrize(
    ("name", "window", "hop", "values"),
    [
        (
            "vivit2",
            7,
            2,
            (
                "window=7",
                "2, 4, 6",
            ),
        ),
        (
            "vivit2",
            1,
            2,
            (
                "window=1",
                "2, 4, 6",
            ),
        ),
        (
            "vivit2",
            8,
            3,
            (
                "hop=3",
                "2, 4, 6",
            ),
        ),
        (
            "vivit2",
            8,
            0,
            (
                "hop=0",
                "2, 4, 6",
            ),
        ),
        (
            "vivit2 overlapping",
            2,
            1,
            (
                "window=2",
                "3, 4, 5",
            ),
        ),
        (
            "vivit2 with gaps",
            6,
            3,
            (
                "window=6",
                "2, 5, 8",
            ),
        ),
        (
            "vivit2 with gaps",
            5,
            2,
            (
                "hop=2",
                "3, 6, 9",
            ),
        ),
    ],
)
def test_windows_and_hops_are_whole_steps(name: str, window: int, hop: int, values: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=naming(*values)):
        Streamer(make(name), window=window, hop=hop)


def test_a_stream_keeps_its_size_and_kind() -> None:
    streamer = Streamer(make("vivit2"), window=4, hop=2)
    with pytest.raises(ValueError, match=naming("(1, 3, 2, 8, 12)", "(C, T, H, W)")):
        streamer.push(torch.randn(1, 3, 2, 8, 12))
    streamer.push(torch.randn(3, 3, 8, 12))
    for other in (torch.randn(3, 3, 8, 16), torch.zeros(3, 3, 8, 12, dtype=torch.uint8), torch.randn(1, 3, 8, 12)):
        with pytest.raises(ValueError, match=naming(other.dtype, "(3, 8, 12")):
            streamer.push(other)


def test_models_that_see_their_clip_as_a_whole_have_no_codes() -> None:
    for name in set(MODELS) - CACHING:
        model = make(name)
        assert not encodes_steps_apart(model)
        with pytest.raises(ValueError, match=naming("vivit2")):
            encode_steps(model, torch.randn(3, 8, 8, 12))
        with pytest.raises(ValueError, match=naming(model.config.family)):
            Streamer(model, window=model.embed.patch[0], hop=model.embed.stride[0]).push_codes(torch.randn(4, 24))


def test_codes_of_another_width_are_refused() -> None:
    streamer = Streamer(make("vivit2"), window=4, hop=2)
    for shape in ((4, 25), (1, 4, 24)):
        with pytest.raises(ValueError, match=naming(shape, "(t, 24)")):
            streamer.push_codes(torch.randn(shape))
