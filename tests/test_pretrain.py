"""Pre-training: what is asked is true however a world is varied; it goes on bit for bit; training starts from it."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asked import Asked
from interrupted import go_on_to_the_end
from naming import naming
from PIL import Image
from small_sets import write_videos

from tubelet.data.segments import Recordings
from tubelet.nn import create_model
from tubelet.pretrain import crates, pretrain, worlds
from tubelet.pretrain.config import PretrainConfig
from tubelet.pretrain.crates import BODY, Crate, make_crate, pool
from tubelet.pretrain.motion import MotionHead, know_nothing, measure
from tubelet.pretrain.pretrain import Learner
from tubelet.pretrain.worlds import AGAIN, APART, Worlds, choose_crate, find_first
from tubelet.runs.run import CARD, CHECKPOINTS, MODEL
from tubelet.synthetic.textures import draw_texture
from tubelet.train import TrainConfig, init, plan
from tubelet.train.segments import choose_frames
from tubelet.weights.store import PRETRAINING, load, read_about, save

PATCH = (8, 12, 12)
RANDOM = np.random.default_rng


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (crates, worlds):
        monkeypatch.setattr(room, "WORLDS", 3)
        monkeypatch.setattr(room, "SURFACES", 2)
        monkeypatch.setattr(room, "GRIDS", ((2, 2), (2, 3), (2, 2), (2, 2)))
    monkeypatch.setattr(worlds, "HELD_OUT", 1)


@pytest.fixture(scope="module")
def crate() -> Crate:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crates, "WORLDS", 8)
        patch.setattr(crates, "GRIDS", ((2, 3),) * 4)
        textures = np.stack([draw_texture(RANDOM(seed)) for seed in range(3)])
        return make_crate(5, seed=2, textures=textures, patch=PATCH)


def settings(folder: Path, **more: Any) -> PretrainConfig:
    given: dict[str, Any] = {
        "out": folder / "start",
        "model": "vivit1-P/12x8",
        "steps": 6,
        "device": "cpu",
        "workers": 1,
    }
    return PretrainConfig(**given | more)


def same(one: Crate, other: Crate) -> bool:
    return all(torch.allclose(getattr(one, f.name), getattr(other, f.name), atol=1e-5) for f in fields(Crate))


def test_a_crate_has_what_is_asked(crate: Crate) -> None:
    assert crate.clips.shape == (8, 3, 16, 24, 36)
    assert crate.clips.dtype == torch.uint8
    assert crate.flow.shape == (8, 4, 4, 6, 2)
    assert crate.own.shape == (8, 4, 4, 6)
    assert crate.body.shape == (8, 8, 11, 3)
    assert crate.way.shape == (8, 8, 4)
    bodies = crate.kind == BODY
    assert 0 < bodies.sum() < 8
    assert not crate.body[~bodies].any()
    assert not crate.way[bodies].any()
    assert 0 <= crate.own.min() <= crate.own.max() <= 1


def test_cells_hold_the_mean_of_their_pixels() -> None:
    values = RANDOM(0).normal(size=(2, 4, 6, 9, 2))
    wanted = values.reshape(2, 2, 2, 2, 3, 3, 3, 2).mean((2, 4, 6))
    assert np.allclose(pool(list(values), (2, 3, 3)), wanted, atol=1e-6)


@pytest.mark.parametrize("change", ["mirror", "reverse"])
def test_what_is_changed_twice_is_as_it_was(crate: Crate, change: str) -> None:
    which = torch.arange(8) % 2 == 0
    once = getattr(crate, change)(which)
    assert not same(once, crate)
    assert torch.equal(once.clips[~which], crate.clips[~which])
    # a way begins at 0 and is told in means of two moments: backwards it is so but for its first mean
    twice = getattr(once, change)(which)
    shift = twice.way[:, :1] - crate.way[:, :1]
    hip = twice.body[:, :1, -1:] - crate.body[:, :1, -1:]
    body = torch.cat([twice.body[:, :, :-1], twice.body[:, :, -1:] - hip], 2)
    assert same(replace(twice, way=twice.way - shift, body=body), crate)
    assert shift.abs().max() < 0.25
    assert hip.abs().max() < 0.5


def test_a_mirrored_world_goes_the_other_way(crate: Crate) -> None:
    mirrored = crate.mirror(torch.ones(8, dtype=torch.bool))
    assert torch.equal(mirrored.clips, crate.clips.flip(4))
    assert torch.allclose(mirrored.flow[..., 0].flip(3), -crate.flow[..., 0])
    assert torch.allclose(mirrored.flow[..., 1].flip(3), crate.flow[..., 1])
    assert torch.allclose(mirrored.way[..., 0], -crate.way[..., 0])
    assert torch.allclose(mirrored.way[..., 3], crate.way[..., 3])
    left_knee, right_knee = crate.body[:, :, 0], mirrored.body[:, :, 2]
    assert torch.allclose(right_knee, left_knee * torch.tensor([-1.0, 1, 1]))


def test_colours_change_and_nothing_that_is_asked_does(crate: Crate, monkeypatch: pytest.MonkeyPatch) -> None:
    for change in ("mirror", "reverse"):
        monkeypatch.setattr(Crate, change, lambda self, which: self)
    varied = crate.vary(RANDOM(0))
    assert not torch.equal(varied.clips, crate.clips)
    assert same(replace(varied, clips=crate.clips), crate)


def test_every_crate_is_learned_from_as_often_as_said_and_no_older_one_is_asked_for() -> None:
    steps = 400
    numbers = [choose_crate(step) for step in range(steps)]
    middle = range(APART * AGAIN, steps // AGAIN - APART * AGAIN)
    assert {numbers.count(number) for number in middle} == {AGAIN}
    for step in range(steps):
        assert min(numbers[step:]) >= find_first(step)
        assert numbers[step] <= step // AGAIN


def test_answers_of_a_token_are_for_the_cells_that_it_covers() -> None:
    """A head that passes one number of each token on puts it where the token is."""
    model = create_model("vivit1-P/12x4", clip=(8, 24, 36), num_classes=1, embed="conv")
    head = MotionHead(model)
    with torch.no_grad():
        head.local.weight.zero_()
        head.local.bias.copy_(torch.arange(24.0))
        cells, whole = head(model, torch.zeros(1, 3, 8, 24, 36))
    assert cells.shape == (1, 4, 4, 6, 3)
    token = torch.arange(24.0).view(2, 2, 2, 3)  # of each token: time, down, right, and what is asked
    assert torch.equal(cells[0], token.repeat(2, 2, 3, 1))
    assert whole.shape == (1, 8 * 11 * 3 + 2 * 8 * 4 + 3)


def test_answers_that_are_right_lose_nothing_and_those_that_know_nothing_are_the_measure(crate: Crate) -> None:
    sure = (crate.own - 0.5) * 60
    cells = torch.cat([torch.asinh(2 * crate.flow), sure[..., None]], -1)
    kind = 30.0 * torch.nn.functional.one_hot(crate.kind, 3)
    whole = torch.cat([crate.body.flatten(1), crate.way.flatten(1), crate.way.flatten(1), kind], 1)
    losses, still = measure(crate, cells, whole), measure(crate, *know_nothing(crate))
    for name in ("flow", "what", "body", "way"):
        assert losses[name] < 1e-6
        assert still[name] > 0.01


def test_a_model_learns_a_crate(crate: Crate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crate, "vary", lambda self, rng: self)
    torch.manual_seed(0)
    model = create_model("vivit1-P/12x8", clip=(16, 24, 36), num_classes=1, embed="conv", std=(0.25,) * 3)
    config = PretrainConfig(steps=60, lr=3e-3)
    learner = Learner(config, model, Worlds(config, model), torch.device("cpu"))
    figures = [learner.take_step(crate) for _ in range(60)]
    for name in ("flow", "what", "body", "way"):
        assert np.mean([one[name] for one in figures[-8:]]) < 0.7 * np.mean([one[name] for one in figures[:8]])


def test_a_step_asks_its_device_for_nothing_and_none_after_a_bad_one_changes_a_weight(crate: Crate) -> None:
    torch.manual_seed(0)
    model = create_model("vivit1-P/12x8", clip=(16, 24, 36), num_classes=1, embed="conv", std=(0.25,) * 3)
    config = PretrainConfig(steps=60)
    learner = Learner(config, model, Worlds(config, model), torch.device("cpu"))
    learner.unread.append(learner.take_step(crate))
    with Asked() as asked:
        learner.unread.append(learner.take_step(crate))
    assert asked.times == 0
    assert [set(one) for one in learner.read_losses()] == [{"loss", "own", "flow", "what", "body", "way"}] * 2
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for spoilt in (replace(crate, flow=crate.flow * float("nan")), crate, crate):
        learner.unread.append(learner.take_step(spoilt))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match=naming("step 2", "nan", "--lr")):
        learner.read_losses()


@pytest.mark.usefixtures("few")
def test_it_goes_on_bit_for_bit_and_writes_what_a_training_starts_from(tmp_path: Path) -> None:
    whole = pretrain.pretrain(settings(tmp_path / "whole"), show=False)
    again = go_on_to_the_end(settings(tmp_path / "cut", save_minutes=1e-9), stops=(3, 5))
    assert (again.path / MODEL).read_bytes() == (whole.path / MODEL).read_bytes()
    assert [one["step"] for one in again.metrics()] == [one["step"] for one in whole.metrics()]
    assert (again.path / CARD).is_file()
    assert not (again.path / CHECKPOINTS).exists()
    about = read_about(whole.path)[PRETRAINING]
    assert (about["model"], about["steps"], about["seed"]) == ("vivit1-P/12x8", 6, 0)
    assert all(torch.isfinite(value).all() for value in load(whole.path).state_dict().values())


@pytest.mark.usefixtures("few")
def test_a_folder_that_was_begun_otherwise_or_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    pretrain.pretrain(settings(tmp_path, steps=1), show=False)
    before = (tmp_path / "start" / MODEL).read_bytes()
    with pytest.raises(ValueError, match=naming(tmp_path / "start", "steps: 1 -> 6")):
        pretrain.pretrain(settings(tmp_path), show=False)
    assert (tmp_path / "start" / MODEL).read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match=naming(tmp_path / "other")):
        pretrain.pretrain(settings(tmp_path, out=tmp_path / "other"), show=False)


@pytest.mark.usefixtures("few")
def test_a_gradient_that_is_not_finite_changes_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vary = Crate.vary

    def spoil(self: Crate, rng: np.random.Generator) -> Crate:
        varied = vary(self, rng)
        return replace(varied, flow=varied.flow * float("nan"))

    monkeypatch.setattr(Crate, "vary", spoil)
    with pytest.raises(ValueError, match=naming("step 0", "--lr")):
        pretrain.pretrain(settings(tmp_path), show=False)
    assert not (tmp_path / "start" / MODEL).exists()


@pytest.mark.usefixtures("few")
def test_what_a_killed_process_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / ".lock").write_text("")
    pretrain.pretrain(settings(tmp_path, steps=1), show=False)
    assert (tmp_path / "start" / MODEL).is_file()


@pytest.mark.parametrize("model", ["vivit2-P/12x4", "vit-P/12", "swin2-P/12x4", "vivit9-P/12x4"])
def test_models_that_cannot_learn_so_are_named(model: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=naming(model.split("-")[0])):
        pretrain.pretrain(settings(tmp_path, model=model), show=False)
    assert not (tmp_path / "start").exists()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"lr": -1.0}, {"lr": float("nan")}, {"seed": -1}, {"workers": -1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=naming(*wrong)):
        PretrainConfig(**wrong)


# Training starts from it


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A start in the package for one model."""
    folder = tmp_path / "starts"
    monkeypatch.setattr(init, "STARTS", folder)
    torch.manual_seed(7)
    model = create_model("vivit1-P/16x4", clip=(16, 64, 64), num_classes=1, std=(0.25,) * 3)
    return save(model.half(), folder / "vivit1-P-16x4-tubelet.safetensors", about={PRETRAINING: {"worlds": 1}})


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos") / "data", 4)


