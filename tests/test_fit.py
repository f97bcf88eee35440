"""The training loop: which clips it visits, what does not depend on how the work is shared, going on bit for bit."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asked import Asked
from naming import naming
from small_sets import tiny_config, without_key_bias, write_videos

from tubelet.data.dataset import Clips
from tubelet.data.epochs import balanced_order
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.system.device import tensor_cores
from tubelet.system.team import Team
from tubelet.train.pace import Pace
from tubelet.train.plan import make_plan
from tubelet.train.trainer import Fit, part_of_batch

CPU = torch.device("cpu")
ALONE = Team(0, 1, CPU)
# Every source of randomness at once.
RANDOM: dict[str, Any] = {"dropout": 0.2, "drop_path": 0.2, "mixup": 0.4, "ema": 0.9, "accumulate": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("data"), clips=7)


def make_fit(data: Path, *, steps: int = 6, team: Team = ALONE, single_frame: bool = False, **settings: Any) -> Fit:
    """A fit on the 12 training clips of the set; of a larger team's, the share of one process, without the others."""
    plan = make_plan(tiny_config(data, data, **settings), CPU)
    clips = Clips(plan.data.source.root, plan.data.items("train"), plan.data.source.task, plan.spec, keep=True)
    torch.manual_seed(0)
    model = SpaceTimeTransformer(plan.model)
    fit = Fit(plan=plan, model=model, clips=clips, team=ALONE, pace=Pace(steps), single_frame=single_frame)
    fit.team, fit.part = team, part_of_batch(plan.config, team.size)
    return fit


def go(fit: Fit, until: int) -> list[dict[str, float]]:
    figures: list[dict[str, float]] = []
    fit.run(after=lambda some: bool(figures.extend(some)) or fit.step == until)
    return figures


def weights(fit: Fit) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in fit.model.named_parameters()}


# ---- the stream of clips


