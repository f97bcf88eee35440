"""What is seen at each step of a long clip: laws, and an oracle that cuts the windows out."""

import pytest
import torch

import tubelet
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.split import encode_steps, encodes_steps_apart, see_encoded_steps, see_steps
from tubelet.nn.step_streamer import StepStreamer

FAMILIES = ("vivit1", "vivit2", "vivit3", "vivit4", "timesformer", "vidtrans", "vjepa2")


def make(family: str, frames: int = 8) -> SpaceTimeTransformer:
    torch.manual_seed(0)
    return tubelet.create_model(f"{family}-N/8x2", clip=(frames, 16, 24), num_classes=3).eval()


def cut_out(model: SpaceTimeTransformer, clip: torch.Tensor, window: int) -> torch.Tensor:
    """(C, T, H, W) -> (t, D), by hand: each step from the window in whose middle it stands."""
    patch = model.embed.patch[0]
    steps, size = clip.shape[1] // patch, window // patch
    clip = clip[:, : steps * patch]
    hop = max(1, size // 2)
    starts = [*range(0, max(1, steps - size + 1), hop)]
    if starts[-1] + size < steps:
        starts.append(steps - size)
    rows: list[torch.Tensor] = []
    for i, start in enumerate(starts):
        seen = see_steps(model, clip[None, :, start * patch : (start + size) * patch])[0]
        last = i == len(starts) - 1
        # the last window that stands off the hops gives all from where the one before it ended
        stop = len(seen) if last else (size + hop) // 2
        rows += seen[len(rows) - start : stop]
    return torch.stack(rows)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frames", [3, 8, 9, 12, 22, 38])
def test_is_each_step_of_the_window_around_it_whatever_the_pieces(family: str, frames: int) -> None:
    model = make(family)
    clip = torch.randn(3, frames, 16, 24, generator=torch.Generator().manual_seed(1))
    expected = cut_out(model, clip, 8)
    for size in (1, 5, 100):
        streamer = StepStreamer(model, window=8)
        pieces = [*map(streamer.push, clip.split(size, 1)), streamer.finish()]
        found = torch.cat([piece for piece in pieces if len(piece)])
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_given_once_its_delay_has_passed(family: str) -> None:
    streamer = StepStreamer(make(family), window=8)
    given = 0
    for number in range(40):
        given += len(streamer.push(torch.randn(3, 2, 16, 24)))
        assert given <= number + 1
        assert given >= number + 1 - streamer.delay


def test_the_mean_over_the_steps_is_what_a_model_that_pools_by_the_mean_classifies() -> None:
    model = SpaceTimeTransformer(make("vivit1").config.with_stage(0, pool="mean")).eval()
    clip = torch.randn(2, 3, 8, 16, 24)
    torch.testing.assert_close(see_steps(model, clip).mean(1)[:, : model.head.in_features], model.features(clip))


def test_steps_that_were_encoded_apart_are_seen_alike() -> None:
    model = make("vivit2")
    assert encodes_steps_apart(model)
    clip = torch.randn(3, 8, 16, 24)
    found = see_encoded_steps(model, encode_steps(model, clip)[None])
    torch.testing.assert_close(found, see_steps(model, clip[None]), atol=1e-5, rtol=1e-4)


def test_a_window_that_is_not_whole_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="7"):
        StepStreamer(make("vivit1"), window=7)
