"""The training loop."""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tubelet.data.dataset import Clips
from tubelet.data.epochs import Epochs, balanced_order, shuffled_order
from tubelet.data.prefetch import prefetch
from tubelet.data.problems import some
from tubelet.nn.compile import compile_blocks
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.split import Rest
from tubelet.runs.run import Run, Tensors
from tubelet.system.console import say
from tubelet.system.device import hand_over, tensor_cores
from tubelet.system.errors import EnvironmentTrouble
from tubelet.system.team import Team
from tubelet.system.text import plural
from tubelet.tasks import Task
from tubelet.train.config import TrainConfig
from tubelet.train.feature_cache import Features
from tubelet.train.optim import learning_rate, make_optimizer, step_if_finite
from tubelet.train.pace import Decision, Pace
from tubelet.train.plan import Plan

Part = tuple[Tensor, Tensor]  # clips and targets that a process learns from at once
Unread = tuple[Tensor, float]  # loss, score and norm of the gradient (3,) on the device, and the learning rate
AHEAD = 4  # batches that are prepared while one is learned from


@dataclass
class Best:
    """The weights of the best look at validation clips: its step, its figures, the weights by name, on the CPU, and how
    many looks were no better since."""

    step: int
    score: float
    loss: float
    weights: Tensors
    worse_looks: int = 0


