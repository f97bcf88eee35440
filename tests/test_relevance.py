"""Explanations: the answer stays the same, its parts add up to it, and they point at what it rests on."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from naming import naming
from PIL import Image
from small_sets import command, spoil, tiny_config, write_images, write_sounds, write_videos
from torch import Tensor

import tubelet
from tubelet.media.reader import index
from tubelet.nn import SpaceTimeTransformer, create_model
from tubelet.predict.predictor import Predictor
from tubelet.relevance.draw import FOR, largest, tint, tint_clip
from tubelet.relevance.explain import answer, explain
from tubelet.relevance.files import choose_names
from tubelet.relevance.hide import HOWS, hide, highest, last_seen, smooth, spread
from tubelet.relevance.linear_rules import LinearRules
from tubelet.relevance.maps import FileMap, explain_file, find_box
from tubelet.system.text import percent
from tubelet.train import train_fn

FAMILIES = [
    *("vivit1-P/16x2", "vivit2-P/16x2", "vivit3-P/16x2", "vivit4-N/16x2", "timesformer-P/16x2", "vidtrans-P/16x2"),
    *("videomae-P/16x2", "vjepa2-P/16x2", "swin2-P/4x2", "vit-P/16", "vjepa21-P/16x2", "videoprism-P/16"),
    *("pe-P/16", "pevideo-P/16", "dinov3-P/16", "dinov3-S+/16", "siglip2-P/16"),
]
EMBEDS = ["conv", "similarity", "depthwise", "space-time", "resnet26"]
# What adds to an answer beside the tokens, and belongs to no place.
ELSEWHERE = ("bias", "tables", "prefix", "query")
RANDOM = np.random.default_rng


def make(name: str, **settings: Any) -> tuple[SpaceTimeTransformer, Tensor]:
    """A model none of whose parts is zero, and two clips."""
    torch.manual_seed(0)
    frames = 1 if name.startswith("vit-") else 8
    model = create_model(name, clip=(frames, 64, 64), num_classes=5, **settings).eval()
    for parameter in model.parameters():
        if parameter.ndim < 2 or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
        elif parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=2 * parameter.shape[1] ** -0.5)
    torch.nn.init.normal_(model.head.weight, std=0.5)
    clips = torch.from_numpy(RANDOM(0).integers(0, 256, (2, 3, frames, 64, 64), dtype=np.uint8))
    return model, clips


@pytest.mark.parametrize(("name", "embed"), [*((n, None) for n in FAMILIES), *(("vivit1-P/32x2", e) for e in EMBEDS)])
def test_the_parts_of_an_answer_add_up_to_it(name: str, embed: str | None) -> None:
    model, clips = make(name, embed=embed)
    model, clips = model.double(), clips.double() / 64 - 2
    relevance = explain(model, clips)
    tokens, grid = model.embed_clip(clips)
    others = {n: p.requires_grad_() for n, p in model.named_parameters() if any(part in n for part in ELSEWHERE)}
    others = {n: p for n, p in others.items() if not n.startswith("embed")}
    with LinearRules():
        logits = answer(model, tokens.detach().requires_grad_(), grid)
    assert torch.allclose(logits, model(clips), atol=1e-9)
    assert relevance.shape == (2, *grid)
    for number, logit in enumerate(logits.max(1).values):
        slopes = torch.autograd.grad(logit, list(others.values()), retain_graph=True, allow_unused=True)
        pairs = zip(others.values(), slopes, strict=True)
        rest = sum((value * slope).sum() for value, slope in pairs if slope is not None)
        assert torch.allclose(relevance[number].sum() + rest, logit, atol=1e-9)
        assert relevance[number].abs().max() > 1e-4


def test_a_clip_is_explained_by_itself_for_any_output() -> None:
    model, clips = make("vivit2-P/16x2")
    both = explain(model, clips, [1, 3])
    assert torch.allclose(both[:1], explain(model, clips[:1], 1), atol=1e-5)
    assert torch.allclose(both[1:], explain(model, clips[1:], torch.tensor([3])), atol=1e-5)
    assert not torch.allclose(both[1:], explain(model, clips[1:], 1), atol=1e-4)
    likeliest = model(clips).argmax(1)
    assert torch.equal(explain(model, clips), explain(model, clips, likeliest))


def test_nothing_of_a_model_is_changed_by_it() -> None:
    model, clips = make("vivit1-P/16x2")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        first = explain(model, clips)
    with torch.inference_mode():
        second = explain(model, clips.clone())
    assert model.training
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_of_another_precision_and_a_clip_of_another_size_will_do() -> None:
    model, clips = make("vivit3-P/16x2")
    fine = explain(model.double(), clips.double() / 64 - 2)
    assert fine.dtype == torch.float64
    assert explain(model, clips[:, :, :4, :48]).shape == (2, 2, 3, 4)


@pytest.mark.parametrize("wrong", [5, -1, [0, 1, 2], [0.5, 0.5], [[0, 1]], True])
def test_targets_that_there_are_not_are_refused(wrong: Any) -> None:
    model, clips = make("vivit1-P/16x2")
    with pytest.raises(ValueError, match=naming("target")):
        explain(model, clips, torch.tensor(wrong) if isinstance(wrong, bool) else wrong)


def test_models_that_cannot_be_explained_are_named() -> None:
    model, clips = make("vivit1-P/16x2")
    with pytest.raises(ValueError, match=naming("Sequential")):
        explain(torch.nn.Sequential(model), clips)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=naming("head")):
        explain(create_model("vivit1-P/16x2", clip=(8, 64, 64), num_classes=0), clips)


def squares(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise in which one cell of 4 x 4 has stripes, that stand or lie: clips, which they do, and where."""
    clips = torch.from_numpy(rng.normal(size=(count, 3, 1, 64, 64)).astype(np.float32))
    labels, cells = rng.integers(0, 2, count), rng.integers(0, 16, count)
    stripes = torch.tensor([2.0, 2, -2, -2]).repeat(4)
    for clip, label, cell in zip(clips, labels, cells, strict=True):
        top, left = 16 * (cell // 4), 16 * (cell % 4)
        clip[:, 0, top : top + 16, left : left + 16] += stripes[None] if label else stripes[:, None]
    return clips, torch.from_numpy(labels), torch.from_numpy(cells)


@pytest.mark.parametrize(("name", "pool"), [("vit-P/16", "cls"), ("vit-P/16", "attentive"), ("vivit2-P/16", "cls")])
def test_a_map_points_at_what_was_learned(name: str, pool: str) -> None:
    torch.manual_seed(0)
    settings = {} if name.startswith("vivit2") else {"pool": pool}
    model = create_model(name, clip=(1, 64, 64), num_classes=2, **settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rng = RANDOM(0)
    for _ in range(150):
        clips, labels, _ = squares(32, rng)
        F.cross_entropy(model(clips), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    clips, labels, cells = squares(100, rng)
    model.eval()
    assert (model(clips).argmax(1) == labels).float().mean() > 0.95
    found = explain(model, clips, labels).flatten(1).argmax(1)
    assert (found == cells).float().mean() > 0.9


# Hiding


def test_what_is_not_hidden_stays_and_nothing_hidden_changes_nothing() -> None:
    clips = torch.from_numpy(RANDOM(0).integers(0, 256, (2, 3, 8, 20, 30), dtype=np.uint8))
    hidden = torch.from_numpy(RANDOM(1).random((2, 4, 2, 3)) < 0.5)
    inside = spread(hidden, (8, 20, 30)).unsqueeze(1).expand_as(clips)
    for how in HOWS:
        without = hide(clips, hidden, how)
        assert (without.dtype, without.shape) == (clips.dtype, clips.shape)
        assert torch.equal(without[~inside], clips[~inside])
        assert not torch.equal(without[inside], clips[inside])
        assert torch.equal(hide(clips, torch.zeros_like(hidden), how), clips)
    with pytest.raises(ValueError, match=naming("black")):
        hide(clips, hidden, "black")


def test_a_hidden_place_stands_still_as_it_was_last_seen() -> None:
    seen = torch.from_numpy(RANDOM(0).random((3, 7, 2, 5)) < 0.5)
    seen[0, :, 0, 0] = False
    found = last_seen(seen)
    for b, t, h, w in np.ndindex(3, 7, 2, 5):
        places = [i for i in range(7) if seen[b, i, h, w]]
        before, after = [i for i in places if i <= t], [i for i in places if i > t]
        assert found[b, t, h, w] == (before[-1] if before else after[0] if after else 3)


def test_a_blur_takes_details_and_keeps_what_is_flat() -> None:
    flat = torch.full((1, 3, 2, 32, 48), 7.0)
    everywhere = torch.ones(1, 1, 4, 6, dtype=torch.bool)
    assert torch.allclose(hide(flat, everywhere, "blurred"), flat)
    checks = flat + torch.tensor([1.0, -1]).repeat(24)
    assert (hide(checks, everywhere, "blurred") - flat)[..., 16:-16].abs().max() < 0.1


def test_the_highest_are_as_many_as_asked_for_in_all_views_together() -> None:
    relevance = torch.from_numpy(RANDOM(0).normal(size=(3, 2, 4, 5)))
    chosen = highest(relevance, 0.25)
    assert chosen.sum() == 30
    assert relevance[chosen].min() > relevance[~chosen].max()
    assert highest(relevance, 1e-9).sum() == 1


def test_what_is_beside_a_relevant_place_counts_half_as_much() -> None:
    relevance = torch.full((1, 3, 4, 5), -2.0)
    relevance[0, 1, 2, 2] = 64
    found = smooth(relevance)[0]
    for t, h, w in np.ndindex(3, 4, 5):
        apart = [abs(t - 1), abs(h - 2), abs(w - 2)]
        assert found[t, h, w] == (64 * 0.125 * 0.5 ** sum(apart) if max(apart) < 2 else 0)
    assert torch.equal(smooth(torch.ones(2, 1, 1, 3)), torch.ones(2, 1, 1, 3))


# Files


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos") / "data", 5)


@pytest.fixture(scope="module")
def run(videos: Path) -> Path:
    return train_fn(tiny_config(videos, videos.parent / "run"), show=False)


def test_a_file_is_explained_for_the_models_answer_or_a_label(run: Path, videos: Path) -> None:
    predictor, file = Predictor.load(run), videos / "dark" / "0.mp4"
    found, said = explain_file(predictor, file), predictor.predict(file)
    assert (found.label, found.kind) == (said.label, "video")
    assert said.probability is not None
    assert abs(found.answer - said.probability) < 1e-5
    other = explain_file(predictor, file, label="bright" if said.label == "dark" else "dark")
    assert abs(other.answer - (1 - found.answer)) < 1e-5
    assert found.say(0.93) == percent(0.93) != replace(found, is_probability=False).say(0.93) == "0.93"
    assert found.relevance.shape[1:] == (1, 2, 2)
    assert found.times_seconds.shape == found.relevance.shape[:2]
    with pytest.raises(ValueError, match=naming("cat", "bright")):
        explain_file(predictor, file, label="cat")
    with pytest.raises(ValueError, match=naming("1x3")):
        explain_file(predictor, file, views="1x3")


def test_a_map_is_between_its_steps_and_its_box_is_what_is_seen(videos: Path) -> None:
    values = np.arange(2 * 3 * 1 * 2, dtype=np.float32).reshape(2, 3, 1, 2)
    given: dict[str, Any] = {
        "path": Path("a"),
        "kind": "video",
        "label": "a",
        "answer": 1.0,
        "without": 0.0,
        "is_probability": True,
    }
    given |= {"without_others": 0.0, "box": (0.0, 0.0, 1.0, 1.0), "is_probability": True}
    found = FileMap(**given, relevance=values, starts_seconds=np.array([0.0, 3.0]), span_seconds=3.0)
    assert np.allclose(found.at(0.5), values[0, 0])
    assert np.allclose(found.at(1.0), (values[0, 0] + values[0, 1]) / 2)
    assert np.allclose(found.at(0.0), values[0, 0])
    assert np.allclose(found.at(6.0), values[1, 2])
    assert np.allclose(found.at(3.5), values[1, 0])
    assert not found.at(-1.0).any()
    assert not found.at(7.0).any()
    assert np.allclose(found.times_seconds, [[0, 1, 2], [3, 4, 5]])
    # 32 x 40 px, covering 32 x 32, of which the middle is seen
    assert np.allclose(find_box(videos / "dark" / "0.mp4", (32, 32), (32, 32)), (0, 4 / 40, 1, 32 / 40))


def test_a_picture_is_tinted_where_it_matters_and_grey_elsewhere() -> None:
    picture = np.full((40, 60, 3), 120, np.uint8)
    relevance = np.zeros((4, 6), np.float32)
    relevance[1, 2], relevance[3, 5] = 1, -1
    tinted = tint(picture, relevance, (0.0, 0.0, 1.0, 1.0), 1.0).astype(int)
    assert abs(tinted[15, 25] - FOR).max() < abs(tinted[15, 25] - 120).max()
    assert tinted[35, 55, 2] > tinted[35, 55, 1]
    assert np.abs(tinted[35, 5] - 120).max() <= 1
    half = tint(picture, relevance, (0.5, 0.5, 0.5, 0.5), 1.0).astype(int)
    assert np.abs(half[:20] - 120).max() <= 1


def test_files_are_written_where_people_look(run: Path, videos: Path, tmp_path: Path, capsys: Any) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes((videos / "dark" / "1.mp4").read_bytes())
    spoil(broken)
    files = [videos / "dark" / "0.mp4", broken, videos / "bright" / "0.mp4"]
    assert command("explain", run, *files, "--out", tmp_path / "maps", "--device", "cpu", "--json") == 3
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["status"] == "ok" for line in lines] == [True, False, True]
    assert {one.name for one in (tmp_path / "maps").iterdir()} == {
        f"{name}-0.mp4{suffix}" for name in ("dark", "bright") for suffix in (".png", ".npz", ".mp4")
    }
    video = index(tmp_path / "maps" / "dark-0.mp4.mp4")
    assert (video.height, video.width, len(video.times)) == (32, 40, 8)
    with np.load(tmp_path / "maps" / "dark-0.mp4.npz") as numbers:
        assert numbers["relevance"].shape[1:] == (1, 2, 2)
        assert str(numbers["label"]) in ("dark", "bright")
    with Image.open(tmp_path / "maps" / "dark-0.mp4.png") as picture:
        assert picture.size[0] > 1000
    assert command("explain", run, files[0], "--out", tmp_path / "maps") == 0
    assert re.match(naming("dark", "points"), capsys.readouterr().out)
    assert command("explain", run, files[0], "--label", "cat", "--out", tmp_path / "other") == 2
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", ["image", "sound"])
def test_images_and_sounds_are_explained_too(kind: str, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data") if kind == "image" else write_sounds(tmp_path / "data")
    more: dict[str, Any] = {"model": "vit-P/16", "frames": None, "epochs": 1}
    run = train_fn(tiny_config(data, tmp_path / "run", **more), show=False)
    file = next(path for path in sorted(data.rglob("*.*")))
    assert command("explain", run, file, "--out", tmp_path / "maps", "--device", "cpu") == 0
    assert {one.suffix for one in (tmp_path / "maps").iterdir()} == {".png", ".npz"}


def test_names_are_their_own_where_they_differ() -> None:
    assert choose_names([Path("/a/x.mp4"), Path("/b/y.mp4")]) == ["x", "y"]
    assert choose_names([Path("/a/x.mp4"), Path("/b/x.mp4"), Path("/b/y.mp4")]) == ["a-x.mp4", "b-x.mp4", "y"]
    assert len(set(choose_names([Path("/a/x.mp4"), Path("/a/x.avi")]))) == 2


def test_the_scale_is_one_for_a_file_and_never_nothing() -> None:
    values = np.zeros((1, 1, 2, 2), np.float32)
    assert largest(values) > 0
    values[0, 0, 0, 1] = -3
    assert largest(values) == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_a_clip_is_tinted_frame_by_frame(channels: int) -> None:
    clip = torch.full((channels, 4, 10, 20), 100, dtype=torch.uint8)
    relevance = np.zeros((2, 1, 2), np.float32)
    relevance[1, 0, 1] = 2
    tinted = tint_clip(clip, relevance, least_px=(30, 40))
    assert tinted.shape == (4, 30, 60, 3)
    assert (tinted[:2] == 100).all()
    assert np.abs(tinted[3, 15, 55].astype(int) - FOR).max() < 60
    sound = tint_clip(torch.linspace(-1, 1, 200).view(1, 1, 10, 20), relevance[:1], least_px=(10, 20))
    assert sound.shape == (1, 10, 20, 3)
    assert sound[0, 0].mean() < sound[0, -1].mean()  # high tones, here the loud ones, above


def test_the_function_is_where_it_was_promised() -> None:
    model, clips = make("vivit1-P/16x2")
    assert torch.equal(tubelet.explain(model, clips), explain(model, clips))
