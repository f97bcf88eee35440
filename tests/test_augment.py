"""One draw for a whole clip; the label goes with the picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from naming import naming

from tubelet.data.augment import (
    STRONG,
    Augmentation,
    augment,
    augment_sound,
    change_clip,
    change_together,
    draw_change,
)

NOTHING = Augmentation(scale=(1.0, 1.0), aspect=(1.0, 1.0), flip=False, reverse=False, colour=0.0)
LEFT, RIGHT = 0, 1


def _noise(channels: int = 3, frames: int = 4, height: int = 20, width: int = 26) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (channels, frames, height, width), np.uint8))


def _moving_dot(direction: int) -> torch.Tensor:
    clip = torch.zeros(3, 8, 24, 32, dtype=torch.uint8)
    for t in range(8):
        x = 12 + t if direction == RIGHT else 20 - t  # never out of any crop drawn below
        clip[:, t, 10:14, x - 2 : x + 2] = 255
    return clip


def _direction(clip: torch.Tensor) -> int:
    """What a viewer sees: where the bright spot's centre goes."""
    columns = clip.float().sum((0, 2))
    centre = (columns * torch.arange(columns.shape[1])).sum(1) / columns.sum(1)
    return RIGHT if centre[-1] > centre[0] else LEFT


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("direction", [LEFT, RIGHT])
def test_what_is_said_of_a_clip_tells_where_the_dot_moves(seed: int, direction: int) -> None:
    everything = Augmentation(scale=(0.7, 1.0), flip=True, reverse=True, colour=0.3)
    rng = np.random.default_rng(seed)
    clip, mirrored, backwards = augment(
        _moving_dot(direction), size=(18, 24), augmentation=everything, flip=True, reverse=True, rng=rng
    )
    assert _direction(clip) == direction ^ mirrored ^ backwards


def test_flip_and_reversal_are_each_made_about_half_the_time() -> None:
    plain = _noise()
    looks = {(False, False): plain, (True, False): plain.flip(3), (False, True): plain.flip(1)}
    looks[True, True] = plain.flip(1, 3)
    counts = dict.fromkeys(looks, 0)
    rng, both = np.random.default_rng(0), replace(NOTHING, flip=True, reverse=True)
    for _ in range(400):
        clip, *said = augment(plain, size=(20, 26), augmentation=both, flip=True, reverse=True, rng=rng)
        assert torch.equal(looks[tuple(said)], clip)
        counts[tuple(said)] += 1
    assert min(counts.values()) > 60


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(reverse=True), STRONG, replace(NOTHING, reverse=True), replace(STRONG, tilt_degrees=45.0, shear=0.9)],
)
def test_clips_are_changed_together_as_one_by_one_but_for_the_rounding_of_a_pixel(augmentation: Augmentation) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        shapes = [(3, 5, *rng.integers(2, 60, 2).tolist()) for _ in range(5)]
        clips = [torch.from_numpy(rng.integers(0, 256, shape, np.uint8)) for shape in shapes]
        settings = {"size": (16, 24), "augmentation": augmentation, "flip": True, "reverse": True, "rng": rng}
        changes = [draw_change(shape, **settings) for shape in shapes]
        one_by_one = torch.stack([change_clip(clip, change) for clip, change in zip(clips, changes)])
        together = change_together(clips, changes, torch.device("cpu"))
        assert together.dtype == torch.uint8
        differences = (together.int() - one_by_one.int()).abs()
        assert differences.max() <= 1
        assert (differences > 0).float().mean() < 0.05


def test_what_may_not_happen_does_not() -> None:
    rng = np.random.default_rng(0)
    everything = replace(NOTHING, flip=True, reverse=True)
    for augmentation, may in ((everything, False), (NOTHING, True)):
        for _ in range(30):
            clip, *said = augment(_noise(), size=(20, 26), augmentation=augmentation, flip=may, reverse=may, rng=rng)
            assert torch.equal(clip, _noise())
            assert said == [False, False]


