"""Pre-training on clips without labels: what is hidden is not seen, what is tested on is kept out, all bit for bit."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupted import go_on_to_the_end
from naming import naming
from small_sets import LEVELS, spoil, write_images, write_sounds, write_videos

from tubelet.data.items import find_items
from tubelet.data.splits import assign_splits
from tubelet.data.table import write_table
from tubelet.nn import create_model
from tubelet.nn.grid import Grid
from tubelet.pretrain import own_clips, pretrain
from tubelet.pretrain.config import PretrainConfig
from tubelet.pretrain.masked import (
    HIDDEN_SHARE,
    Masked,
    MaskedHead,
    cut,
    draw_hidden,
    find_changes,
    know_nothing,
    measure,
    stand_out,
)
from tubelet.pretrain.own_clips import find_clips
from tubelet.pretrain.pretrain import Learner
from tubelet.runs.run import MODEL
from tubelet.tasks import Classification
from tubelet.train import TrainConfig
from tubelet.train.init import CONTENTS
from tubelet.train.plan import Plan, make_plan
from tubelet.weights.store import PRETRAINING, load, read_about

PATCH = (4, 12, 8)
CLIP = (8, 36, 32)
RANDOM = np.random.default_rng
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_clips, "CLIPS", 4)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos") / "data", 5)


def settings(folder: Path, *data: Path, **more: Any) -> PretrainConfig:
    given: dict[str, Any] = {"model": "vivit1-P/16x4", "frames": 4, "size": (32, 32), "steps": 6, "workers": 1}
    return PretrainConfig(data=data, out=folder / "start", device="cpu", **given | more)


def masked(count: int = 3) -> Masked:
    clips = torch.from_numpy(RANDOM(0).normal(size=(count, 3, *CLIP)).astype(np.float32))
    return Masked(clips, draw_hidden(count, Grid(2, 3, 4), RANDOM(1)))


def names(data: Any) -> set[str]:
    return {item.path for item in data.data.source.items}


# What is hidden


@pytest.mark.parametrize("grid", [Grid(4, 5, 7), Grid(1, 2, 1), Grid(2, 1, 3)])
def test_as_many_places_are_hidden_in_each_clip_and_the_same_at_all_times(grid: Grid) -> None:
    hidden = draw_hidden(50, grid, RANDOM(0))
    assert hidden.shape == (50, *grid)
    assert hidden.dtype == torch.bool
    assert (hidden == hidden[:, :1]).all()
    many = hidden[:, 0].flatten(1).sum(1)
    places = grid.h * grid.w
    assert (many == min(max(1, round(HIDDEN_SHARE * places)), places - 1)).all()
    assert hidden.float().mean(0).min() > 0.2  # each place in some
    assert hidden.float().mean(0).max() < 0.98


def test_a_tubelet_has_its_own_pixels() -> None:
    clips = masked().clips
    found = cut(clips, PATCH)
    for t, h, w in np.ndindex(2, 3, 4):
        part = clips[:, :, 4 * t : 4 * t + 4, 12 * h : 12 * h + 12, 8 * w : 8 * w + 8]
        assert torch.equal(found[:, t, h, w], part.flatten(1))


def test_pixels_stand_out_from_the_mean_of_their_tubelet() -> None:
    values = torch.from_numpy(RANDOM(0).normal(3, 2, (5, 400)).astype(np.float32))
    assert torch.allclose(stand_out(values), stand_out(7 * values - 1), atol=1e-2)
    assert stand_out(values).mean(-1).abs().max() < 1e-5
    assert (stand_out(values).std(-1) - 1).abs().max() < 1e-2
    assert not stand_out(torch.full((2, 9), 5.0)).any()


def test_a_still_clip_does_not_change_and_a_ramp_changes_alike() -> None:
    still = torch.ones(2, 3, 6, 4, 4)
    assert not find_changes(still).any()
    ramp = find_changes(still * torch.arange(6.0).view(1, 1, 6, 1, 1))
    assert not ramp[:, :, 0].any()
    assert torch.allclose(ramp[:, :, 1:], ramp[:, :, 1:2].expand(-1, -1, 5, -1, -1))


def test_right_answers_lose_nothing_and_those_for_what_is_seen_do_not_count() -> None:
    batch = masked()
    right = torch.stack([stand_out(cut(batch.clips, PATCH)), cut(find_changes(batch.clips), PATCH)], 4)
    assert all(loss == 0 for loss in measure(batch, right, patch=PATCH).values())
    elsewhere = torch.where(batch.hidden[..., None, None], right, right + 5)
    assert all(loss == 0 for loss in measure(batch, elsewhere, patch=PATCH).values())
    still = measure(batch, know_nothing(batch, patch=PATCH), patch=PATCH)
    truth = right[batch.hidden].square().mean((0, 2))
    assert torch.allclose(torch.stack([still["pixels"], still["changes"]]), truth)


@pytest.mark.parametrize("embed", ["tubelet", "conv", "depthwise", "similarity"])
def test_what_is_hidden_is_not_seen(embed: str) -> None:
    torch.manual_seed(0)
    model = create_model("vidtrans-P/12x4", clip=(8, 36, 24), num_classes=1, embed=embed).eval()
    head = MaskedHead(model)
    clips = torch.from_numpy(RANDOM(0).normal(size=(2, 3, 8, 36, 24)).astype(np.float32))
    hidden = draw_hidden(2, model.grid((8, 36, 24)), RANDOM(0))
    pixels = hidden.repeat_interleave(4, 1).repeat_interleave(12, 2).repeat_interleave(12, 3).unsqueeze(1)
    other = torch.where(pixels, torch.rand_like(clips), clips)
    seen = torch.where(pixels, clips, torch.rand_like(clips))
    with torch.no_grad():
        first, same, changed = (head(model, Masked(one, hidden)) for one in (clips, other, seen))
    assert first.shape == (2, 2, 3, 2, 2, 3 * 4 * 12 * 12)
    assert torch.equal(first, same)
    assert not torch.allclose(first, changed, atol=1e-3)


@pytest.mark.parametrize("name", ["vivit2-P/12x4", "swin2-P/12x4", "ast-P/16"])
def test_models_whose_tokens_cannot_be_asked_are_named(name: str) -> None:
    image = name.startswith("ast")
    model = create_model(name, clip=(1, 48, 48) if image else (8, 96, 96), num_classes=1, channels=3)
    with pytest.raises(ValueError, match=naming(name.split("-")[0])):
        MaskedHead(model)


def test_a_model_learns_what_was_hidden() -> None:
    torch.manual_seed(0)
    model = create_model("vivit1-P/12x4", clip=(8, 36, 24), num_classes=1)
    rows = torch.linspace(-1, 1, 36).view(1, 1, 1, 36, 1) * torch.ones(4, 3, 8, 36, 24)
    batch = Masked(rows * torch.tensor([1.0, -1, 2, -2]).view(4, 1, 1, 1, 1), draw_hidden(4, Grid(2, 3, 2), RANDOM(0)))

    class One(own_clips.OwnClips):
        def __init__(self) -> None:
            self.head, self.patch, self.explained = MaskedHead(model), (4, 12, 12), ("pixels",)

    learner = Learner(PretrainConfig(data=(Path(),), steps=80, lr=3e-3), model, One(), CPU)
    figures = [learner.take_step(batch)["pixels"] for _ in range(80)]
    assert np.mean(figures[-5:]) < 0.3 * np.mean(figures[:5])


# Which clips


def test_what_a_training_holds_out_is_kept_out_under_any_name(videos: Path, tmp_path: Path) -> None:
    others = write_videos(tmp_path / "others" / "deep", 4, classes=["noise"])
    held = {item.path for item in assign_splits(find_items(videos)).items if item.split == "val"}
    for number, path in enumerate(sorted(held)):
        shutil.copy(videos / path, others / f"copy-{number}.mp4")
    kept = sorted({str(one.relative_to(videos)) for one in videos.rglob("*.mp4")} - held)
    shutil.copy(videos / kept[0], others / "again.mp4")
    found = find_clips(settings(tmp_path, videos, tmp_path / "others"), show=False)
    ours = {path for path in names(found) if (found.data.source.root / path).is_relative_to(videos)}
    noise = {path for path in names(found) if "noise" in path}
    assert len(held) == 2
    assert found.kept_out == 2 * len(held)
    assert len(noise) == 4
    assert len(names(found)) == len(kept) + 4  # what is there twice, once
    assert {Path(path).name for path in ours} <= {Path(path).name for path in kept}
    assert not any("copy" in path for path in names(found))


def test_a_split_of_the_data_and_the_seed_decide_what_is_kept_out(videos: Path, tmp_path: Path) -> None:
    for seed in (0, 5):
        held = {item.path for item in assign_splits(find_items(videos), seed=seed).items if item.split == "val"}
        assert not held & names(find_clips(settings(tmp_path, videos, seed=seed), show=False))
    items = [item.__class__(str(videos / item.path), item.label) for item in find_items(videos).items]
    splits = ["test", "train", "val", *["train"] * 7]
    items = [item.__class__(item.path, item.label, split=split) for item, split in zip(items, splits, strict=True)]
    write_table(tmp_path / "table.csv", items)
    found = find_clips(settings(tmp_path, tmp_path / "table.csv"), show=False)
    assert found.kept_out == 2
    assert len(names(found)) == 8


def test_files_without_labels_are_all_learned_from(videos: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, one in enumerate(sorted(videos.rglob("*.mp4"))):
        shutil.copy(one, flat / f"{number}.mp4")
    found = find_clips(settings(tmp_path, flat), show=False)
    assert (len(names(found)), found.kept_out) == (10, 0)
    table = tmp_path / "paths.csv"
    table.write_text("path\n" + "".join(f"flat/{number}.mp4\n" for number in range(3)))
    assert len(names(find_clips(settings(tmp_path, table), show=False))) == 3


def test_folders_that_are_no_data_set_are_all_learned_from_and_said(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "days", 2, classes=["monday"])
    found = find_clips(settings(tmp_path, data), show=False)
    assert len(names(found)) == 2
    assert any(str(data) in note for note in found.data.notes)


def test_files_that_cannot_be_read_are_left_out_and_said(videos: Path, tmp_path: Path) -> None:
    data = shutil.copytree(videos, tmp_path / "data")
    bad = data / "dark" / "3.mp4"
    spoil(bad)
    (data / "flat.csv").write_text("path\n" + "".join(f"{one}\n" for one in sorted(data.rglob("*.mp4"))))
    found = find_clips(settings(tmp_path, data / "flat.csv"), show=False)
    assert len(names(found)) == 9
    assert any("dark/3.mp4" in note for note in found.data.notes)


def test_clips_that_cannot_work_are_refused(videos: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    with pytest.raises(ValueError, match=naming(10, 4)):
        find_clips(settings(tmp_path, videos, tmp_path / "images"), show=False)
    (tmp_path / "strange.csv").write_text(f"path\n{videos}/dark/0.mp4\nnotes.docx\n")
    with pytest.raises(ValueError, match=naming("notes.docx")):
        find_clips(settings(tmp_path, tmp_path / "strange.csv"), show=False)
    with pytest.raises(ValueError, match=naming(tmp_path / "nowhere")):
        find_clips(settings(tmp_path, tmp_path / "nowhere"), show=False)
    (tmp_path / "table.csv").write_text("path,label,split\nmissing.mp4,a,train\n")
    with pytest.raises(ValueError, match=naming("missing.mp4")):
        find_clips(settings(tmp_path, tmp_path / "table.csv"), show=False)
    one = tmp_path / "one.mp4"
    shutil.copy(videos / "dark" / "0.mp4", one)
    with pytest.raises(ValueError, match=naming(tmp_path, 1)):
        pretrain.pretrain(settings(tmp_path, one), show=False)
    assert not (tmp_path / "start").exists()


@pytest.mark.parametrize(
    "given", [{"init": "none"}, {"frames": 8}, {"size": (32, 32)}, {"seconds_between_frames": 0.1}]
)
def test_settings_of_clips_are_refused_without_any(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=naming(*given)):
        PretrainConfig(**given)


# All in all


def test_it_goes_on_bit_for_bit(videos: Path, tmp_path: Path) -> None:
    whole = pretrain.pretrain(settings(tmp_path / "whole", videos), show=False)
    again = go_on_to_the_end(settings(tmp_path / "cut", videos, save_minutes=1e-9, workers=2), stops=(4,))
    assert (again.path / MODEL).read_bytes() == (whole.path / MODEL).read_bytes()
    about = read_about(again.path)[PRETRAINING]
    assert (about["kind"], about["files"], about["kept_out"], len(about[CONTENTS])) == ("video", 8, 2, 8)
    assert set(about["explained"]) == {"pixels", "changes"}


def test_a_folder_that_was_begun_with_other_clips_is_left_alone(videos: Path, tmp_path: Path) -> None:
    data = shutil.copytree(videos, tmp_path / "data")
    pretrain.pretrain(settings(tmp_path, data, steps=1), show=False)
    before = (tmp_path / "start" / MODEL).read_bytes()
    write_videos(data, 1, first=9)
    with pytest.raises(ValueError, match=naming(tmp_path / "start", "files")):
        pretrain.pretrain(settings(tmp_path, data, steps=1), show=False)
    assert (tmp_path / "start" / MODEL).read_bytes() == before


@pytest.mark.parametrize("kind", ["image", "sound"])
def test_images_and_sounds_are_learned_from_too_and_a_training_starts_from_them(kind: str, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data") if kind == "image" else write_sounds(tmp_path / "data")
    more: dict[str, Any] = {"model": "vit-P/8", "frames": None, "steps": 2}
    run = pretrain.pretrain(settings(tmp_path, data, **more), show=False)
    about = read_about(run.path)[PRETRAINING]
    assert (about["kind"], set(about["explained"])) == (kind, {"pixels"})
    plan = plan_of(data, run.path)
    assert plan.start is not None
    torch.manual_seed(1)
    fresh = plan.model
    model = create_model(
        plan.model_name, clip=plan.spec.clip_size, num_classes=2, channels=fresh.channels, embed="conv"
    )
    plan.start.fill(model)
    theirs = load(run.path).state_dict()
    assert torch.equal(
        model.state_dict()["encoders.0.blocks.0.mlp.fc1.weight"], theirs["encoders.0.blocks.0.mlp.fc1.weight"]
    )


def plan_of(data: Path, init: Path, **more: Any) -> Plan:
    return make_plan(TrainConfig(data=data, init=str(init), device="cpu", epochs=1, workers=1, **more), CPU)


def test_a_training_says_where_its_test_was_seen(videos: Path, tmp_path: Path) -> None:
    run = pretrain.pretrain(settings(tmp_path, videos, steps=1), show=False)
    right, other = plan_of(videos, run.path), plan_of(videos, run.path, seed=3)
    assert not any("has seen" in note for note in right.notes)
    held = {item.path for item in other.data.items("val")} - {item.path for item in right.data.items("val")}
    assert held
    (said,) = (note for note in other.notes if "has seen" in note)
    assert all(path in said for path in held)
    assert right.lr == plan_of(videos, "none").lr  # type: ignore[arg-type]
    assert right.changes.augmentation is not None
    assert right.changes.augmentation.tilt_degrees == 0  # it knows no worlds


def test_it_begins_where_another_ended(videos: Path, tmp_path: Path) -> None:
    first = pretrain.pretrain(settings(tmp_path / "one", videos, steps=1), show=False)
    more = write_videos(tmp_path / "more", 3, classes=list(LEVELS), first=20)
    (tmp_path / "all.csv").write_text("path\n" + "".join(f"{one}\n" for one in more.rglob("*.mp4")))
    config = settings(tmp_path / "two", tmp_path / "all.csv", init=str(first.path), model=None, steps=1, lr=1e-9)
    second = pretrain.pretrain(config, show=False)
    before, after = load(first.path).state_dict(), load(second.path).state_dict()
    for name, value in after.items():
        if not name.startswith("head.") and ".tables." not in name:
            assert torch.allclose(value, before[name], atol=1e-3)
    assert len(read_about(second.path)[PRETRAINING][CONTENTS]) == 8 + 6


def test_a_batch_is_the_same_whoever_asks_for_it(videos: Path, tmp_path: Path) -> None:
    config = settings(tmp_path, videos)
    _, lesson, _ = own_clips.prepare(config, CPU, show=False)
    _, other, _ = own_clips.prepare(config, CPU, show=False)
    all_steps, last = list(lesson.batches(0, 5)), list(other.batches(3, 5))
    assert [len(one.clips) for one in all_steps] == [4] * 5
    for one, again in zip(all_steps[3:], last, strict=True):
        assert torch.equal(one.clips, again.clips)
        assert torch.equal(one.hidden, again.hidden)
    assert not torch.equal(all_steps[0].hidden, all_steps[1].hidden)
    assert lesson.clips.task == Classification(("clip",))
    assert not {one.path for one in lesson.items} & {one.path for one in lesson.looked_at}
