"""A frozen encoder: its features are computed once, the rest of the model learns from them."""

import csv
import json
import os
import shutil
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from naming import naming
from safetensors.torch import load_file, save_file
from small_sets import command, spoil, tiny_config, write_images, write_sounds, write_videos
from test_train import FILES, image_vit
from tiny import clip_for, tiny

import tubelet
from tubelet.data.bad_files import BadFiles
from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import views
from tubelet.nn import SpaceTimeTransformer, model_config
from tubelet.nn.split import Rest, encode
from tubelet.predict.predictor import Predictor
from tubelet.runs.run import Run
from tubelet.system.exits import Stopped
from tubelet.system.team import Team
from tubelet.train.clips import bad_files, new_model
from tubelet.train.config import TrainConfig
from tubelet.train.feature_cache import Cache, Features, make_views
from tubelet.train.plan import Plan, make_plan
from tubelet.train.train import train_fn
from tubelet.train.trainer import Fit
from tubelet.weights import read_about
from tubelet.weights.terms import Terms, read_terms, write_terms

CPU = torch.device("cpu")
ALONE = Team(0, 1, CPU)
FREEZE: dict[str, Any] = {"model": None, "size": (32, 32), "freeze": True, "freeze_views": 2, "epochs": 2}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 clips, of classes that are mirrored and reversed into each other."""
    return write_videos(tmp_path_factory.mktemp("videos") / "clips", clips=7, classes=("left", "right"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(image_vit(tmp_path_factory.mktemp("vit") / "vit.safetensors"))


@pytest.fixture(scope="module")
def frozen_run(videos: Path, vit: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(videos, tmp_path_factory.mktemp("run") / "run", init=vit)


def train(data: Path, out: Path, **settings: Any) -> Path:
    return train_fn(tiny_config(data, out, **FREEZE | settings), show=False)


def open_cache(data: Path, out: Path, *, show: bool = False, **settings: Any) -> tuple[Cache, Plan]:
    """A cache as a run of its own makes it."""
    plan = make_plan(tiny_config(data, out, **FREEZE | settings), CPU)
    plan.config.out.mkdir(parents=True, exist_ok=True)
    run = Run(plan.config.out)
    bad = bad_files(plan, run, ALONE, show=False)
    return Cache(new_model(plan, run, ALONE, init=True, show=show), plan, run, ALONE, bad), plan


def compute(cache: Cache, plan: Plan, *, count: int = 2) -> Features:
    return cache.load(plan.data.items("train"), views=count, title="features", show=False)


def files_of(cache: Cache) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.folder.glob("*.safetensors")}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


# ---- the two parts of a model


@pytest.mark.parametrize("family", ["vivit1", "vivit2", "vivit3", "vjepa2", "swin2", "vit", "ast"])
def test_the_two_parts_are_the_model(family: str) -> None:
    model = tiny(family)
    clip = clip_for(model)
    codes = encode(model, clip)
    assert codes.shape == (2, 4 if family == "vivit2" else 1, model.encoders[-1].out_dim)
    torch.testing.assert_close(Rest(model)(codes), model(clip))


@pytest.mark.parametrize(
    ("settings", "what"), [({}, "the temporal encoder and the head"), ({"temporal_depth": 0}, "the head")]
)
def test_the_rest_learns_under_the_names_of_the_model(settings: dict[str, Any], what: str) -> None:
    model = tiny("vivit2", **settings)
    own, rest = model.state_dict(), Rest(model)
    assert rest.what == what
    parameters = dict(rest.named_parameters())
    assert {name.split(".")[0] for name in parameters} <= {"head", "encoders"}
    assert not any(name.startswith(("encoders.0.", "embed.")) for name in parameters)
    assert all(value.data_ptr() == own[name].data_ptr() for name, value in parameters.items())


@pytest.mark.parametrize("family", ["vivit1", "vivit2"])
def test_folded_weights_give_on_features_as_they_are_what_was_learned_on_standardised_ones(family: str) -> None:
    model = tiny(family)
    rest, codes = Rest(model), 3 + 2 * torch.randn(50, 4 if family == "vivit2" else 1, 24)
    if family == "vivit1":
        codes[:, :, 5] = 7.0  # never varies
        rest.standardise(codes)
        seen: list[torch.Tensor] = []
        rest.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        rest(codes)
        alive = [channel for channel in range(24) if channel != 5]
        torch.testing.assert_close(seen[0].mean(0), torch.zeros(24), rtol=0, atol=1e-5)
        torch.testing.assert_close(seen[0].std(0)[alive], torch.ones(23))
    with torch.no_grad():
        expected = rest(codes)
        model.load_state_dict({**model.state_dict(), **rest.fold_statistics(rest.state_dict())})
        torch.testing.assert_close(Rest(model)(codes), expected, rtol=1e-4, atol=1e-4)


# ---- features


def test_features_from_the_disk_are_those_computed_now(videos: Path, vit: str, tmp_path: Path) -> None:
    cache, plan = open_cache(videos, tmp_path / "run", init=vit)
    fresh, read = compute(cache, plan), compute(cache, plan)
    for number, item in enumerate(plan.data.items("train")):
        clips, labels = make_views(item, plan, 2)
        live = encode(cache.model, clips)
        for features in (fresh, read):
            codes, told = features.found[number]
            assert codes.dtype == torch.float32
            assert torch.equal(codes, live)
            assert told == labels
        assert labels[0] == item.label
        assert fresh.targets[number] == plan.data.source.classes.index(item.label)


def test_views_differ_and_their_draws_depend_on_seed_clip_and_view_alone(
    videos: Path, vit: str, tmp_path: Path
) -> None:
    _, plan = open_cache(videos, tmp_path / "run", init=vit)
    item, other = plan.data.items("train")[:2]
    clips, labels = make_views(item, plan, 6)
    assert len({clip.numpy().tobytes() for clip in clips}) == 7
    assert set(labels) == {"left", "right"}  # mirrored, left is right
    few, _ = make_views(item, plan, 3)
    assert torch.equal(few, clips[:4])
    seeded = replace(plan, config=replace(plan.config, seed=1))
    assert not torch.equal(make_views(item, seeded, 6)[0][1:], clips[1:])
    assert torch.equal(make_views(item, seeded, 6)[0][0], clips[0])
    source = replace(plan.data.source, items=(other, item))
    alone = replace(plan, data=replace(plan.data, source=source))
    assert torch.equal(make_views(item, alone, 6)[0], clips)


def test_any_number_of_threads_gives_the_same_files(videos: Path, vit: str, tmp_path: Path) -> None:
    found = []
    for workers in (1, 4):
        cache, plan = open_cache(videos, tmp_path / str(workers) / "run", init=vit, workers=workers)
        compute(cache, plan)
        found.append(files_of(cache))
    assert len(found[0]) == 12
    assert found[0] == found[1]


def test_a_long_item_is_read_view_by_view_and_a_short_one_once(
    videos: Path, vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []
    read_frames = tubelet.data.clips.read_frames

    def counted(*arguments: Any, **named: Any) -> Any:
        reads.append(arguments)
        return read_frames(*arguments, **named)

    monkeypatch.setattr("tubelet.data.clips.read_frames", counted)
    _, plan = open_cache(videos, tmp_path / "run", init=vit)
    make_views(plan.data.items("train")[0], plan, 5)
    assert len(reads) == 1
    short = replace(plan, spec=replace(plan.spec, seconds_between_frames=0.01))
    make_views(plan.data.items("train")[0], short, 5)
    assert len(reads) == 1 + 6


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1},
        {"size": (32, 48)},
        {"frames": 2},
        {"seconds_between_frames": 0.05},
        {"augment": False},
        {"dtype": "bfloat16"},
    ],
)
def test_another_setting_is_another_key(videos: Path, vit: str, tmp_path: Path, settings: dict[str, Any]) -> None:
    one, _ = open_cache(videos, tmp_path / "a", init=vit)
    same, _ = open_cache(videos, tmp_path / "b", init=vit, epochs=9, lr=1e-2, dropout=0.1, batch=2)
    other, _ = open_cache(videos, tmp_path / "c", init=vit, **settings)
    assert one.folder == same.folder
    assert one.folder.parent == other.folder.parent == tmp_path / "cached-features"
    assert one.folder != other.folder


def test_other_weights_are_another_key_and_learned_ones_are_not(videos: Path, vit: str, tmp_path: Path) -> None:
    weights = load_file(vit)
    weights["blocks.0.mlp.fc1.bias"][0] += 1e-6
    save_file(weights, tmp_path / "other.safetensors")
    one, plan = open_cache(videos, tmp_path / "a", init=vit)
    other, _ = open_cache(videos, tmp_path / "b", init=str(tmp_path / "other.safetensors"))
    assert one.folder != other.folder
    with torch.no_grad():
        one.model.head.weight.add_(1)
        one.model.encoders[1].blocks[0].mlp.fc1.weight.add_(1)
    assert Cache(one.model, plan, Run(tmp_path / "a"), ALONE, one.bad).folder == one.folder


def test_a_cache_that_was_stopped_goes_on_and_equals_one_that_was_not(
    videos: Path, vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, plan = open_cache(videos, tmp_path / "straight" / "run", init=vit)
    compute(straight, plan)
    stopped, plan = open_cache(videos, tmp_path / "stopped" / "run", init=vit)
    computed: list[str] = []
    caught: list[int] = []  # a real signal would end a test process whose tests do not run in its main thread
    whole = Cache.compute

    def count(self: Cache, item: Any, *rest: Any) -> Any:
        computed.append(item.path)
        if len(computed) == 5:
            caught.append(signal.SIGINT)
        return whole(self, item, *rest)

    monkeypatch.setattr(Cache, "compute", count)
    monkeypatch.setattr("tubelet.train.feature_cache.signals", lambda *, show: nullcontext(caught))
    with pytest.raises(Stopped, match=naming(tmp_path / "stopped" / "run")):
        compute(stopped, plan)
    assert len(files_of(stopped)) == 5
    caught.clear()
    compute(stopped, plan)
    assert sorted(computed) == sorted(item.path for item in plan.data.items("train"))
    assert files_of(stopped) == files_of(straight)


@pytest.mark.parametrize("keep_bytes", [0, 30, -1])
def test_a_damaged_file_is_computed_again(videos: Path, vit: str, tmp_path: Path, keep_bytes: int) -> None:
    cache, plan = open_cache(videos, tmp_path / "run", init=vit)
    compute(cache, plan)
    before = files_of(cache)
    victim = cache.file(plan.data.items("train")[3], 2)
    victim.write_bytes(victim.read_bytes()[:keep_bytes])
    compute(cache, plan)
    assert files_of(cache) == before


def test_new_and_changed_clips_alone_are_computed(
    videos: Path, vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(videos, tmp_path / "data")
    for split in ("train", "val"):
        (data / split).mkdir()
    for name in ("left", "right"):
        (data / "val" / name).mkdir()
        shutil.move(data / name, data / "train" / name)
        shutil.move(data / "train" / name / "0.mp4", data / "val" / name / "0.mp4")
    cache, plan = open_cache(data, tmp_path / "run", init=vit)
    compute(cache, plan)
    shutil.copy(data / "train" / "left" / "3.mp4", data / "train" / "left" / "9.mp4")
    os.utime(data / "train" / "left" / "2.mp4", ns=(1, 1))
    computed: list[str] = []
    whole = Cache.compute
    monkeypatch.setattr(
        Cache, "compute", lambda self, item, *rest: (computed.append(item.path), whole(self, item, *rest))[1]
    )
    cache, plan = open_cache(data, tmp_path / "run", init=vit)
    compute(cache, plan)
    assert computed == ["train/left/2.mp4", "train/left/9.mp4"]


# ---- training on them


def test_a_run_is_whole_and_its_encoder_as_it_was(frozen_run: Path, vit: str) -> None:
    assert {path.name for path in frozen_run.iterdir()} == FILES | {"init.txt", "features.json"}
    plan = make_plan(TrainConfig.from_json(read_json(frozen_run / "config.json")["train"]), CPU)
    start = new_model(plan, Run(frozen_run), ALONE, init=True, show=False).state_dict()
    end = load_file(frozen_run / "model.safetensors")
    assert set(start) == set(end)
    learned = {name for name, _ in Rest(tubelet.load(frozen_run)).named_parameters()}
    for name, value in end.items():
        assert torch.equal(value, start[name]) == (name not in learned), name


def test_the_saved_model_answers_as_features_and_rest_do(frozen_run: Path, videos: Path) -> None:
    settings = read_json(frozen_run / "config.json")
    plan = make_plan(TrainConfig.from_json(settings["train"]), CPU)
    model, predictor = tubelet.load(frozen_run), Predictor.load(frozen_run, device="cpu", dtype="float32")
    cache = Cache(model, plan, Run(frozen_run), ALONE, BadFiles(videos, train_files=12))
    held = plan.data.items("val")
    features = cache.load(held, views=0, title="held out", show=False)
    for number, item in enumerate(held):
        chances = Rest(model)(features.centre(number)[None]).softmax(1)[0]
        told = predictor.predict(videos / item.path).probabilities
        assert [told[name] for name in plan.data.source.classes] == pytest.approx(chances.tolist(), abs=1e-6)


def test_a_frozen_run_that_was_stopped_ends_as_one_that_was_not(
    videos: Path, vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"init": vit, "mixup": 0.4, "ema": 0.9, "dropout": 0.2}
    straight = train(videos, tmp_path / "straight", **settings)
    learn = Fit.take_step

    def learn_and_signal(fit: Fit, parts: Any) -> dict[str, float]:
        if fit.step == 2:
            signal.raise_signal(signal.SIGINT)
        return learn(fit, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "take_step", learn_and_signal)
        with pytest.raises(Stopped):
            train(videos, tmp_path / "stopped", **settings)
    saved = load_file(next((tmp_path / "stopped").glob("checkpoints/*/state.safetensors")))
    assert not any("encoders.0." in name for name in saved)
    stopped = train(videos, tmp_path / "stopped", **settings)
    one, other = (load_file(run / "model.safetensors") for run in (straight, stopped))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert (straight / "predictions.csv").read_bytes() == (stopped / "predictions.csv").read_bytes()


@pytest.mark.parametrize("write", [write_images, write_sounds])
def test_images_and_sounds_are_learned_from_features_too(
    tmp_path: Path, vit: str, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chances: list[torch.Tensor] = []
    look = tubelet.train.loop.validate

    def look_and_keep(fit: Fit, held: Features) -> tuple[float, float]:
        with torch.no_grad():
            chances.append(fit.model(torch.stack([held.centre(i) for i in range(len(held))])).softmax(1))
        return look(fit, held)

    monkeypatch.setattr("tubelet.train.loop.validate", look_and_keep)
    data = write(tmp_path / "data")
    run = train(data, tmp_path / "run", init=vit, frames=None, views="1x1")
    assert read_json(run / "results.json")["frozen"]["learned"] == "the head"
    with open(run / "predictions.csv", newline="") as table:
        rows = [
            [float(chance) for name, chance in row.items() if name.startswith("p:")] for row in csv.DictReader(table)
        ]
    torch.testing.assert_close(torch.tensor(rows), chances[-1], rtol=0, atol=1e-5)


def test_what_freezing_costs_is_said_or_said_to_be_unknown(
    videos: Path, vit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_config(videos, tmp_path / "run", **FREEZE, init=vit)
    train_fn(settings, show=True)
    shown = " ".join(capsys.readouterr().out.split())
    learned = sum(value.numel() for value in Rest(tubelet.load(tmp_path / "run")).parameters())
    assert f"{learned:,} parameters" in shown
    assert "features 12 clips x 3 views x 2 codes of 96: 28 kB in" in shown
    assert "--compare" in shown
    assert "not measured" in (tmp_path / "run" / "README.md").read_text()

    train_fn(replace(settings, out=tmp_path / "again", compare=True), show=True)
    shown = " ".join(capsys.readouterr().out.split())
    assert "all there already" in shown
    frozen, whole = (read_json(tmp_path / name / "results.json") for name in ("again", "again-all-weights"))
    assert frozen["frozen"]["all_weights"]["accuracy"] == whole["accuracy"]
    assert whole["frozen"] is None
    points = 100 * (whole["accuracy"] - frozen["accuracy"])
    assert f"all weights {100 * whole['accuracy']:.1f} % right, {abs(points):.1f} points" in shown
    assert ("points more" in shown) == (points >= 0)
    assert read_json(tmp_path / "again-all-weights" / "config.json")["train"]["freeze"] is False
    assert "training all weights from the same start came to" in (tmp_path / "again" / "README.md").read_text()


# ---- starting from weights of ours


def test_a_run_starts_from_a_run(videos: Path, frozen_run: Path, tmp_path: Path) -> None:
    run = train(videos, tmp_path / "run", init=str(frozen_run), size=None, frames=None)
    was, now = read_json(frozen_run / "config.json"), read_json(run / "config.json")
    assert (now["clip_spec"], now["model"], now["model_name"]) == (was["clip_spec"], was["model"], "vivit2-P/16x2")
    old, new = load_file(frozen_run / "model.safetensors"), load_file(run / "model.safetensors")
    assert all(
        torch.equal(value, new[name]) for name, value in old.items() if name.startswith(("embed.", "encoders.0."))
    )
    assert (run / "init.txt").read_text().endswith("head: left fresh\n")


def test_a_run_of_another_size_starts_from_a_run_whose_positions_are_resampled(
    videos: Path, frozen_run: Path, tmp_path: Path
) -> None:
    run = train(videos, tmp_path / "run", init=str(frozen_run / "model.safetensors"), size=(48, 32), frames=6)
    assert tubelet.load(run).input_size == (6, 48, 32)
    told = (run / "init.txt").read_text()
    assert "encoders.0.position.tables.0: resampled from 1 x 2 x 2 to 1 x 3 x 2" in told
    assert "encoders.1.position.tables.0: resampled from 2 x 1 x 1 to 3 x 1 x 1" in told


def test_weights_without_a_clip_spec_will_do(videos: Path, tmp_path: Path) -> None:
    model = tubelet.create_model("vivit2-P/16x2", clip=(4, 32, 48), num_classes=0)
    tubelet.save(model, tmp_path / "weights.safetensors")
    run = train(videos, tmp_path / "run", init=str(tmp_path / "weights.safetensors"), size=None, frames=None)
    spec = read_json(run / "config.json")["clip_spec"]
    assert (spec["frames"], spec["crop"], spec["mean"]) == (4, [32, 48], [0.5, 0.5, 0.5])


def test_weights_of_ours_that_do_not_fit_are_refused(videos: Path, frozen_run: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    grey = tubelet.create_model("vivit1-P/16x2", clip=(4, 32, 32), num_classes=2, channels=1)
    tubelet.save(grey, tmp_path / "grey.safetensors")
    still = tubelet.create_model("vit-P/16", clip=(1, 32, 32), num_classes=2)
    tubelet.save(still, tmp_path / "still.safetensors")
    run, free = str(frozen_run), {"size": None, "frames": None}
    for data, settings, values in (
        (images, {"init": run, **free}, ("'video'", "'image'")),
        (
            videos,
            {"init": run, "model": "vivit1-P/16x2"},
            ("vivit2-P/16x2", "--model"),
        ),
        (videos, {"init": run, "embed": "conv"}, ("tubelet", "--embed")),
        (videos, {"init": str(tmp_path / "grey.safetensors"), **free}, ("channels", 1, 3)),
    ):
        with pytest.raises(ValueError, match=naming(settings["init"], *values)):
            train(data, tmp_path / "run", **settings)
    with pytest.raises(ValueError, match=naming(tmp_path / "grey.safetensors", "stages 1, not 2", "channels 1, not 3")):
        tubelet.weights.init.from_model.init_from_model(tubelet.load(frozen_run), tmp_path / "grey.safetensors")
    assert not (tmp_path / "run").exists()


# ---- weights of today's encoders

ENCODERS: dict[str, dict[str, Any]] = {
    "vjepa21-P/16x2": {"clip": (4, 32, 48)},
    "videoprism-P/16": {"clip": (4, 32, 48)},
    "pe-P/16": {"clip": (1, 32, 48), "num_classes": 7},
    "dinov3-S+/16": {"clip": (1, 32, 48)},
    "siglip2-P/16": {"clip": (1, 32, 48)},
    "vit-P/16": {"clip": (1, 32, 48), "pool": "mean"},
}
TERMS = Terms(weights="theirs", licence="a licence of their own", commercial=False, gated=True)


def encoder(name: str, folder: Path) -> Path:
    """An encoder as `tubelet convert` leaves it, of two blocks."""
    settings = {"num_classes": 0, "mean": (0.4, 0.5, 0.6), **ENCODERS[name]}
    config = model_config(name, **settings)
    levels = (0, 1) if config.stages[0].levels else ()
    heads = {"pool_heads": 3} if config.stages[0].pool_heads else {}
    torch.manual_seed(0)
    model = SpaceTimeTransformer(config.with_stage(0, depth=2, levels=levels, **heads))
    kind, size = "image" if settings["clip"][0] == 1 else "video", settings["clip"]
    spec = ClipSpec(
        kind=kind,
        frames=size[0],
        seconds_between_frames=0.1 if kind == "video" else 0.0,
        resize=size[1:],
        crop=size[1:],
        mean=settings["mean"],
        std=(0.5, 0.5, 0.5),
    )
    return tubelet.save(model, folder, about={"clip_spec": spec.to_json(), **write_terms([TERMS])})


@pytest.mark.parametrize("pool", [None, "attentive"])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_converted_encoder_stays_as_it_is_and_what_reads_it_learns(
    name: str, pool: str | None, videos: Path, tmp_path: Path
) -> None:
    """Videos, frame by frame where the encoder is one of pictures."""
    weights = encoder(name, tmp_path / "theirs")
    still = ENCODERS[name]["clip"][0] == 1
    run = train(videos, tmp_path / "run", init=str(weights), pool=pool, size=None, frames=None)
    theirs, ours = tubelet.load(weights), tubelet.load(run)
    assert len(ours.config.stages) == len(theirs.config.stages) + still + (pool is not None)
    taken = {key: value for key, value in theirs.state_dict().items() if not key.startswith("head.")}
    own = ours.state_dict()
    left = {key for key in taken if key not in own}
    assert not left or (pool and all(".pool." in key or ".prefix" in key for key in left))
    same = [key for key in taken if key not in left and ".tables." not in key]  # tables are resampled
    assert all(torch.equal(own[key], taken[key]) for key in same)
    result = Predictor.load(run).predict(next(videos.rglob("*.mp4")))
    assert result.label in ("left", "right")
    features = read_json(run / "features.json")
    codes = next(Path(features["folder"]).glob("*.safetensors"))
    assert load_file(codes)["codes"].shape[0] == 1 + FREEZE["freeze_views"]


@pytest.mark.parametrize("name", ["pe-P/16", "dinov3-S+/16"])
def test_a_frozen_encoder_of_pictures_sees_each_frame_as_a_picture(name: str, videos: Path, tmp_path: Path) -> None:
    weights = encoder(name, tmp_path / "theirs")
    run = train(videos, tmp_path / "run", init=str(weights), size=(32, 48), frames=4)
    theirs, ours = tubelet.load(weights), tubelet.load(run)
    clip = torch.randn(2, 3, 4, 32, 48)
    with torch.inference_mode():
        each = theirs.features(clip.transpose(1, 2).flatten(0, 1).unsqueeze(2)).unflatten(0, (2, 4))
        torch.testing.assert_close(encode(ours, clip), each, atol=1e-5, rtol=0)


def test_a_probe_reads_all_tokens(videos: Path, tmp_path: Path) -> None:
    run = train(videos, tmp_path / "run", init=str(encoder("vjepa21-P/16x2", tmp_path / "theirs")), pool="attentive")
    model = tubelet.load(run)
    clip = torch.randn(2, 3, *model.input_size)
    with torch.inference_mode():
        torch.testing.assert_close(encode(model, clip), model.tokens(clip)[0])
    assert "attentive probe" in (run / "README.md").read_text()


def test_the_terms_of_weights_are_on_all_that_is_made_of_them(videos: Path, tmp_path: Path) -> None:
    weights = encoder("siglip2-P/16", tmp_path / "theirs")
    first = train(videos, tmp_path / "first", init=str(weights), size=None, frames=4)
    second = train(videos, tmp_path / "second", init=str(first), freeze=False, size=None, frames=None)
    for run in (first, second):
        assert read_terms(read_about(run)) == (TERMS,)
        assert TERMS.licence in (run / "README.md").read_text()
        assert TERMS.licence in (run / "report.html").read_text()


# ---- what cannot work


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (
            {"init": None},
            ("--freeze", "--init"),
        ),
        ({"baseline": True}, ("--baseline", "--freeze")),
        ({"stills": 0.5}, ("--stills", "--freeze")),
        ({"freeze": False, "compare": True}, ("--compare", "--freeze")),
        ({"freeze_views": -1}, ("freeze_views", -1, 0)),
    ],
)
def test_settings_that_freeze_nothing(
    videos: Path, vit: str, tmp_path: Path, settings: dict[str, Any], values: tuple[object, ...]
) -> None:
    with pytest.raises(ValueError, match=naming(*values)):
        train(videos, tmp_path / "run", **{"init": vit, **settings})
    assert not (tmp_path / "run").exists()


def test_a_users_changes_are_not_frozen(videos: Path, vit: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=naming("--freeze", "user_augmentation")):
        train_fn(
            tiny_config(videos, tmp_path / "run", **FREEZE, init=vit), user_augmentation=lambda clip: clip, show=False
        )


def test_what_does_not_learn_is_not_compiled(videos: Path, vit: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=naming("--compile", "--freeze")):
        train_fn(tiny_config(videos, tmp_path / "run", **FREEZE, init=vit, compile="on"), show=False)


def test_one_process_freezes(videos: Path, vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Team, "join", classmethod(lambda cls, device: Team(0, 2, CPU)))
    monkeypatch.setattr(Team, "run_together", lambda self, work: work())
    monkeypatch.setattr(Team, "hear_first", lambda self, value: value)
    with pytest.raises(ValueError, match=naming("--freeze", 2, "torchrun")):
        train(videos, tmp_path / "run", init=vit)


def test_a_run_does_not_go_on_from_other_weights(
    videos: Path, vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.safetensors"
    shutil.copy(vit, mine)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tubelet.train.settle.answer", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(videos, tmp_path / "run", init=str(mine))
    weights = load_file(mine)
    weights["norm.bias"] += 0.1
    save_file(weights, mine)
    with pytest.raises(ValueError, match=naming(mine, tmp_path / "run", "--out")):
        train(videos, tmp_path / "run", init=str(mine))
    about = read_json(tmp_path / "run" / "features.json")
    (tmp_path / "run" / "features.json").write_text(json.dumps({**about, "format": 2}))
    with pytest.raises(ValueError, match=naming(tmp_path / "run", "format 2", 3, "--out")):
        train(videos, tmp_path / "run", init=str(mine))
    (tmp_path / "run" / "features.json").write_text("{")
    with pytest.raises(ValueError, match=naming(tmp_path / "run" / "features.json", "--init", "--out")):
        train(videos, tmp_path / "run", init=str(mine))


def test_all_weights_that_have_learned_are_not_trained_again(videos: Path, vit: str, tmp_path: Path) -> None:
    """Where the frozen run was stopped after them."""
    settings = tiny_config(videos, tmp_path / "run", **FREEZE, init=vit, compare=True)
    whole = replace(settings, freeze=False, compare=False, lr=None, layer_decay=None, out=tmp_path / "run-all-weights")
    train_fn(whole, show=False)
    before = (tmp_path / "run-all-weights" / "results.json").read_bytes()
    train_fn(settings, show=False)
    assert read_json(tmp_path / "run" / "results.json")["frozen"]["all_weights"]["run"] == str(whole.out)
    assert (tmp_path / "run-all-weights" / "results.json").read_bytes() == before
    assert not (tmp_path / "run-all-weights-2").exists()


def test_a_clip_that_cannot_be_decoded_keeps_its_place_and_says_why(videos: Path, vit: str, tmp_path: Path) -> None:
    data = shutil.copytree(videos, tmp_path / "data")
    cache, plan = open_cache(data, tmp_path / "run", init=vit)
    item = plan.data.items("train")[0]
    spoil(data / item.path)
    cache.bad = BadFiles(data, train_files=12, most=0.2)
    features = compute(cache, plan)
    assert (len(features), [number for number in range(12) if features.is_bad(number)]) == (12, [0])
    (one,) = features.bad.unannounced()
    assert (one.path, one.split) == (item.path, "train")
    assert one.code == "not-video"
    assert len(features.all()) == 11 * 3
    assert features.centre(1).shape == (2, 96)
    assert len(files_of(cache)) == 11
    cache.bad = BadFiles(data, train_files=12, most=0.05)
    with pytest.raises(ValueError, match=naming("1 of 12", "8.3%", "--max-bad", "5%", item.path)):
        compute(cache, plan)


def test_the_command_line_freezes(videos: Path, vit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--out", tmp_path / "run", "--freeze", "--size", "32", "32", "--device", "cpu"]
    assert command("train", videos, *flags) == 2
    assert "--init" in capsys.readouterr().err
    flags += ["--init", vit, "--frames", "4", "--epochs", "1", "--cache", tmp_path / "kept", "--freeze-views", "0"]
    assert command("train", videos, *flags) == 0
    assert "12 clips x 1 view x 2 codes of 96" in " ".join(capsys.readouterr().out.split())
    assert len(list((tmp_path / "kept").glob("*/*.safetensors"))) == 14
    assert views(videos / "left" / "0.mp4", Predictor.load(tmp_path / "run").spec).shape == (1, 3, 4, 32, 32)
