"""ClipDataset: the clips and labels of `tubelet train`, in anybody's loop."""

import copy
import gc
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_files import read_numbers, spoil_packets, write_numbered
from naming import naming
from small_sets import (
    FRAMES,
    HEIGHT_PX,
    SOUND,
    VIDEO,
    WIDTH_PX,
    spoil,
    tiny_config,
    write_images,
    write_sounds,
    write_videos,
)
from torch.utils.data import DataLoader

from tubelet.data import ClipDataset
from tubelet.data.augment import Augmentation
from tubelet.data.clips import views
from tubelet.data.dataset import Clips
from tubelet.data.epochs import Epochs
from tubelet.data.problems import DataProblems
from tubelet.data.torch_dataset import USUAL
from tubelet.media.reader import MediaError
from tubelet.tasks import Classification, Regression
from tubelet.train.plan import Plan, make_plan

IMAGE = replace(VIDEO, kind="image", frames=1, seconds_between_frames=0.0)
NUMBERS: dict[str, Any] = {"frames": 4, "size": 32, "seconds_between_frames": 0.08}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of each of two classes, whose labels change when a clip is mirrored or reversed."""
    folder = write_videos(tmp_path_factory.mktemp("videos"), 6, classes=("go left", "go right"))
    (folder / "go left" / "copy of 0.mp4").write_bytes((folder / "go left" / "0.mp4").read_bytes())
    return folder


def write_table(folder: Path, header: str, cells: Callable[[int], str]) -> Path:
    """FOLDER/clips.csv: a row of each video below it, by its number."""
    rows = [f"{path.relative_to(folder).as_posix()},{cells(i)}" for i, path in enumerate(sorted(folder.rglob("*.mp4")))]
    (folder / "clips.csv").write_text("\n".join([f"path,{header}", *rows]) + "\n")
    return folder / "clips.csv"


TABLES: dict[str, tuple[str, Callable[[int], str]]] = {
    "classification": ("label,group", lambda i: f"{'ab'[i % 2]},{i % 5}"),
    "multilabel": ("label,split", lambda i: f"{('a', 'a;b left', 'b left', 'b right')[i % 4]},{'val' * (i > 8)}"),
    "regression": ("label,start", lambda i: f"{i * i},{0.1 * (i % 2)}"),
}


def make_data(kind: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A small data set, and what is told of it to `tubelet train` and to ClipDataset alike."""
    if kind in TABLES:
        return write_table(write_videos(folder, 6), *TABLES[kind]), {"task": kind}
    make = {"videos": write_videos, "images": write_images, "sounds": write_sounds}[kind]
    return make(folder, 6), {}


def plan_of(data: Path, **settings: Any) -> Plan:
    return make_plan(tiny_config(data, data.parent / "run", **settings), torch.device("cpu"))


def drawn(plan: Plan, position: int) -> tuple[int, int, torch.Tensor, torch.Tensor]:
    """Number, epoch, clip and target that `tubelet train` has at a position."""
    task, source = plan.data.source.task, plan.data.source
    clips = Clips(source.root, plan.data.items("train"), task, plan.spec, keep=True)
    epochs = Epochs(clips, plan.changes, seed=plan.config.seed)
    clips, labels = epochs.draw_batch(position, 1)
    return *epochs.find(position), clips[0], task.targets(labels)[0]


# ---- what tubelet train has


@pytest.mark.parametrize("kind", ["videos", "images", "sounds", *TABLES])
def test_clips_labels_task_and_splits_are_those_of_a_training(tmp_path: Path, kind: str) -> None:
    data, told = make_data(kind, tmp_path / "data")
    settings = {"images": {"model": "vit-P/16"}, "sounds": {"model": "vit-P/16", "size": (16, 32)}}.get(kind, {})
    plan = plan_of(data, seed=3, val_share=0.3, **settings, **told)
    train, val = (
        ClipDataset(data, split=split, spec=plan.spec, seed=3, val_share=0.3, **told) for split in ("train", "val")
    )
    assert [train.items, val.items] == [plan.data.items("train"), plan.data.items("val")]
    assert train.task == val.task == plan.data.source.task
    assert train.classes == list(plan.data.source.task.names)
    for position in range(2 * len(train)):
        number, epoch, clip, target = drawn(plan, position)
        train.set_epoch(epoch)
        found, label = train[number]
        assert torch.equal(found, clip)
        assert torch.equal(torch.as_tensor(label), target)
    for number, item in enumerate(val.items):
        where = {"start_seconds": item.start_seconds, "end_seconds": item.end_seconds}
        clip, label = val[number]
        assert torch.equal(clip, views(val.root / item.path, plan.spec, **where)[0])
        assert torch.equal(torch.as_tensor(label), val.task.targets([item.label])[0])