def plan_of(data: Path, **more: Any) -> plan.Plan:
    given: dict[str, Any] = {"data": data, "model": "vivit1-P/16x4", "device": "cpu", "epochs": 1, "workers": 1}
    return plan.make_plan(TrainConfig(**given | more), torch.device("cpu"))


def test_a_training_starts_from_the_package_and_is_otherwise_as_with_fresh_weights(videos: Path, shipped: Path) -> None:
    ours, fresh = plan_of(videos), plan_of(videos, init="none")
    assert ours.start is not None
    assert fresh.start is None
    assert (ours.spec, ours.model, ours.lr, ours.layer_decay) == (fresh.spec, fresh.model, fresh.lr, fresh.layer_decay)
    assert ours.changes.augmentation.tilt_degrees > 0 == fresh.changes.augmentation.tilt_degrees
    assert any("--init none" in note for note in ours.notes)
    model = create_model("vivit1-P/16x4", clip=ours.spec.clip_size, num_classes=2, std=(0.25,) * 3)
    before = model.head.weight.clone()
    ours.start.fill(model)
    theirs = load(shipped).state_dict()
    for name, value in model.state_dict().items():
        if not name.startswith("head.") and ".tables." not in name:
            assert torch.equal(value, theirs[name])
    assert torch.equal(model.head.weight, before)


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize("other", [{"embed": "conv"}, {"model": "vivit1-P/8x4"}, {"pool": "mean"}, {"init": "none"}])
def test_what_the_package_has_no_start_for_starts_fresh(videos: Path, other: dict[str, Any]) -> None:
    assert plan_of(videos, **other).start is None