def test_every_clip_is_visited_once_an_epoch_in_an_order_of_its_own(data: Path) -> None:
    fit = make_fit(data)
    visits = [fit.epochs.find(position) for position in range(5 * 12)]
    orders = [tuple(number for number, epoch in visits if epoch == e) for e in range(5)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len(set(orders)) == 5
    other = make_fit(data, seed=1)
    assert [other.epochs.find(p) for p in range(12)] != visits[:12]
    assert [make_fit(data, batch=2).epochs.find(p) for p in range(60)] == visits


@pytest.mark.parametrize("counts", [[6, 6], [20, 3], [1, 2, 30], [7, 7, 7, 1]])
def test_balanced_epochs_visit_all_classes_alike_and_the_clips_of_each_in_turn(counts: list[int]) -> None:
    labels = np.repeat(range(len(counts)), counts)
    epochs = [balanced_order(torch.from_numpy(labels), seed=1, epoch=epoch) for epoch in range(40)]
    assert {len(order) for order in epochs} == {len(labels)}
    for order in epochs:
        visits = np.bincount(labels[order], minlength=len(counts))
        assert visits.max() - visits.min() <= 1
    visits = np.bincount(np.concatenate(epochs), minlength=len(labels))
    for label in range(len(counts)):
        own = visits[labels == label]
        assert own.max() - own.min() <= 1
    assert any((epochs[0] != order).any() for order in epochs[1:])


def test_balance_is_over_classes_and_the_plan_asks_for_it(data: Path) -> None:
    fit = make_fit(data, balance=True)
    order = balanced_order(fit.clips.targets, seed=0, epoch=0).tolist()
    assert [fit.epochs.find(position)[0] for position in range(12)] == order


def test_a_run_takes_the_clips_of_the_stream_in_turn(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = make_fit(data, batch=5)
    taken: list[int] = []
    whole = Clips.draw
    monkeypatch.setattr(
        Clips, "draw", lambda self, n, *rest, **named: (taken.append(n), whole(self, n, *rest, **named))[1]
    )
    fit.pace = Pace(5)
    go(fit, 5)
    assert taken == [fit.epochs.find(position)[0] for position in range(25)]
    assert set(Counter(taken[:24]).values()) == {2}


def test_a_clip_is_varied_anew_each_epoch(data: Path) -> None:
    fit = make_fit(data, batch=12)
    first, again = (
        {fit.epochs.find(start + place)[0]: clip for place, clip in enumerate(fit.batch(start)[0])} for start in (0, 12)
    )
    assert set(first) == set(again)
    assert all(not torch.equal(first[number], again[number]) for number in first)


@pytest.mark.parametrize(
    ("size", "accumulate", "stills"),
    [(1, 2, None), (1, 4, None), (2, 1, None), (2, 2, None), (4, 1, None), (1, 2, 0.5), (2, 1, 0.5)],
)
def test_clips_do_not_depend_on_how_a_batch_is_shared_out(
    data: Path, size: int, accumulate: int, stills: float | None
) -> None:
    whole = list(make_fit(data, stills=stills).batches(3))
    shares = [
        list(make_fit(data, team=Team(rank, size, CPU), accumulate=accumulate, stills=stills).batches(3))
        for rank in range(size)
    ]
    for step, (clips, labels) in enumerate(whole):
        parts = [shares[rank][step * accumulate + part] for part in range(accumulate) for rank in range(size)]
        assert torch.equal(torch.cat([clips for clips, _ in parts]), clips)
        assert torch.equal(torch.cat([labels for _, labels in parts]), labels)


def test_stills_leave_what_moves_and_are_up_to_the_share_asked_for(data: Path) -> None:
    plain, mixed = (next(make_fit(data, augment=False, stills=stills).batches(1)) for stills in (None, 0.5))
    assert torch.equal(plain[1], mixed[1])
    for clip, other in zip(plain[0].float(), mixed[0].float()):
        assert not torch.equal(clip, other)
        moves, still_moves = ((one - one[:, :1])[:, 1:] for one in (clip, other))
        share = 1 - (moves * still_moves).sum() / moves.square().sum()  # of the still, which moves nowhere
        assert 0 < share < 0.5 + 0.02
        assert torch.allclose(still_moves, (1 - share) * moves, atol=1.5)


def test_a_single_frame_is_one_of_the_clip(data: Path) -> None:
    clips, labels = next(make_fit(data, augment=False).batches(1))
    frames, same = next(make_fit(data, augment=False, single_frame=True).batches(1))
    assert frames.shape == (4, 3, 1, 32, 32)
    assert torch.equal(labels, same)
    for clip, frame in zip(clips, frames):
        assert any(torch.equal(clip[:, [t]], frame) for t in range(4))


# ---- sharing a batch out


@pytest.mark.parametrize(
    ("settings", "processes", "values"),
    [
        ({"batch": 4}, 3, (4, "3 processes", "1 part", "multiple of 3")),
        ({"batch": 4, "accumulate": 8}, 1, (4, "1 process", "8 parts", "multiple of 8")),
        ({"batch": 6, "accumulate": 2, "mixup": 0.2}, 1, (6, "mixup", "multiple of 4")),
        ({"batch": 4, "mixup": 0.2}, 4, (4, "mixup", "multiple of 8")),
        ({"batch": 4, "stills": 0.2}, 4, (4, "stills", "multiple of 8")),
    ],
)
def test_a_batch_that_cannot_be_shared_out_is_refused(
    settings: dict[str, Any], processes: int, values: tuple[object, ...]
) -> None:
    with pytest.raises(ValueError, match=naming(*values)):
        part_of_batch(tiny_config(Path("x"), Path("y"), **settings), processes)


def test_parts_give_the_weights_of_the_whole_batch(data: Path) -> None:
    whole, parts = make_fit(data, mixup=0.4), make_fit(data, mixup=0.4, accumulate=2)
    told, told_in_parts = go(whole, 6), go(parts, 6)
    before, after, after_parts = (without_key_bias(weights(fit)) for fit in (make_fit(data), whole, parts))
    for name, value in after.items():
        torch.testing.assert_close(after_parts[name], value, rtol=0, atol=1e-5)
        assert not torch.equal(value, before[name])
    for one, same in zip(told, told_in_parts):
        assert one["loss"] == pytest.approx(same["loss"], abs=1e-4)
        assert one["score"] == same["score"]


# ---- going on


@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("settings", [{}, RANDOM])
def test_a_stopped_run_goes_on_bit_for_bit(data: Path, stop: int, settings: dict[str, Any]) -> None:
    straight, begun, goes_on = (make_fit(data, **settings) for _ in range(3))
    told = go(straight, 6)
    go(begun, stop)
    tensors, rows, state = begun.tensors()
    assert rows == {}
    assert state["steps"] == 6
    torch.manual_seed(999)  # what the process did before must not matter
    goes_on.resume(stop, tensors, state)
    told_again = go(goes_on, 6)
    assert goes_on.step == straight.step == 6
    (final, *_), (same, *_) = straight.tensors(), goes_on.tensors()
    assert set(final) == set(same)
    assert {name.split(".")[0] for name in final} == {"model", "optimizer", *(["average"] if settings else [])}
    for name in final:
        assert torch.equal(final[name], same[name]), name
    assert [one["loss"] for one in told[stop:]] == [one["loss"] for one in told_again]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(data: Path) -> None:
    fits = [make_fit(data, seed=seed, **RANDOM) for seed in (3, 3, 4)]
    for fit in fits:
        go(fit, 2)
    one, same, other = (weights(fit)["head.weight"] for fit in fits)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# ---- steps


def test_the_loss_falls(data: Path) -> None:
    told = go(make_fit(data, steps=12, label_smoothing=0.0), 12)
    assert told[-1]["loss"] < told[0]["loss"] / 2


def test_the_average_follows_the_weights(data: Path) -> None:
    fit = make_fit(data, ema=0.3)
    expected = weights(fit)
    for step in range(4):
        go(fit, step + 1)
        decay = min(0.3, (step + 1) / (step + 10))
        expected = {n: decay * expected[n] + (1 - decay) * value for n, value in weights(fit).items()}
    for name, value in fit.final_weights().items():
        torch.testing.assert_close(value, expected[name])


def test_the_gradient_is_clipped_unless_that_is_off(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = {}
    for clip in (0.0, 0.01):
        fit = make_fit(data, clip_grad=clip)
        seen: list[float] = []

        def note(fit: Fit = fit, seen: list[float] = seen) -> None:
            seen.append(math.sqrt(sum(float((p.grad**2).sum()) for p in fit.model.parameters() if p.grad is not None)))

        monkeypatch.setattr(fit.optimizer, "step", note)
        go(fit, 1)
        norms[clip] = seen[0]
    assert norms[0.0] > 0.1
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("clip_grad", [0.0, 1.0])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(data: Path, clip_grad: float) -> None:
    fit = make_fit(data, clip_grad=clip_grad)
    go(fit, 2)
    with torch.no_grad():
        fit.model.head.bias[0] = math.inf
    before = weights(fit)
    with pytest.raises(ValueError, match=naming("step 2", "nan", "--lr", "0.0005", "--dtype float32")):
        go(fit, 3)
    assert all(torch.equal(value, before[name]) for name, value in weights(fit).items())


def test_no_step_after_one_that_is_not_finite_changes_a_weight_though_it_is_read_later(data: Path) -> None:
    fit = make_fit(data)
    go(fit, 2)
    before, learn = weights(fit), fit.loss

    def once(*batch: torch.Tensor, part: int) -> tuple[torch.Tensor, torch.Tensor]:
        logits, loss = learn(*batch, part=part)
        return logits, loss * (math.nan if fit.step == 3 else 1.0)

    fit.loss, fit.meeting = once, 6  # type: ignore[method-assign]
    after_two: list[dict[str, torch.Tensor]] = []
    with pytest.raises(ValueError, match=naming("step 3", "nan")):
        fit.run(after=lambda some: True, due=lambda: bool(after_two.append(weights(fit))))
    third, *rest = after_two
    assert not any(torch.equal(value, before[name]) for name, value in without_key_bias(third).items())
    assert len(rest) == 2
    assert all(torch.equal(value, third[name]) for later in rest for name, value in later.items())


@pytest.mark.parametrize(("device", "inside"), [("cpu", "highest"), ("cuda", "high")])
def test_a_gpu_multiplies_by_its_tensor_cores_in_training_alone(device: str, inside: str) -> None:
    with tensor_cores(torch.device(device)):
        assert torch.get_float32_matmul_precision() == inside
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("clip_grad", [0.0, 1.0])
def test_a_step_asks_its_device_for_nothing(data: Path, clip_grad: float) -> None:
    fit = make_fit(data, clip_grad=clip_grad, **{**RANDOM, "label_smoothing": 0.1})
    parts = [next(fit.batches(1)) for _ in range(2)]
    fit.take_step(parts)
    with Asked() as asked:
        for _ in range(3):
            fit.unread.append(fit.take_step(parts))
    assert asked.times == 0
    with Asked() as asked:
        assert len(fit.read_figures(0.0, 0.0)) == 3
        float(torch.ones(()))
    assert asked.times == 1


@pytest.mark.parametrize("meeting", [1, 4])
def test_figures_are_those_of_each_step_whenever_they_are_read(data: Path, meeting: int) -> None:
    each, some = make_fit(data), make_fit(data)
    some.meeting, found = meeting, list[dict[str, float]]()

    def after(figures: list[dict[str, float]]) -> bool:
        found.extend(figures)
        some.meeting = some.step + meeting
        return False

    some.run(after=after)
    assert [(one["loss"], one["score"], one["lr"]) for one in found] == [
        (one["loss"], one["score"], one["lr"]) for one in go(each, 6)
    ]
    assert all(0 <= one["waited"] <= one["seconds"] for one in found)


def test_a_users_augmentation_comes_last(data: Path) -> None:
    fit = make_fit(data)
    fit.epochs.changes = replace(fit.epochs.changes, user=torch.zeros_like)
    clips, _ = next(fit.batches(1))
    assert clips.dtype == torch.uint8
    assert clips.abs().max() == 0