def test_a_single_frame_is_never_reversed() -> None:
    backwards = replace(NOTHING, reverse=True)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        said = augment(_noise(frames=1), size=(8, 8), augmentation=backwards, flip=False, reverse=True, rng=rng)[1:]
        assert said == (False, False)


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_frames_stay_equal(channels: int) -> None:
    """One draw for all frames: a still picture stays still."""
    still = _noise(channels, frames=1).expand(-1, 6, -1, -1)
    for seed in range(20):
        clip = _default(still, seed)
        assert torch.equal(clip, clip[:, :1].expand_as(clip))
        assert clip.shape == (channels, 6, 16, 12)
        assert clip.dtype == torch.uint8
        assert clip.is_contiguous()


def test_a_flat_colour_stays_flat() -> None:
    flat = torch.tensor([200, 90, 30], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 4, 20, 26)
    for seed in range(20):
        clip = _default(flat, seed)
        assert (clip == clip[:, :1, :1, :1]).all()


def test_equal_generators_give_equal_results_and_others_do_not() -> None:
    assert torch.equal(_default(_noise(), 3), _default(_noise(), 3))
    assert not torch.equal(_default(_noise(), 3), _default(_noise(), 4))


def test_the_number_of_draws_does_not_depend_on_the_settings() -> None:
    """So switching one change off leaves all the others, and every later clip, as they were."""
    after = set()
    for augmentation in (NOTHING, Augmentation(), STRONG, replace(Augmentation(), flip=False, reverse=True)):
        rng = np.random.default_rng(7)
        augment(_noise(), size=(16, 12), augmentation=augmentation, flip=True, reverse=False, rng=rng)
        after.add(rng.random())
    assert len(after) == 1


def test_the_input_is_not_written_to() -> None:
    clip = _noise()
    for seed in range(10):
        _default(clip, seed)
    assert torch.equal(clip, _noise())


def test_a_crop_keeps_the_wanted_share_of_the_frame() -> None:
    """Position coded in the pixels: the span of values seen is the width of the window."""
    ramp = torch.arange(200, dtype=torch.uint8).expand(1, 2, 200, 200)
    spans = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        settings = replace(NOTHING, scale=(0.25, 0.25))
        clip = augment(ramp, size=(100, 100), augmentation=settings, flip=False, reverse=False, rng=rng)[0]
        spans.append((int(clip.min()), int(clip.max())))
    assert {high - low for low, high in spans} == {99}
    assert len({low for low, _ in spans}) > 20


def test_a_tilt_turns_the_frame_about_its_middle() -> None:
    """A cross of two bars, turned: its brightest directions are where the angle says. Far from the edges."""
    picture = torch.zeros(1, 2, 81, 81, dtype=torch.uint8)
    picture[:, :, 39:42, 10:71] = 200
    tilted = replace(NOTHING, tilt_degrees=30)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        clip = augment(picture, size=(81, 81), augmentation=tilted, flip=False, reverse=False, rng=rng)[0]
        y, x = np.nonzero(clip[0, 0].numpy() > 100)
        found = np.degrees(np.arctan2(*np.linalg.svd(np.stack([x - 40, y - 40]))[0][::-1, 0]))
        rng = np.random.default_rng(seed)
        rng.random(2), rng.uniform(), rng.uniform(), rng.integers(1), rng.integers(1), rng.uniform(size=3)
        wanted = -30 * rng.uniform(-1, 1)  # what is drawn turns the window, so the picture the other way
        assert abs((found - wanted + 90) % 180 - 90) < 1.5


def test_a_clip_is_turned_whole_and_keeps_its_looks() -> None:
    still = _noise(frames=1).expand(-1, 5, -1, -1)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        clip = augment(still, size=(16, 12), augmentation=STRONG, flip=True, reverse=False, rng=rng)[0]
        assert torch.equal(clip, clip[:, :1].expand_as(clip))
        assert clip.shape == (3, 5, 16, 12)
        assert clip.is_contiguous()


def test_a_slant_moves_rows_and_keeps_them_level() -> None:
    rows = torch.arange(60, dtype=torch.uint8).view(1, 1, 60, 1).expand(1, 2, 60, 60)
    slanted = replace(NOTHING, shear=0.3)
    clip = augment(rows, size=(60, 60), augmentation=slanted, flip=False, reverse=False, rng=np.random.default_rng(0))[
        0
    ]
    assert torch.equal(clip, rows)