def test_labels_follow_mirrored_and_reversed_clips_as_in_a_training(folder: Path) -> None:
    plan, train = plan_of(folder), ClipDataset(folder, spec=VIDEO)
    plan = replace(plan, spec=VIDEO)
    changed = 0
    for position in range(2 * len(train)):
        number, epoch, clip, target = drawn(plan, position)
        train.set_epoch(epoch)
        found, label = train[number]
        assert (torch.equal(found, clip), label) == (True, int(target))
        changed += train.classes[label] != train.items[number].label
    assert 0 < changed < 2 * len(train)


def test_copies_are_never_on_both_sides(folder: Path) -> None:
    for seed in range(8):
        val = ClipDataset(folder, split="val", **NUMBERS, seed=seed)
        names = {item.name for item in val.items}
        assert ("go left/0.mp4" in names) == ("go left/copy of 0.mp4" in names)


def test_what_a_training_leaves_out_is_left_out_where_asked(tmp_path: Path) -> None:
    folder = write_videos(tmp_path / "data", 10)
    train, val = (ClipDataset(folder, split=split, **NUMBERS) for split in ("train", "val"))
    lost = [data.root / data.items[1].path for data in (train, val)]
    lost[0].write_bytes((write_images(tmp_path / "images", 1) / "dark" / "0.png").read_bytes())
    spoil(lost[1])
    plan = plan_of(folder, max_bad="20%")
    found = [ClipDataset(folder, split=split, **NUMBERS, skip_bad=True) for split in ("train", "val")]
    assert found[0].items == plan.data.items("train")
    assert {one for data in found for one in data.bad} == {*plan.data.bad}
    assert [len(data) for data in found] == [len(train) - 1, len(val) - 1]
    for data in found:
        assert len([*data]) == len(data)


def test_rows_after_the_end_of_their_file_are_left_out_where_asked(tmp_path: Path) -> None:
    table = write_table(write_videos(tmp_path, 4), "label,start", lambda i: f"{'ab'[i % 2]},{9 * (i == 3)}")
    data = ClipDataset(table, split=None, **NUMBERS, skip_bad=True)
    assert len(data) == 7
    assert [(one.path.partition("#")[2], one.code) for one in data.bad] == [("t=9", "no-frames")]
    with pytest.raises(MediaError, match=naming("3.mp4")):
        ClipDataset(table, split=None, **NUMBERS)[3]


# ---- draws


def test_a_clip_hangs_on_seed_epoch_and_number_alone(folder: Path) -> None:
    data, other = (ClipDataset(folder, **NUMBERS, val_share=0.01, seed=seed) for seed in (0, 1))
    first = [clip for clip, _ in data]
    data.set_epoch(1)
    second = [clip for clip, _ in data]
    data.set_epoch(0)
    again = [data[number][0] for number in reversed(range(len(data)))][::-1]
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, second))
    assert not any(map(torch.equal, first, [clip for clip, _ in other]))


def test_train_says_whether_clips_are_random(folder: Path) -> None:
    still, moving = ClipDataset(folder, train=False, **NUMBERS), ClipDataset(folder, split="val", train=True, **NUMBERS)
    for data, random in ((still, False), (moving, True)):
        clip, label = data[0]
        data.set_epoch(1)
        assert torch.equal(data[0][0], clip) != random
        assert (clip.dtype, clip.shape, type(label)) == (torch.uint8, (3, 4, 32, 32), int)


def test_without_augmentation_clips_are_random_and_as_they_are(folder: Path) -> None:
    data = ClipDataset(folder, **{**NUMBERS, "size": (32, 40)}, augmentation=None)
    data.spec = replace(data.spec, resize=(32, 40))
    frames = views(data.root / data.items[0].path, replace(data.spec, frames=FRAMES, seconds_between_frames=0.04))[0]
    whole = {frame.numpy().tobytes() for frame in frames.unbind(1)}
    seen = set()
    for epoch in range(8):
        data.set_epoch(epoch)
        clip, label = data[0]
        shown = [frame.numpy().tobytes() for frame in clip.unbind(1)]
        assert {*shown} <= whole
        assert data.classes[label] == data.items[0].label
        seen.add(tuple(shown))
    assert len(seen) > 1