@dataclass
class Fit:
    """A model in training on one process of a team: its wrapped form, optimizer, averaged weights and the step.

    With a frozen encoder the model is the rest of it, and the clips are features.

    Every random draw is a function of (seed, step) or of (seed, position in the epochs), never of a state:
    a run that was stopped goes on bit for bit, and the clips do not depend on how many processes share the work.

    A step asks nothing of its device and, but for the gradients, of the other processes: figures wait to be read until
    the next meeting. Where a gradient is not finite, or a process has no clips, no step after it changes a weight.
    """

    plan: Plan
    model: SpaceTimeTransformer | Rest
    clips: Clips | Features
    team: Team
    pace: Pace
    single_frame: bool = False
    step: int = 0
    saved_step: int | None = field(init=False, default=None)  # of the last checkpoint
    wrapped: nn.Module = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)
    part: int = field(init=False)
    epochs: Epochs = field(init=False)
    average: Tensors | None = field(init=False, default=None)
    best: Best | None = field(init=False, default=None)
    meeting: int = field(init=False, default=0)  # the step after which the processes agree on how to go on
    unread: list[Unread] = field(init=False, default_factory=list)
    halted: Tensor = field(init=False)  # 1 once a gradient was not finite, else 0
    parts: list[Part] = field(init=False, default_factory=list)  # of the last step
    failure: Exception | None = field(init=False, default=None)  # that keeps this process from its clips

    def __post_init__(self) -> None:
        config, team = self.plan.config, self.team
        self.part = part_of_batch(config, team.size)
        self.model.to(team.device)
        if self.plan.compiled:
            compile_blocks(self.model, tell=lambda words: say("compile", words) if team.first else None)
        # before the optimizer: sharding replaces the parameters
        self.wrapped = wrap(self.model, team, config.shard, bfloat16=self.plan.bfloat16)
        self.optimizer = make_optimizer(self.model, weight_decay=config.weight_decay, layer_decay=self.plan.layer_decay)
        self.halted = torch.zeros((), device=team.device)
        order, single = balanced_order if config.balance else shuffled_order, self.single_frame
        self.epochs = Epochs(
            self.clips, self.plan.changes, seed=config.seed, order=order, single_frame=single, device=team.device
        )
        if config.ema:
            self.average = {name: value.detach().clone() for name, value in self.model.named_parameters()}

    @property
    def task(self) -> Task:
        return self.plan.data.source.task

    def run(self, *, after: Callable[[list[dict[str, float]]], bool], due: Callable[[], bool] = lambda: False) -> None:
        """Steps until the last. At each meeting, at the last step, and where `due` says so, `after` gets the figures of
        the steps since, and stops the run by returning True."""
        batches, begun, waited = self.batches(self.pace.most_steps), time.perf_counter(), 0.0
        try:
            while self.step < self.pace.steps:
                asked = time.perf_counter()
                parts = self.next_parts(batches)
                waited += time.perf_counter() - asked
                with tensor_cores(self.team.device):
                    self.unread.append(self.take_step(parts))
                self.step += 1
                if self.step < min(self.meeting, self.pace.steps) and not due():
                    continue
                if after(self.read_figures(begun, waited)):
                    return
                begun, waited = time.perf_counter(), 0.0
        finally:
            batches.close()

    def next_parts(self, batches: Iterator[Part]) -> list[Part]:
        """The parts of the next step. Where there are none, the others would wait for this process for ever: it goes on
        with the last ones, of which nothing is learned, until all read figures."""

        def take() -> list[Part]:
            return [next(batches) for _ in range(self.plan.config.accumulate)]

        if self.team.size == 1 or not self.parts:
            self.parts = self.team.run_together(take)
        elif not self.failure:
            try:
                self.parts = take()
            except Exception as failure:
                self.failure = failure
        return self.parts

    def read_figures(self, begun: float, waited: float) -> list[dict[str, float]]:
        """The figures of the steps since they were last read: loss, score, lr, and their share of the seconds since
        `begun` and of those `waited` for clips meanwhile.

        Raises: ValueError, in the first process that it is true of (Elsewhere in the others): there are no clips, or a
            gradient was not finite.
        """
        asked = time.perf_counter()
        values = torch.stack([values for values, _ in self.unread]).tolist()
        now, count, first = time.perf_counter(), len(values), self.step - len(values)
        seconds, waited = (now - begun) / count, max(0.0, waited - (now - asked)) / count  # the device was at work
        rates, self.unread = [rate for _, rate in self.unread], []
        for step, (loss, _, norm) in enumerate(values, first):
            if not math.isfinite(norm):  # in all processes, whose gradients are the same: none is left waiting
                self.give_up(step, loss, norm)
        return [
            {"loss": loss, "score": score, "lr": rate, "seconds": seconds, "waited": waited}
            for (loss, score, _), rate in zip(values, rates)
        ]

    def batches(self, until: int) -> Generator[Part, None, None]:
        config, team = self.plan.config, self.team
        firsts = (
            step * config.batch + (part * team.size + team.rank) * self.part
            for step in range(self.step, until)
            for part in range(config.accumulate)
        )
        return prefetch(self.batch, firsts, threads=self.plan.workers, ahead=AHEAD)

    def batch(self, first: int) -> Part:
        """Clips `first` and following: (B, C, T, H, W), targets (B, ...), or those of all their steps, (B * t, ...); on
        the device."""
        clips, labels = self.epochs.draw_batch(first, self.part)
        if (most := self.plan.config.stills) and not self.single_frame:
            seeds = ([self.plan.config.seed, first + number, *b"stills"] for number in range(self.part))
            draws = np.array([np.random.default_rng(seed).random(2) for seed in seeds])
            clips = mix_stills(clips, most * draws[:, 0], (draws[:, 1] * clips.shape[2]).astype(int))
        return clips, hand_over(self.task.targets(labels), self.team.device)

    def take_step(self, parts: list[Part]) -> Unread:
        """One optimizer step over the parts of this process's share of the batch."""
        config, device = self.plan.config, self.team.device
        torch.manual_seed(config.seed * 1_000_003 + self.step * 1_009 + self.team.rank)
        done, then = self.pace.progress(self.step), self.pace.progress(self.step + 1)
        rate = learning_rate(done, then, peak=self.plan.lr, warmup=config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.wrapped.train()
        loss_sum, score = torch.zeros((), device=device), torch.zeros((), device=device)
        # processes exchange gradients once a step, with its last part
        no_sync = self.wrapped.no_sync if isinstance(self.wrapped, nn.parallel.DistributedDataParallel) else nullcontext
        for i, (clips, targets) in enumerate(parts):
            with nullcontext() if i == len(parts) - 1 else no_sync():
                logits, loss = self.loss(clips, targets, part=i)
                (loss / len(parts) * (math.nan if self.failure else 1.0)).backward()
            loss_sum += loss.detach()
            score += self.task.score(logits.detach().float(), targets).mean()
        norm = gather_whole(nn.utils.clip_grad_norm_(self.wrapped.parameters(), config.clip_grad or math.inf))
        self.halted = step_if_finite(self.optimizer, norm, self.halted)
        self.update_average()
        return torch.stack([loss_sum / len(parts), score / len(parts), norm]), rate

    def give_up(self, step: int, loss: float, norm: float) -> None:
        """Raises, in all processes, the failure of the first that has one, else that the gradient is not finite."""
        failed = any(any(one) for one in self.team.gather_numbers([self.failure is not None]))
        self.team.run_together(self.raise_failure if failed else lambda: self.raise_not_finite(step, loss, norm))

    def raise_failure(self) -> None:
        if self.failure:
            raise self.failure

    def raise_not_finite(self, step: int, loss: float, norm: float) -> None:
        items, first = self.plan.data.items("train"), step * self.plan.config.batch
        names = dict.fromkeys(items[self.epochs.find_readable(first + i)].name for i in range(self.plan.config.batch))
        saved, anew = "none yet", ""
        if self.saved_step is not None:
            saved, anew = f"that of step {self.saved_step}", " with another --out"
        raise ValueError(
            f"step {step}: the loss is {loss:.4g} and its gradient {norm:.4g}, no weights were changed by it: "
            f"use a lower --lr than {self.plan.lr:g}, or --dtype float32{anew}\n"
            f"  the last checkpoint: {saved}\n"
            f"  the clips of this step: {some(names, most=8)}"
        )

    def loss(self, clips: Tensor, targets: Tensor, *, part: int) -> tuple[Tensor, Tensor]:
        """Clips (B, C, T, H, W), or codes, and targets (B, ...) -> logits (B, outputs), the mean loss; of each step of
        the clips where there are targets (B * t, ...) of these."""
        config, team, model, each_step = self.plan.config, self.team, self.model, len(targets) > len(clips)
        smoothing = self.task.smoothing if config.label_smoothing is None else config.label_smoothing
        targets = self.task.soften(targets, smoothing)
        if config.mixup:
            rng = np.random.default_rng([config.seed, self.step])
            shares = rng.beta(config.mixup, config.mixup, config.batch // 2)  # for the batch, however it is shared out
            first = (part * team.size + team.rank) * self.part // 2
            shares, steps = shares[first : first + self.part // 2], targets.unflatten(0, (len(clips), -1))
            clips, steps = mix_pairs(model.normalise(clips), steps, shares)
            targets = steps.flatten(0, 1)
        with self.autocast():
            logits = self.wrapped(clips, each_step=True).flatten(0, 1) if each_step else self.wrapped(clips)
        return logits, self.task.loss(logits.float(), targets)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.team.device.type, torch.bfloat16, enabled=self.plan.bfloat16)

    def update_average(self) -> None:
        if self.average is None:
            return
        # a short memory at first, so that the average leaves the random start behind
        decay = min(self.plan.config.ema, (self.step + 1) / (self.step + 10))
        values = [value.detach() for value in self.model.parameters()]
        torch._foreach_lerp_([*self.average.values()], values, 1 - decay)

    def tensors(self) -> tuple[Tensors, Tensors, dict[str, Any]]:
        """The tensors of a checkpoint by name, and of those that are spread over processes the rows that are here."""
        state_dict, _ = import_state_dict()
        tensors = {f"model.{name}": value for name, value in state_dict.get_model_state_dict(self.wrapped).items()}
        optimizer = state_dict.get_optimizer_state_dict(self.wrapped, self.optimizer)
        moments: dict[str, dict[str, Tensor]] = optimizer.get("state", {})
        tensors |= {f"optimizer.{name}.{key}": value for name, one in moments.items() for key, value in one.items()}
        tensors |= {f"average.{name}": value for name, value in (self.average or {}).items()}
        state: dict[str, Any] = {"steps": self.pace.steps, "decision": asdict(self.pace.decision)}
        if self.best:
            tensors |= {f"best.{name}": value for name, value in self.best.weights.items()}
            state["best"] = {name: value for name, value in vars(self.best).items() if name != "weights"}
        rows = {name: value.to_local() for name, value in tensors.items() if hasattr(value, "to_local")}
        whole = {name: value for name, value in tensors.items() if name not in rows}
        return in_memory(whole), in_memory(rows), state

    def save(self, run: Run, recent: list[dict[str, float]], *, last: bool = False) -> str:
        """A checkpoint, or what kept it from being written, in words; every process must call this. It must be written
        where it is the last; elsewhere training goes on with the one before, though not for ever.

        recent: figures of the steps since they were last logged."""
        tensors, rows, state = self.tensors()
        state["recent"] = recent
        parts: list[EnvironmentTrouble | None] = []
        if rows:
            parts = self.team.gather(self.team.run_together(lambda: run.try_part(self.step, self.team.rank, rows)))

        def write() -> str:
            return run.try_checkpoint(self.step, tensors, state, last=last, parts=parts) if self.team.first else ""

        missed = self.team.run_together(write)
        if not missed:
            self.saved_step = self.step
        return missed

    def resume(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        """Takes up what `tensors()` gave at a step."""
        model: dict[str, Any] = {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
        state_dict, options = import_state_dict()
        state_dict.set_model_state_dict(self.wrapped, model, options=options)
        moments: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                parameter, key = name[10:].rsplit(".", 1)
                moments.setdefault(parameter, {})[key] = value
        groups = state_dict.get_optimizer_state_dict(self.wrapped, self.optimizer)["param_groups"]  # in every process
        whole_state: dict[str, Any] = {"state": moments, "param_groups": groups}
        state_dict.set_optimizer_state_dict(self.wrapped, self.optimizer, whole_state, options=options)
        if self.average is not None:
            for name, value in self.average.items():
                copy_whole(value, tensors[f"average.{name}"])
        if "best" in state:
            weights = {name[5:]: value for name, value in tensors.items() if name.startswith("best.")}
            self.best = Best(**rename_score(state["best"], "accuracy"), weights=weights)
        begun = Decision(0, 0.0, state["steps"], 0.0)  # of a run of 0.1.0, which decided once
        self.pace.resume(Decision(**state["decision"]) if "decision" in state else begun)
        self.step = self.saved_step = step

    def final_weights(self) -> Tensors:
        """The weights as they are now: the average where there is one. Every process must call this."""
        if self.average is not None:
            return {name: gather_whole(value).cpu() for name, value in self.average.items()}
        return whole_weights(self.wrapped)


def rename_score(figures: dict[str, Any], old: str) -> dict[str, Any]:
    """Figures of a checkpoint of 0.1.0, which had the score under an old name, as they are named today."""
    return {"score" if name == old else name: value for name, value in figures.items()}


def mix_pairs(clips: Tensor, targets: Tensor, shares: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mixup within neighbouring pairs of the batch, (B, ...), (B, outputs) -> same; shares (B / 2,) in [0, 1]: what
    the two clips of each pair keep of themselves.

    Pairs, unlike a shuffled batch, stay together however a batch is spread over processes and parts, so the result
    does not depend on that. Source: arXiv 1710.09412.
    """
    kept = hand_over(torch.from_numpy(shares.astype(np.float32)).repeat_interleave(2), clips.device)

    def mix(x: Tensor) -> Tensor:
        own = kept.view(-1, *[1] * (x.ndim - 1))
        return own * x + (1 - own) * swap_pairs(x)

    return mix(clips), mix(targets)


def mix_stills(clips: Tensor, shares: np.ndarray, frames: np.ndarray) -> Tensor:
    """Clips (B, C, T, H, W), each mixed with a still frame of its neighbour in the batch: `shares` (B,) of it, in
    [0, 1], of its frame number `frames` (B,). What moves, and the label, stay.

    Source: arXiv 2009.05769, which mixes in frames of the same video.
    """
    place, share = (hand_over(torch.from_numpy(some), clips.device) for some in (frames, shares.astype(np.float32)))
    stills = swap_pairs(clips)[torch.arange(len(clips), device=clips.device), :, place].unsqueeze(2)
    mixed = torch.lerp(clips.float(), stills.float(), share.view(-1, 1, 1, 1, 1))
    return (mixed if clips.is_floating_point() else mixed.round_()).to(clips.dtype)


def swap_pairs(x: Tensor) -> Tensor:
    """(B, ...) -> same: each in the place of its neighbour, the first and the second, the third and the fourth, ..."""
    return x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def part_of_batch(config: TrainConfig, team_size: int) -> int:
    """Clips that a process learns from at once.

    Raises:
        ValueError: the batch cannot be shared out, or pairs to be mixed would be torn.
    """
    share, rest = divmod(config.batch, team_size * config.accumulate)
    parts = f"{plural(team_size, 'process')} in {plural(config.accumulate, 'part')} each"
    what = f"a batch of {plural(config.batch, 'clip')} for {parts}"
    if rest:
        raise ValueError(f"{what} cannot be shared out: choose a multiple of {team_size * config.accumulate}")
    if (config.mixup or config.stills) and share % 2:
        raise ValueError(
            f"{what}: mixup and stills mix pairs, choose a multiple of {2 * team_size * config.accumulate}"
        )
    return share


def wrap(model: SpaceTimeTransformer | Rest, team: Team, shard: str, *, bfloat16: bool = False) -> nn.Module:
    """The model as its team trains it: as it is, with gradients averaged (DDP), or spread over the team (FSDP2).

    bfloat16: where products are in it, so is what the team exchanges of spread weights; gradients are added in float32.
    """
    if shard == "fsdp2":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        halved = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        settings: dict[str, Any] = {"mesh": init_device_mesh(team.device.type, (team.size,))}
        settings |= {"mp_policy": halved} if bfloat16 else {}
        for layer in [layer for encoder in model.stack for layer in encoder.layers]:
            fully_shard(layer, **settings)
        fully_shard(model, **settings)
        return model
    if team.size > 1:
        return nn.parallel.DistributedDataParallel(
            model,
            device_ids=[team.device] if team.device.type == "cuda" else None,
            find_unused_parameters=isinstance(model, SpaceTimeTransformer) and not model.embed.all_used,
        )
    return model


def whole_weights(model: nn.Module) -> Tensors:
    state_dict, whole_state = import_state_dict()
    return state_dict.get_model_state_dict(model, options=whole_state)


def in_memory(tensors: Tensors) -> Tensors:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def import_state_dict() -> tuple[Any, Any]:
    """Torch's module that reads and sets what may be spread over processes, and the options that give it whole; not at
    the start, for it takes two thirds of a second to import."""
    from torch.distributed.checkpoint import state_dict

    return state_dict, state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)


def gather_whole(value: Tensor) -> Tensor:
    """A tensor of which each process may hold a part, as a whole."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def copy_whole(value: Tensor, source: Tensor) -> None:
    """Fills a tensor of which each process may hold a part."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(value, DTensor):
        source = distribute_tensor(source.to(value.device), value.device_mesh, value.placements)
    value.copy_(source)