@pytest.mark.parametrize("size", [(1, 1), (20, 26), (50, 7), (7, 50)])
def test_any_size_comes_out_of_any_frame(size: tuple[int, int]) -> None:
    small = Augmentation(scale=(0.01, 1.0))
    for clip in (_noise(), _noise(height=1, width=1), _noise(height=3, width=90)):
        for augmentation in (small, replace(STRONG, scale=(0.01, 1.0))):
            rng = np.random.default_rng(0)
            out = augment(clip, size=size, augmentation=augmentation, flip=False, reverse=False, rng=rng)[0]
            assert out.shape == (3, 4, *size)


def test_colour_does_what_its_formula_says() -> None:
    """Oracle in double precision, pixel by pixel, from the same draws."""
    clip = _noise()
    settings = replace(NOTHING, colour=0.4)
    rng = np.random.default_rng(5)
    out = augment(clip, size=(20, 26), augmentation=settings, flip=False, reverse=False, rng=rng)[0]
    rng = np.random.default_rng(5)
    rng.random(2), rng.uniform(), rng.uniform(), rng.integers(1), rng.integers(1)
    brightness, contrast, saturation = rng.uniform(0.6, 1.4, 3)
    pixels = clip.double().numpy()
    gray = pixels.mean(0, keepdims=True)
    saturated = gray + saturation * (pixels - gray)
    contrasted = pixels.mean() + contrast * (saturated - pixels.mean())
    expected = np.clip(brightness * contrasted, 0, 255)
    assert np.abs(out.numpy() - expected).max() <= 0.51


def test_what_is_not_a_clip_is_refused() -> None:
    for wrong in (_noise().float(), _noise()[0]):
        with pytest.raises(ValueError, match=naming(wrong.dtype, tuple(wrong.shape), "torch.uint8", "(C, T, H, W)")):
            _default(wrong, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", (0.0, 1.0)),
        ("scale", (0.9, 0.8)),
        ("scale", (0.5, 1.1)),
        ("aspect", (0.0, 1.0)),
        ("aspect", (1.0, float("nan"))),
        ("colour", 1.0),
        ("colour", -0.1),
        ("tilt_degrees", 46.0),
        ("tilt_degrees", float("nan")),
        ("shear", 1.0),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=naming(f"{name}={value}")):
        Augmentation(**{name: value})  # type: ignore[arg-type]


def test_sound_is_rolled_and_masked_in_bands() -> None:
    sound = torch.arange(1.0, 1 + 20 * 50).view(1, 1, 20, 50)
    for seed in range(30):
        out = augment_sound(sound, rng=np.random.default_rng(seed), mel_share=0.3, time_share=0.2, roll_share=0.1)
        assert out.shape == sound.shape
        masked_rows = (out == 0).all(3).flatten()
        masked_columns = (out == 0).all(2).flatten()
        assert torch.equal(out == 0, masked_rows.view(1, 1, 20, 1) | masked_columns.view(1, 1, 1, 50))
        for masked, widest in ((masked_rows, 6), (masked_columns, 10)):
            places = masked.nonzero().flatten().tolist()
            assert len(places) <= widest
            assert places == list(range(places[0], places[-1] + 1)) if places else True
        rolls = [r for r in range(-5, 6) if torch.equal(torch.where(out == 0, out, sound.roll(r, 3)), out)]
        assert len(rolls) == 1
    assert sound.min() == 1


def test_sound_is_left_alone_where_nothing_is_asked() -> None:
    sound = torch.randn(1, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    out = augment_sound(sound, rng=np.random.default_rng(0), mel_share=0, time_share=0, roll_share=0)
    assert torch.equal(out, sound)
    assert torch.equal(
        augment_sound(sound, rng=np.random.default_rng(1)), augment_sound(sound, rng=np.random.default_rng(1))
    )


def test_what_is_not_sound_is_refused() -> None:
    rng = np.random.default_rng(0)
    for wrong in (_noise(1, 1), torch.zeros(3, 1, 8, 8), torch.zeros(1, 8, 8)):
        with pytest.raises(ValueError, match=naming(wrong.dtype, tuple(wrong.shape), "(1, 1, mel, time)")):
            augment_sound(wrong, rng=rng)
    with pytest.raises(ValueError, match=naming(1.5, 0, 1)):
        augment_sound(torch.zeros(1, 1, 8, 8), rng=rng, mel_share=1.5)


def _default(clip: torch.Tensor, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return augment(clip, size=(16, 12), augmentation=Augmentation(), flip=True, reverse=False, rng=rng)[0]