def test_no_change_is_made_that_the_user_leaves_out(folder: Path) -> None:
    data = ClipDataset(folder, **NUMBERS, augmentation=replace(USUAL, flip=False, reverse=False))
    for epoch in range(3):
        data.set_epoch(epoch)
        assert [data.classes[label] for _, label in data] == [item.label for item in data.items]


def test_swaps_of_labels_are_read_from_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "swaps.csv").write_text("label,reversed\ngo left,\ngo right,\n")
    data = ClipDataset(folder, **NUMBERS, label_swaps=tmp_path / "swaps.csv")
    assert (data.changes.flipped, data.changes.reversed) == (None, {name: name for name in data.classes})


def test_a_transform_comes_last(folder: Path) -> None:
    for split in ("train", "val"):
        plain = ClipDataset(folder, split=split, **NUMBERS)
        floats = ClipDataset(folder, split=split, **NUMBERS, transform=lambda clip: clip / 255)
        assert torch.equal(floats[0][0], plain[0][0] / 255)


# ---- torch's DataLoader


def load(data: ClipDataset, **settings: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of two epochs."""
    loader, batches = DataLoader(data, batch_size=4, **settings), []
    for epoch in range(2):
        data.set_epoch(epoch)
        batches += [*loader]
    return batches


@pytest.mark.filterwarnings("ignore:.*fork")  # of a process with threads, as pytest has them
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_the_same_clips_and_hear_of_the_epoch(folder: Path, start: str) -> None:
    data = ClipDataset(folder, **NUMBERS)
    expected = load(data)
    assert [tuple(one.dtype for one in pair) for pair in expected] == [(torch.uint8, torch.int64)] * len(expected)
    workers = 2 if start == "fork" else 1
    found = load(data, num_workers=workers, persistent_workers=True, multiprocessing_context=start)
    for (clips, labels), (same_clips, same_labels) in zip(expected, found, strict=True):
        assert torch.equal(clips, same_clips)
        assert torch.equal(labels, same_labels)


def test_copies_and_pickles_are_whole_and_their_workers_hear_of_the_epoch(folder: Path) -> None:
    data = ClipDataset(folder, **NUMBERS)
    data.set_epoch(2)
    clip, label = data[0]
    for other in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert torch.equal(other[0][0], clip)
        assert other[0][1] == label
        assert other.epoch.is_shared()
        other.set_epoch(3)
        assert int(data.epoch) == 2


@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_file_that_cannot_be_read_is_named_and_no_other_taken(
    tmp_path: Path, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_videos(tmp_path, 5)
    data = ClipDataset(folder, split=split, **NUMBERS)
    bad = data.root / data.items[0].path
    spoil(bad)
    for _ in range(2):
        with pytest.raises(MediaError, match=naming(bad)) as error:
            data[0]
        assert (error.value.code, error.value.path) == ("not-video", str(bad))
    data[1]
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # torch waits so long for a worker
    with pytest.raises(ValueError, match=naming(bad)):
        [*DataLoader(data, num_workers=1, multiprocessing_context="fork")]
    gc.collect()


def test_what_is_left_of_a_damaged_file_is_learned_from_as_in_a_training(tmp_path: Path) -> None:
    folder = write_videos(tmp_path, 3)
    path = write_numbered(
        folder / "dark" / "0.mp4", 50, height=HEIGHT_PX, width=WIDTH_PX, codec="mjpeg", codec_options={}
    )
    spoil_packets(path, range(30, 50))
    data = ClipDataset(folder, split=None, train=True, **NUMBERS)
    number = [item.path for item in data.items].index("dark/0.mp4")
    clips = Clips(data.root, data.items, data.task, data.spec, keep=False)
    for epoch in range(6):
        data.set_epoch(epoch)
        found = clips.random(number, data.changes, np.random.default_rng([0, epoch, number]))
        assert found is not None
        assert torch.equal(data[number][0], found[0])


def test_clips_are_chosen_by_time_whatever_the_rate_of_frames(tmp_path: Path) -> None:
    for label, rate in (("slow", 10), ("fast", 20)):
        (tmp_path / label).mkdir()
        write_numbered(tmp_path / label / "0.mp4", 3 * rate, frames_per_second=rate)
    data = ClipDataset(tmp_path, split=None, frames=4, size=(48, 80), seconds_between_frames=0.3)
    data.spec = replace(data.spec, resize=data.spec.crop)
    fast, slow = (read_numbers(clip.permute(1, 2, 3, 0).numpy()) for clip, _ in data)
    assert np.diff(slow).tolist() == [3, 3, 3]
    assert np.abs(np.array(fast) - 2 * np.array(slow)).max() <= 1


def test_groups_are_never_on_both_sides(tmp_path: Path) -> None:
    table = write_table(write_videos(tmp_path, 8), "label,group", lambda i: f"{'ab'[i % 2]},{i // 4}")
    for seed in range(6):
        train, val = (
            {item.group for item in ClipDataset(table, split=one, seed=seed, **NUMBERS).items}
            for one in ("train", "val")
        )
        assert (len(train) + len(val), train & val) == (4, set())


# ---- labels


def test_several_classes_are_ones_and_zeros(tmp_path: Path) -> None:
    table = write_table(write_videos(tmp_path, 4), "label", lambda i: ("x", "x;y", "(none)", "y")[i % 4])
    data = ClipDataset(table, split=None, task="multilabel", **NUMBERS)
    assert data.classes == ["x", "y"]
    assert [label.tolist() for _, label in data][:4] == [[1, 0], [1, 1], [0, 0], [0, 1]]
    assert next(iter(DataLoader(data, batch_size=4)))[1].dtype == torch.float32


def test_numbers_are_as_the_table_has_them(tmp_path: Path) -> None:
    table = write_table(write_videos(tmp_path, 4), "speed,angle", lambda i: f"{i / 2},{'' if i == 1 else 30}")
    with pytest.raises(ValueError, match=naming("angle")):  # the same in all
        ClipDataset(table, split=None, task="regression", labels=("speed", "angle"), **NUMBERS)
    data = ClipDataset(table, split=None, task="regression", labels="speed", **NUMBERS)
    assert [label.tolist() for _, label in data][:3] == [[0.0], [0.5], [1.0]]
    model = Regression(("angle", "speed"), (1.0, 2.0), (3.0, 4.0))
    labels = [label for _, label in ClipDataset(table, split=None, task=model, **NUMBERS)]
    assert labels[0].tolist() == [30.0, 0.0]
    assert labels[1].isnan().tolist() == [True, False]


@pytest.mark.parametrize("kind", TABLES)
def test_the_loss_of_its_task_takes_a_batch_as_it_comes(tmp_path: Path, kind: str) -> None:
    data = ClipDataset(write_table(write_videos(tmp_path, 6), *TABLES[kind]), task=kind, **NUMBERS)
    _, labels = next(iter(DataLoader(data, batch_size=4)))
    labels[-1:] = torch.nan if labels.is_floating_point() else labels[-1:]  # nobody knows
    loss = data.task.loss(torch.zeros(len(labels), len(data.classes)), data.task.soften(labels, 0.0))
    assert loss.isfinite()


def test_the_labels_of_a_models_task_are_numbers_of_its_classes(folder: Path) -> None:
    task = Classification(("stay", "go right", "go left"))
    data = ClipDataset(folder, split=None, task=task, **NUMBERS)
    assert data.classes == ["stay", "go right", "go left"]
    assert [label for _, label in data] == [2] * 7 + [1] * 6


# ---- specs


def test_numbers_make_a_spec(folder: Path, tmp_path: Path) -> None:
    spec = ClipDataset(folder, frames=4, size=(30, 40), seconds_between_frames=0.2).spec
    assert (spec.frames, spec.crop, spec.resize, spec.seconds_between_frames) == (4, (30, 40), (33, 44), 0.2)
    images = ClipDataset(write_images(tmp_path), size=16)
    assert images.spec.kind == "image"
    assert images[0][0].shape == (3, 1, 16, 16)
    with pytest.raises(ValueError, match=naming("frames=4", "'image'")):
        ClipDataset(tmp_path, size=16, frames=4)


def test_sounds_are_floats_and_may_come_from_a_spec_alone(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path)
    clip, _ = ClipDataset(folder, spec=SOUND)[0]
    assert (clip.dtype, clip.shape) == (torch.float32, (1, 1, 16, 32))
    with pytest.raises(ValueError, match=naming("'sound'", "spec")):
        ClipDataset(folder, **NUMBERS)
    with pytest.raises(ValueError, match=naming("label_swaps='swaps.csv'")):
        ClipDataset(folder, spec=SOUND, label_swaps="swaps.csv")


def test_the_sound_of_videos_is_read_by_a_spec_of_sound(tmp_path: Path) -> None:
    for label, hertz in (("high", 2000.0), ("low", 300.0)):
        (tmp_path / label).mkdir()
        write_numbered(tmp_path / label / "0.mp4", sound_hz=hertz)
    high, low = (clip[0, 0].mean(1) for clip, _ in ClipDataset(tmp_path, split=None, spec=SOUND, skip_bad=True))
    assert high.argmax() > low.argmax()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"frames": 4, "size": 32}, ("frames=4", "size=32", "seconds_between_frames=None", "spec")),
        ({"spec": VIDEO, "size": 32}, ("size=32", "spec")),
        ({"spec": IMAGE}, ("'image'", "'video'")),
        ({**NUMBERS, "split": "test"}, ("'test'", "train, val")),
        ({**NUMBERS, "split": "training"}, ("'training'", "train, val")),
        ({**NUMBERS, "task": "segments"}, ("'segments'", "multilabel")),
        ({**NUMBERS, "labels": ("a", "b")}, ("a", "b")),
        ({**NUMBERS, "task": Classification(("go left", "stay"))}, ("'go right'", "'stay'")),
        ({**NUMBERS, "augmentation": None, "label_swaps": "swaps.csv"}, ("label_swaps='swaps.csv'",)),
        ({**NUMBERS, "val_share": 1.5}, ("val_share=1.5",)),
        ({**NUMBERS, "frames": 0}, ("frames=0",)),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(folder: Path, settings: dict[str, Any], named: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=naming(*named)):
        ClipDataset(folder, **settings)


def test_a_models_task_wants_as_many_columns(tmp_path: Path) -> None:
    table, task = write_table(write_videos(tmp_path, 2), "speed", lambda i: f"{i}"), Regression(("a", "b"), (0.0,) * 2)
    with pytest.raises(ValueError, match=naming("speed", "'a', 'b'")):
        ClipDataset(table, split=None, task=task, labels="speed", **NUMBERS)


def test_nothing_that_can_be_read_is_refused(tmp_path: Path) -> None:
    folder = write_videos(tmp_path, 2)
    for path in folder.rglob("*.mp4"):
        spoil(path)
        path.write_bytes(path.read_bytes() + str(path).encode())
    with pytest.raises(ValueError, match=naming("'val'", 2)):
        ClipDataset(folder, split="val", **NUMBERS, skip_bad=True)


def test_faults_of_the_data_come_all_at_once(tmp_path: Path) -> None:
    table = write_table(write_videos(tmp_path, 2), "label,split", lambda i: ",train" if i % 2 else "a,somewhere")
    with pytest.raises(DataProblems) as error:
        ClipDataset(table, **NUMBERS)
    assert {problem.kind for problem in error.value.problems} >= {"split"}
    with pytest.raises(DataProblems, match=naming(tmp_path / "none")):
        ClipDataset(tmp_path / "none", **NUMBERS)
    with pytest.raises(DataProblems) as error:
        ClipDataset(write_videos(tmp_path / "alone", 3, classes=("one",)), **NUMBERS)
    assert {problem.kind for problem in error.value.problems} == {"few-classes"}


def test_numbers_are_those_of_a_sequence(folder: Path) -> None:
    data = ClipDataset(folder, **NUMBERS)
    assert torch.equal(data[-1][0], data[len(data) - 1][0])
    assert torch.equal(data[np.int64(0)][0], data[torch.tensor(0)][0])
    with pytest.raises(IndexError):
        data[len(data)]


def test_what_is_varied_is_what_augmentation_says(folder: Path) -> None:
    still = Augmentation(scale=(1, 1), aspect=(1, 1), flip=False, colour=0)
    data = ClipDataset(folder, **NUMBERS, augmentation=still)
    plain = ClipDataset(folder, **NUMBERS, train=False)
    assert data[0][0].float().mean() == pytest.approx(plain[0][0].float().mean(), abs=15)


def test_the_room_comes_without_torch() -> None:
    code = "import sys, tubelet.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
