"""Candidates side by side: exact tests, rounds, folds, and the command from a folder to its advice."""

import csv
import json
import math
import sys
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from naming import naming
from small_sets import tiny_config, write_videos

import tubelet.compare.comparison
import tubelet.compare.cost
import tubelet.compare.trials
from tubelet.compare import compare
from tubelet.compare.candidate import Candidate, list_candidates
from tubelet.compare.cost import Cost, measure_cost
from tubelet.compare.difference import correct_holm, judge, mcnemar
from tubelet.compare.halving import choose_kept, count_kept, count_rounds
from tubelet.compare.standings import Standings
from tubelet.data.items import Source
from tubelet.data.splits import make_folds
from tubelet.data.table import Item
from tubelet.predict.predictor import Predictor
from tubelet.system.errors import EnvironmentTrouble
from tubelet.system.exits import Stopped
from tubelet.tasks import Classification
from tubelet.train import TrainConfig, train_fn

# ---- the tests


@pytest.mark.parametrize(("first", "second"), [*product(range(5), repeat=2), (9, 1), (0, 12)])
def test_mcnemar_counts_all_ways_of_throwing_coins(first: int, second: int) -> None:
    """By brute force: as uneven as this, or more, of 2^n equally likely ways."""
    n, apart = first + second, abs(first - second)
    uneven = sum(math.comb(n, heads) for heads in range(n + 1) if abs(n - 2 * heads) >= apart)
    assert mcnemar(first, second) == pytest.approx(float(Fraction(uneven, 2**n)))
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_of_many_clips_is_a_number() -> None:
    assert mcnemar(5000, 5000) == 1.0
    assert 0 < mcnemar(5300, 4700) < 1e-8


def test_holm_never_takes_less_than_bonferroni_for_the_least_or_swaps_two() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random(rng.integers(1, 7)).round(2).tolist()
        found = correct_holm(p)
        assert min(found) == pytest.approx(min(1.0, len(p) * min(p)))
        assert all(ours >= theirs for ours, theirs in zip(found, p, strict=True))
        assert [found[i] for i in np.argsort(p)] == sorted(found)
    assert correct_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct_holm([]) == []


def answers(shares: dict[int, float], clips: int, rng: np.random.Generator) -> dict[int, np.ndarray]:
    return {number: rng.random(clips) < share for number, share in shares.items()}


def test_no_winner_is_named_where_answers_are_dealt_out_by_chance() -> None:
    """Answers of unequal candidates, recorded once, then dealt out anew for each clip, or each group, among them."""
    rng, clips, named = np.random.default_rng(0), 90, Counter[str]()
    groups = [f"{clip % 18}" for clip in range(clips)]
    hard = rng.random(18) * 0.5  # some groups are hard for all
    recorded = [
        np.stack([rng.random(clips) < share - hard[np.arange(clips) % 18] for share in shares])
        for shares in ((0.9, 0.7, 0.6, 0.95), (0.95, 0.7))
    ]
    for by in ("clip", "group"):
        place = np.arange(clips) if by == "clip" else np.arange(clips) % 18
        for _ in range(300):
            rounds = []
            for right in recorded:
                deals = np.stack([rng.permutation(len(right)) for _ in range(clips)])[place].T
                rounds.append(dict(enumerate(np.take_along_axis(right, deals, 0))))
            named[by] += judge(rounds, groups).winner is not None
    assert max(named.values()) <= 0.05 * 300


