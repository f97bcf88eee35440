"""A Predictor on what is in memory: it answers arrays, tensors, batches and iterators as it answers files."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naming import naming
from small_sets import SOUND, VIDEO, spoil, write_images, write_sounds, write_videos
from tiny import tiny

from tubelet import ClipSpec, Predictor, save
from tubelet.embed.folder import FILE, read_vectors
from tubelet.embed.writer import embed
from tubelet.features.distance import fit_distance
from tubelet.media.reader import MediaError, index, read_frames, read_sound
from tubelet.media.writer import write_video
from tubelet.predict.predictor import AHEAD

IMAGE = replace(VIDEO, kind="image", frames=1, seconds_between_frames=0.0)
SPECS = {"video": VIDEO, "image": IMAGE, "sound": SOUND}


def write_run(folder: Path, spec: ClipSpec, **settings: Any) -> Path:
    family, patch = ("vivit2", (2, 16, 16)) if spec.kind == "video" else ("vit", (1, 16, 16))
    like = {"clip": spec.clip_size, "channels": spec.num_channels, "mean": spec.mean, "std": spec.std}
    model = tiny(family, depth=1, **{"patch": patch, "num_classes": 2} | like | settings)
    return save(model, folder, about={"classes": ["x", "y"], "clip_spec": spec.to_json()}).parent


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predictor")


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[str, Path]:
    return {kind: write_run(place / f"run-{kind}", spec) for kind, spec in SPECS.items()}


@pytest.fixture(scope="module")
def files(place: Path) -> dict[str, list[Path]]:
    """Of each kind some; the videos once more as long as several clips."""
    writers = {"video": write_videos, "image": write_images, "sound": write_sounds}
    found = {kind: sorted(path for path in write(place / kind, 3).rglob("*.*")) for kind, write in writers.items()}
    long = read_frames(found["video"][0], np.arange(8) / 25)
    write_video(place / "long.mp4", np.concatenate([np.roll(long, 7 * k, axis=2) for k in range(6)]), crf=0)
    found["video"].append(place / "long.mp4")
    return found


def load(runs: dict[str, Path], kind: str) -> Predictor:
    return Predictor.load(runs[kind], device="cpu")


def read(file: Path, kind: str) -> np.ndarray:
    """What is in a file, as readers give it."""
    if kind == "sound":
        return read_sound(file, sample_rate=SOUND.sample_rate)
    frames = read_frames(file, index(file).times)
    return frames if kind == "video" else frames[0]


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array) if array.ndim == 1 else torch.from_numpy(array).movedim(-1, 0)


def rate_of(kind: str) -> dict[str, Any]:
    return {"frames_per_second": 25} if kind == "video" else {}


# ---- arrays and tensors


@pytest.mark.parametrize("views", ["auto", "1x1", "4x3"])
@pytest.mark.parametrize("kind", SPECS)
def test_what_is_in_a_file_gets_the_answer_of_the_file(
    runs: dict[str, Path], files: dict[str, list[Path]], kind: str, views: str
) -> None:
    """To the bit: the files are as large as the ClipSpec scales them to, so that nothing is scaled twice."""
    predictor, asked = load(runs, kind), views if kind == "video" else {"4x3": "1x1"}.get(views, views)
    for file in files[kind]:
        array, expected = read(file, kind), predictor.predict(file, views=asked)
        for clip in (array, as_tensor(array), np.asfortranarray(array)):
            found = predictor.predict(clip, views=asked, **rate_of(kind))
            assert found == replace(expected, path="", seconds=found.seconds, seconds_seen=found.seconds_seen)
            assert (found.seconds, found.seconds_seen) == pytest.approx((expected.seconds, expected.seconds_seen))
            features = predictor.features(clip, views=asked, **rate_of(kind))
            assert torch.equal(features, predictor.features(file, views=asked))


def test_frames_without_a_rate_are_as_far_apart_as_those_of_the_clip(runs: dict[str, Path]) -> None:
    predictor = load(runs, "video")
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 40, 3), dtype=np.uint8)
    clip = torch.from_numpy(frames)[:, :, 4:36].movedim(-1, 0)[None]
    with torch.inference_mode():
        expected = predictor.model(clip)[0].softmax(0)
    found = predictor.predict(frames)
    assert [found.probabilities[name] for name in "xy"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert (found.seconds, found.seconds_seen) == pytest.approx((0.32, 0.32))
    assert found == predictor.predict(frames, frames_per_second=12.5)
    assert found == predictor.predict(frames.repeat(2, axis=0), frames_per_second=Fraction(25))
    assert found != predictor.predict(frames, frames_per_second=25)
    assert predictor.predict(frames[:1]) == replace(predictor.predict(frames[[0] * 4]), seconds=0.08, seconds_seen=0.08)


def test_frames_of_another_size_are_scaled_as_those_of_a_file(runs: dict[str, Path], tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (8, 6, 8, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    write_video(tmp_path / "large.mp4", frames, frames_per_second=25, crf=0)
    predictor = load(runs, "video")
    of_file, of_frames = predictor.features(tmp_path / "large.mp4"), predictor.features(frames, frames_per_second=25)
    assert (of_file - of_frames).abs().max() < 0.05 * of_file.abs().max()  # a video has half of the colours


@pytest.mark.parametrize("channels", ["bgr", "gray"])
def test_pixels_are_rgb_whatever_the_model_sees(files: dict[str, list[Path]], tmp_path: Path, channels: Any) -> None:
    means = {"mean": (0.4,), "std": (0.2,)} if channels == "gray" else {}
    run = write_run(tmp_path / "run", replace(VIDEO, channels=channels, **means))
    predictor, file = Predictor.load(run, device="cpu"), files["video"][0]
    found = predictor.predict(read(file, "video"), frames_per_second=25)
    assert found.probabilities == predictor.predict(file).probabilities


def test_frames_are_told_from_the_training_as_files_are(runs: dict[str, Path], files: dict[str, list[Path]]) -> None:
    predictor = load(runs, "video")
    known = predictor.features(files["video"][:3]).numpy()
    predictor.distance = fit_distance(known, known)
    found = predictor.predict(read(files["video"][0], "video"), frames_per_second=25)
    assert found.distance == predictor.predict(files["video"][0]).distance is not None


# ---- many


@pytest.mark.parametrize("kind", SPECS)
def test_a_batch_is_answered_clip_by_clip(runs: dict[str, Path], files: dict[str, list[Path]], kind: str) -> None:
    predictor = load(runs, kind)
    arrays = [read(file, kind) for file in files[kind][:3]]
    arrays = [array[: min(map(len, arrays))] if kind == "sound" else array for array in arrays]
    alone = [predictor.predict(array) for array in arrays]
    batch, tensors = np.stack(arrays), torch.stack([as_tensor(array) for array in arrays])
    for clips in (batch, tensors, arrays, iter(arrays)):
        found = predictor.predict(clips)
        assert [one.label for one in found] == [one.label for one in alone]
        for one, other in zip(found, alone, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        (first,) = predictor.predict(batch[:1])
        assert first == alone[0]
    expected = torch.stack([predictor.features(array) for array in arrays])
    for clips in (batch, tensors, arrays, iter(arrays)):
        assert torch.equal(predictor.features(clips), expected)
    assert predictor.predict(batch[:0]) == predictor.predict([]) == []
    assert predictor.features(batch[:0]).shape == (0, expected.shape[1])


def test_files_and_clips_may_stand_beside_each_other(
    runs: dict[str, Path], files: dict[str, list[Path]], tmp_path: Path
) -> None:
    spoil(tmp_path / "bad.mp4")
    predictor, (first, second, *_) = load(runs, "video"), files["video"]
    array = read(first, "video")
    found = predictor.predict([str(first), array, tmp_path / "bad.mp4", as_tensor(array), second])
    assert [one.path for one in found] == [str(first), "", str(tmp_path / "bad.mp4"), "", str(second)]
    assert [one.code for one in found] == ["ok", "ok", "not-video", "ok", "ok"]
    assert found[1] == found[3]
    with pytest.raises(MediaError, match=naming(tmp_path / "bad.mp4")):
        predictor.features([first, tmp_path / "bad.mp4"])


@pytest.mark.parametrize("what", ["paths", "clips"])
def test_an_iterator_is_asked_for_no_more_than_is_needed(
    runs: dict[str, Path], files: dict[str, list[Path]], what: str
) -> None:
    """It may be endless, or of clips that do not fit into memory together."""

    class Enough(Exception):
        pass

    taken, file = [0], files["video"][0]
    clip = file if what == "paths" else read(file, "video")

    def endless() -> Iterator[Any]:
        for _ in itertools.count():
            taken[0] += 1
            yield clip

    told = [0]

    def stop(_: object) -> None:
        told[0] += 1
        if told[0] == 300:
            raise Enough

    with pytest.raises(Enough):
        load(runs, "video").predict_files(endless(), after=stop)
    assert 300 <= taken[0] <= 300 + (AHEAD if what == "paths" else 0) + 48


# ---- features


@pytest.mark.parametrize("kind", SPECS)
def test_features_are_the_vectors_that_embed_writes(
    runs: dict[str, Path], files: dict[str, list[Path]], kind: str, tmp_path: Path
) -> None:
    found = embed(runs[kind], files[kind], tmp_path / "out", device="cpu", workers=1, show=False)
    vectors = read_vectors(tmp_path / "out" / FILE)
    predictor = load(runs, kind)
    for row, number in vectors.numbered():
        features = predictor.features(row.path)
        assert features.dtype == torch.float32
        assert np.array_equal(features.numpy(), vectors.vectors[number])
    assert len(found.vectors) == len(files[kind])
    assert predictor.features(files[kind]).shape == (len(files[kind]), 24)


def test_features_are_what_the_head_classifies_and_others_may_learn_from_them(
    runs: dict[str, Path], files: dict[str, list[Path]]
) -> None:
    predictor, file = load(runs, "video"), files["video"][-1]
    features = predictor.features(file)
    head = predictor.model.head
    assert torch.allclose(head(features).softmax(0)[0], torch.tensor(predictor.predict(file).probabilities["x"]))
    probe = torch.nn.Linear(len(features), 2)
    probe(features).sum().backward()
    assert probe.weight.grad is not None


def test_features_that_are_not_finite_are_refused(runs: dict[str, Path], files: dict[str, list[Path]]) -> None:
    predictor = load(runs, "image")
    with torch.no_grad():
        predictor.model.embed.proj.bias.fill_(float("inf"))
    with pytest.raises(ValueError, match=naming("finite", "float32")):
        predictor.features(files["image"][0])


# ---- what is no clip


def zeros(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


NO_CLIPS: list[tuple[str, Any, tuple[object, ...]]] = [
    ("video", zeros(3, 4, 32, 40), ("(3, 4, 32, 40)", "(T, H, W, 3)", "np.moveaxis(clip, 0, -1)")),
    ("video", zeros(4, 3, 32, 40), ("(4, 3, 32, 40)", "(T, H, W, 3)", "np.moveaxis(clip, 1, -1)")),
    ("video", zeros(4, 32, 40, 1), ("(4, 32, 40, 1)", "grey")),
    ("video", zeros(32, 40, 3), ("(32, 40, 3)", "(T, H, W, 3)", "T = 1")),
    ("video", zeros(1, 2, 4, 32, 40, 3), ("(1, 2, 4, 32, 40, 3)", "batch")),
    ("video", zeros(0, 32, 40, 3), ("(0, 32, 40, 3)",)),
    ("video", zeros(4, 32, 40, 3, dtype=np.float32), ("float32", "uint8", 255)),
    ("video", torch.zeros(4, 32, 40, 3, dtype=torch.uint8), ("(4, 32, 40, 3)", "(3, T, H, W)", "clip.movedim(3, 0)")),
    ("video", torch.zeros(4, 3, 32, 40, dtype=torch.uint8), ("(4, 3, 32, 40)", "(3, T, H, W)", "clip.movedim(1, 0)")),
    ("video", torch.zeros(3, 3, 32, 40, dtype=torch.uint8), ("(3, 3, 32, 40)", "[0, 1]", "(T, H, W, 3)")),
    ("video", torch.zeros(3, 32, 40, 3, dtype=torch.uint8), ("(3, 32, 40, 3)", "[0, 3]", "(T, H, W, 3)")),
    ("video", torch.zeros(3, 4, 32, 40), ("torch.float32", "uint8")),
    ("video", 7, ("int", "(T, H, W, 3)", "(3, T, H, W)")),
    ("video", [zeros(32, 40, 3)], ("(32, 40, 3)", "(T, H, W, 3)")),
    ("image", zeros(3, 32, 40), ("(3, 32, 40)", "(H, W, 3)", "np.moveaxis(clip, 0, -1)")),
    ("image", zeros(32, 40), ("(32, 40)", "(H, W, 3)")),
    ("image", torch.zeros(32, 40, 3, dtype=torch.uint8), ("(32, 40, 3)", "(3, H, W)", "clip.movedim(2, 0)")),
    ("sound", zeros(100, dtype=np.int16), ("int16", 32768)),
    ("sound", zeros(100, dtype=np.float32) + 1.5, (1.5, "np.clip")),
    ("sound", zeros(100, dtype=np.float32) * np.nan, ("nan",)),
    ("sound", zeros(0, dtype=np.float32), ("(0,)",)),
    ("sound", [zeros(2, 100, dtype=np.float32)], ("(2, 100)", "(samples,)", 16000)),
]


@pytest.mark.parametrize(("kind", "clip", "values"), NO_CLIPS)
def test_what_is_no_clip_is_an_error_that_says_what_to_do(
    runs: dict[str, Path], kind: str, clip: Any, values: tuple[object, ...]
) -> None:
    for ask in (load(runs, kind).predict, load(runs, kind).features):
        with pytest.raises(ValueError, match=naming(*values)):
            ask(clip)


def test_frames_that_would_become_too_large_are_refused(runs: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=naming("20000000x2")):
        load(runs, "video").predict(zeros(1, 2, 20_000_000, 3))


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_that_no_frames_have(runs: dict[str, Path], rate: float) -> None:
    with pytest.raises(ValueError, match=naming(f"frames_per_second={rate}")):
        load(runs, "video").predict(zeros(4, 32, 40, 3), frames_per_second=rate)


@pytest.mark.parametrize("kind", SPECS)
def test_a_rate_is_of_frames_in_memory_alone(runs: dict[str, Path], files: dict[str, list[Path]], kind: str) -> None:
    given = [files[kind][0]] + ([] if kind == "video" else [read(files[kind][0], kind)])
    for clip in given:
        with pytest.raises(ValueError, match=naming("frames_per_second=25")):
            load(runs, kind).predict(clip, frames_per_second=25)