@pytest.mark.usefixtures("shipped")
def test_images_start_fresh(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / "data" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM(number).integers(0, 255, (32, 32, 3), np.uint8)).save(
            tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        )
    assert plan_of(tmp_path / "data", model=None).start is None


def test_weights_of_a_pre_training_can_be_named_too(videos: Path, shipped: Path) -> None:
    named = plan_of(videos, init=str(shipped), model=None)
    assert named.model_name == "vivit1-P/16x4"
    assert named.spec == plan_of(videos).spec
    assert named.lr == plan_of(videos).lr


def test_windows_of_segments_are_as_long_as_with_fresh_weights(shipped: Path, tmp_path: Path) -> None:
    config = TrainConfig(data=tmp_path, task="segments", init=str(shipped), seconds_between_frames=0.1)
    nothing = Recordings(tmp_path, (), ())
    start = init.find_start(config, "video")
    assert start is not None
    assert choose_frames(config, start, nothing) == choose_frames(config, None, nothing) == (16, 1.6)


def test_freezing_needs_weights_that_are_named(videos: Path, shipped: Path) -> None:
    for more in ({}, {"init": "none"}):
        with pytest.raises(ValueError, match=naming("--freeze", "--init")):
            plan_of(videos, freeze=True, **more)
    assert plan_of(videos, freeze=True, init=str(shipped), model=None).start is not None


def test_the_start_in_the_package_is_small_and_says_how_it_was_made() -> None:
    files = sorted(init.STARTS.glob("*.safetensors"))
    assert [file.name for file in files] == ["vivit1-N-12x4-conv.safetensors"]
    for file in files:
        about = read_about(file)[PRETRAINING]
        assert file.stat().st_size < 3e6
        assert file.name == f"{about['model'].replace('/', '-')}-{about['embed']}.safetensors"
        assert about["explained"]["flow"] > 0.5
        assert file.with_suffix(".md").is_file()