def test_a_candidate_that_is_better_wins_and_only_against_all() -> None:
    rng = np.random.default_rng(0)
    groups = [str(clip // 4) for clip in range(400)]
    right = answers({0: 0.7, 1: 0.95, 2: 0.75}, 400, rng)
    found = judge([right], groups)
    assert (found.winner, found.order) == (1, [1, 2, 0])
    wrong, sure = np.flatnonzero(~right[1])[:2], np.flatnonzero(right[1])[:3]
    twin = {**right, 3: right[1] ^ np.isin(np.arange(400), [*wrong, *sure])}
    assert judge([twin], groups).winner is None
    alone = judge([right, {1: right[1], 2: right[2]}], groups)  # 0 was left out, and is held against it as it was then
    assert {one.other: one.round for one in alone.differences} == {2: 2, 0: 1}


def test_one_group_tells_nothing() -> None:
    right = {0: np.ones(50, bool), 1: np.zeros(50, bool)}
    found = judge([right], ["one"] * 50)
    assert found.differences[0].p < 1e-9
    assert found.winner is None


# ---- rounds


def test_rounds_end_where_no_more_would_be_left_out() -> None:
    for candidates in range(2, 40):
        left = candidates
        for _ in range(count_rounds(candidates) - 1):
            assert 3 <= count_kept(left) < left
            left = count_kept(left)
        assert 2 <= left <= 3


def test_the_best_go_on_and_so_does_one_that_is_about_to_overtake() -> None:
    shares = {0: 0.5, 1: 0.8, 2: 0.4, 3: 0.7, 4: 0.6, 5: 0.1}
    level = dict.fromkeys(shares, 0.05)
    assert choose_kept(shares, level) == [1, 3, 4]
    assert choose_kept(shares, {**level, 0: 0.2}) == [0, 1, 3]
    assert choose_kept(shares, {**level, 0: 0.2, 2: 0.5}) == [1, 2, 3]
    assert choose_kept(shares, {**level, 1: 0.9, 3: 0.9}) == [1, 3, 4]  # the best need no place beside
    assert choose_kept({0: 0.5, 1: 0.6}, {0: -1.0, 1: 0.0}) == [0, 1]


def test_a_slow_starter_is_found() -> None:
    """Curves that cross: the slow one is last but one after the first round, and the best in the end."""

    def share(speed: float, most: float, seconds: float) -> float:
        return most * (1 - 2 ** (-speed * seconds))

    curves = {0: (0.9, 0.7), 1: (0.8, 0.68), 2: (0.7, 0.62), 3: (0.6, 0.58), 4: (0.2, 0.95), 5: (0.05, 0.5)}
    shares = {number: share(*curve, 5) for number, curve in curves.items()}
    growths = {number: shares[number] - share(*curve, 2.5) for number, curve in curves.items()}
    assert sorted(shares, key=lambda number: -shares[number]).index(4) == 4
    assert 4 in choose_kept(shares, growths)
    assert max(curves, key=lambda number: share(*curves[number], 15)) == 4


# ---- folds


def source(groups: dict[str, str], *, split: str = "") -> Source:
    """A clip for each letter of the text of a group: its class."""
    items = [
        Item(f"{group}{i}.mp4", label, split=split, group=group)
        for group, labels in groups.items()
        for i, label in enumerate(labels)
    ]
    task = Classification.from_cells([item.label for item in items])
    return Source(Path("/nowhere"), "video", tuple(items), task, (), ())


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_each_clip_is_held_out_once_and_no_group_is_torn(folds: int) -> None:
    rng = np.random.default_rng(folds)
    groups = {f"g{i}": "".join(rng.choice(list("abc"), rng.integers(1, 9))) for i in range(14)}
    data = source(groups)
    found = make_folds(data, folds=folds)
    assert len(found) == folds
    held = [item.path for fold in found for item in fold.items if item.split == "val"]
    assert sorted(held) == sorted(item.path for item in data.items)
    for fold in found:
        assert [item.path for item in fold.items] == [item.path for item in data.items]
        splits = {(item.group, item.split) for item in fold.items}
        assert len(splits) == len(groups)
        for label in "abc":
            whole = sum(item.label == label for item in data.items)
            assert sum(item.label == label and item.split == "val" for item in fold.items) <= whole / folds + 4


def test_folds_of_files_have_as_much_of_each_class() -> None:
    data = source({f"{label}{i}": label for label in "abcd" for i in range(9)})
    for fold in make_folds(data, folds=3):
        assert Counter(item.label for item in fold.items if item.split == "val") == dict.fromkeys("abcd", 3)


def test_the_only_group_of_a_class_is_always_learned_from() -> None:
    found = make_folds(source({"x": "ab", "y": "a", "z": "a"}), folds=3)
    assert [{item.group for item in fold.items if item.split == "val"} for fold in found] in (
        [{"y"}, {"z"}],
        [{"z"}, {"y"}],
    )


def test_a_test_split_is_left_alone_and_a_val_split_is_the_fold() -> None:
    data = source({f"{label}{i}": label for label in "ab" for i in range(6)})
    tested = [Item(**{**vars(one), "split": "test"}) if i % 3 == 0 else one for i, one in enumerate(data.items)]
    for fold in make_folds(Source(data.root, data.kind, tuple(tested), data.task, (), ()), folds=2):
        assert {item.split for item in fold.items} == {"train", "val"}
        assert len(fold.items) == 8
    given = [Item(**{**vars(one), "split": "val"}) if i % 3 == 0 else one for i, one in enumerate(tested)]
    (fold,) = make_folds(Source(data.root, data.kind, tuple(given), data.task, (), ()), folds=2)
    assert sum(item.split == "val" for item in fold.items) == 4


def test_folds_need_two_groups() -> None:
    with pytest.raises(ValueError, match=naming("0")):
        make_folds(source({"x": "aabb"}), folds=3)


# ---- candidates


def test_candidates_are_every_model_with_every_start_and_variant() -> None:
    found = list_candidates(
        ["a", "b"], ["default", "w.safetensors"], ["default", "ema=0.9 balance"], kind="video", device="cpu"
    )
    assert len(found) == 8
    assert found[0].settings == ("model=a",)
    assert found[-1].flags == ["--model", "b", "--init", "w.safetensors", "--ema", "0.9", "--balance"]
    config = Candidate(("model=vivit2-P/12x4", "size=24,36", "no-augment", "stills=0.5")).read(Path("x"))
    assert (config.model, config.size, config.augment, config.stills) == ("vivit2-P/12x4", (24, 36), False, 0.5)
    assert Candidate(()).name == "default"


@pytest.mark.parametrize("kind", ["video", "image", "sound"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_usual_candidates_can_be_read_and_made(kind: str, device: str) -> None:
    from tubelet.nn import create_model

    found = list_candidates([], [], [], kind=kind, device=device)
    assert len({one.name for one in found}) == len(found) >= 4
    for one in found:
        config = one.read(Path("x"))
        if config.model:
            clip = (16, 48, 48) if kind == "video" else (1, 48, 48)
            create_model(config.model, clip=clip, num_classes=3, embed=config.embed or "tubelet")


@pytest.mark.parametrize(
    ("variants", "named"),
    [
        (["default"], ["default"]),
        (["default", "default"], ["default"]),
        (["default", "minutes=3"], ["minutes"]),
        (["default", "bogus=3"], ["--bogus"]),
        (["default", "ema=much"], ["much"]),
        (["default", "seed=3"], ["seed"]),
    ],
)
def test_candidates_that_cannot_be_are_named(variants: list[str], named: list[str], tmp_path: Path) -> None:
    write_videos(tmp_path / "clips", clips=4)
    with pytest.raises(ValueError, match=naming(*named)):
        compare(tmp_path / "clips", variants=variants, out=tmp_path / "out", show=False)


# ---- the command

VARIANTS = [
    f"model=vivit1-P/{patch} frames=4 size=32,32 batch=4 dtype=float32 {more}".strip()
    for patch, more in (("16x4", ""), ("16x4", "lr=1e-7"), ("16x2", "pool=mean"))
]
COST = Cost(2.0, 3.0, 10**8, 5, "float32")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of two passes instead of a time, and costs that need no process."""
    train = tubelet.compare.trials.train_fn
    monkeypatch.setattr(
        tubelet.compare.trials, "train_fn", lambda config, **how: train(replace(config, epochs=4, views="1x1"), **how)
    )
    monkeypatch.setattr(tubelet.compare.comparison, "measure_cost", lambda run, item, device: COST)


def tiny_comparison(data: Path, out: Path, **settings: Any) -> Standings:
    given: dict[str, Any] = {"variants": VARIANTS, "budget": "9m", "device": "cpu", "workers": 1, "show": False}
    return compare(data, out=out, **{**given, **settings})


@pytest.mark.usefixtures("quick")
def test_a_comparison_from_a_folder_to_its_advice(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "clips", clips=9)
    variants = [*VARIANTS, f"{VARIANTS[0]} ema=0.5"]
    found = tiny_comparison(data, tmp_path / "out", folds=2, variants=variants)
    state = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [len(one["candidates"]) for one in state["rounds"]] == [4, 3]
    assert state["rounds"][0]["seconds"] * 8 == pytest.approx(state["rounds"][1]["seconds"] * 6)
    assert {row["candidate"] for row in state["standings"]} == set(variants)
    with open(tmp_path / "out" / "answers.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert sorted(row["path"] for row in rows) == sorted(str(file) for file in data.rglob("*.mp4"))
    for number, row in enumerate(state["standings"]):
        column = [name for name in rows[0] if name.startswith(f"{row['candidate']}, round ")][-1]
        assert row["accuracy"] == pytest.approx(np.mean([int(one[column]) for one in rows]))
        assert (row["behind"] is None) == (number == 0)
    page = (tmp_path / "out" / "compare.html").read_text()
    assert all(name in page for name in variants)
    assert found.name(found.verdict.leader) in found.advice
    predicted = list((tmp_path / "out").rglob("predictions.csv"))
    assert len(predicted) == 14
    for file in predicted:  # what is counted as right is what the table of the run says
        with open(file, newline="") as table:
            answered = list(csv.DictReader(table))
        assert {row["path"] for row in answered} <= {row["path"] for row in rows}


@pytest.mark.usefixtures("quick")
def test_a_comparison_that_is_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, done = write_videos(tmp_path / "clips", clips=6), list[Path]()
    train = tubelet.compare.trials.train_fn

    def stop_at_third(config: TrainConfig, **how: Any) -> Path:
        if len(done) == 2:
            raise Stopped(Path("x"), 2)
        done.append(train(config, **how))
        return done[-1]

    monkeypatch.setattr(tubelet.compare.trials, "train_fn", stop_at_third)
    with pytest.raises(Stopped):
        tiny_comparison(data, tmp_path / "out", folds=2)
    before = {run: (run / "model.safetensors").stat().st_mtime_ns for run in done}
    monkeypatch.setattr(tubelet.compare.trials, "train_fn", train)
    went_on = tiny_comparison(data, tmp_path / "out", folds=2)
    assert before == {run: (run / "model.safetensors").stat().st_mtime_ns for run in done}
    whole = tiny_comparison(data, tmp_path / "whole", folds=2)
    assert went_on.to_json() == whole.to_json()
    again = tiny_comparison(data, tmp_path / "out", folds=2)  # done: nothing is trained
    assert again.to_json() == whole.to_json()
    with pytest.raises(ValueError, match=naming("budget_seconds", "540.0", "600.0")):
        tiny_comparison(data, tmp_path / "out", folds=2, budget="10m")


@pytest.mark.usefixtures("quick")
def test_a_candidate_that_fails_on_the_way_is_named_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, train = write_videos(tmp_path / "clips", clips=4), tubelet.compare.trials.train_fn

    def fail_one(config: TrainConfig, **how: Any) -> Path:
        if config.lr:
            raise ValueError("the loss is nan")
        return train(config, **how)

    monkeypatch.setattr(tubelet.compare.trials, "train_fn", fail_one)
    found = tiny_comparison(data, tmp_path / "out", folds=2)
    assert found.failed == {1: "the loss is nan"}
    assert sorted(found.verdict.order) == [0, 2]
    assert "the loss is nan" in (tmp_path / "out" / "compare.html").read_text()
    with pytest.raises(ValueError, match=naming("loss", "nan")):
        tiny_comparison(data, tmp_path / "two", folds=2, variants=VARIANTS[:2])


def test_what_cannot_work_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "clips", clips=4)
    for settings, named in (
        ({"budget": "1m"}, ["--budget", "1"]),
        ({"budget": "soon"}, ["'soon'"]),
        ({"variants": ["model=nothing-N/16x2", "default", "init=gone.safetensors"]}, ["nothing", "gone.safetensors"]),
        ({"variants": ["model=nowhere-N/16x2", "default"]}, ["nowhere"]),  # in the same folder: nothing was begun
    ):
        with pytest.raises(ValueError, match=naming(*named)):
            tiny_comparison(data, tmp_path / "out", **settings)
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match=naming(str(tmp_path / "other"))):
        tiny_comparison(data, tmp_path / "other")


def test_the_cost_of_an_answer_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "clips", clips=2)
    run = train_fn(tiny_config(data, tmp_path / "run"), show=False)
    file = next(data.rglob("*.mp4"))
    ours = np.ones(10**8)  # 800 MB that are none of the model's
    found = measure_cost(run, Item(str(file), "dark"), device="cpu")
    assert 0 < found.p50_ms <= found.p95_ms
    assert found.peak_bytes is None or 5e7 < found.peak_bytes < ours.nbytes
    assert found.parameters == sum(one.numel() for one in Predictor.load(run).model.parameters())
    with pytest.raises(ValueError, match=naming(str(tmp_path / "nowhere"))):
        measure_cost(tmp_path / "nowhere", Item(str(file), "dark"), device="cpu")


def test_a_process_that_dies_while_it_measures_is_the_machines_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die = [sys.executable, "-c", "import os; print('ready', flush=True); input(); os._exit(7)"]
    monkeypatch.setattr(tubelet.compare.cost, "child_command", lambda module: die)
    with pytest.raises(EnvironmentTrouble, match=naming(str(tmp_path), "7")):
        measure_cost(tmp_path, Item("a.mp4", "dark"), device="cpu")


def standings(shares: dict[int, float], ms: dict[int, float], clips: int = 400) -> Standings:
    """Of candidates whose answers are right as often, in the order of the clips, and take so long."""
    right = {number: np.arange(clips) < share * clips for number, share in shares.items()}
    groups = [str(clip % 40) for clip in range(clips)]
    return Standings(
        candidates=[Candidate((f"ema=0.{number + 1}",)) for number in shares],
        verdict=judge([right], groups),
        right=right,
        groups=groups,
        seconds=[20.0],
        costs={number: Cost(one, one, None, 5, "float32") for number, one in ms.items()},
        failed={},
    )


def test_the_front_is_what_no_other_is_better_than_in_as_little_time() -> None:
    found = standings({0: 0.9, 1: 0.8, 2: 0.7, 3: 0.85}, {0: 5.0, 1: 2.0, 2: 1.98, 3: 5.1})
    assert found.front == [0, 1]  # 2 is not clearly quicker than 1, nor 3 than 0
    assert found.verdict.winner == 0
    assert all(word in found.advice for word in ("Take ema=0.1", "ema=0.4", "5.0"))


def test_the_advice_names_no_winner_and_the_quickest_of_those_that_cannot_be_told_apart() -> None:
    close = standings({0: 0.9, 1: 0.895, 2: 0.5}, {0: 5.0, 1: 4.9, 2: 1.0})
    assert "No winner: ema=0.1" in close.advice
    assert "ema=0.2" in close.advice
    assert "ema=0.3" not in close.advice  # it is clearly behind
    quick = standings({0: 0.9, 1: 0.895, 2: 0.89}, {0: 5.0, 1: 3.0, 2: 4.0})
    assert "ema=0.2 is the quickest" in quick.advice
    assert "ema=0.2, which is quicker" in standings({0: 0.9, 1: 0.895, 2: 0.5}, {0: 5.0, 1: 3.0, 2: 1.0}).advice
