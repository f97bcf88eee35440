"""Pre-training, from the settings to weights that a training starts from."""

import math
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tubelet.nn import SpaceTimeTransformer
from tubelet.nn.create import format_name
from tubelet.predict.precision import has_bfloat16
from tubelet.pretrain import own_clips, worlds
from tubelet.pretrain.config import PretrainConfig
from tubelet.pretrain.lesson import Lesson
from tubelet.runs.checkpoint import Checkpoint, Tensors
from tubelet.runs.lock import hold
from tubelet.runs.run import CARD, MODEL, Run, holds_others, list_changes
from tubelet.system.console import bar, clock, say
from tubelet.system.device import find_device
from tubelet.system.exits import Stopped
from tubelet.system.signals import signals
from tubelet.train.optim import step_if_finite
from tubelet.train.pace import MEET_SECONDS
from tubelet.weights.store import PRETRAINING, save
from tubelet.weights.terms import write_terms

LOOKS = 20  # at batches that are never learned from
WARMUP = 0.03  # of the steps
WEIGHT_DECAY = 0.05
MOST_GRADIENT = 1.0
MAY_CHANGE = ("out", "device", "workers", "save_minutes", "task", "labels", "val_share")


class PretrainingRun(Run):
    """The folder of a pre-training: config.json, metrics.jsonl, checkpoints/ until the end, model.safetensors, and
    README.md, the card, written last."""

    needs = frozenset({"pretrain", "model"})


def pretrain(config: PretrainConfig, *, show: bool = True) -> PretrainingRun:
    """Learns from made-up worlds, or from clips without labels, and writes the weights, float16. The same settings give
    the same weights, on the same machine, however often it was stopped meanwhile.

    Raises:
        ValueError: settings or clips that cannot work, or a folder that holds something else.
        Stopped: on a signal, after a checkpoint.
    """
    device = find_device(config.device)
    model, lesson, notes = prepare(config, device, show=show)
    learner = Learner(config, model.to(device), lesson, device)
    run = open_run(config, model, lesson)
    with hold(run.path):
        checkpoint, found = run.newest_checkpoint()
        if checkpoint:
            learner.resume(checkpoint)
            found.append(f"from step {learner.step} of {config.count}")
        run.forget_metrics_after(learner.step)
        for kind, lines in (("note", notes), ("going on", found)) if show else ():
            for line in lines:
                say(kind, line)
        if learner.step < config.count and not run.finished:
            learner.learn(run, show=show)
        if not run.finished:
            finish(learner, run)
        if show:
            say("weights", run.path / MODEL)
            say("next", f"tubelet train DIR --init {run.path}")
    return run


def prepare(
    config: PretrainConfig, device: torch.device, *, show: bool
) -> tuple[SpaceTimeTransformer, Lesson[Any], list[str]]:
    """The model, its lesson, and notes."""
    if config.data:
        return own_clips.prepare(config, device, show=show)
    model = worlds.make_model(config)
    return model, worlds.Worlds(config, model), []


def open_run(config: PretrainConfig, model: SpaceTimeTransformer, lesson: Lesson[Any]) -> PretrainingRun:
    """The folder, begun, or as it was left. Raises ValueError where it was begun otherwise or holds something else."""
    run = PretrainingRun(config.out)
    said = {name: value for name, value in vars(config).items() if name not in MAY_CHANGE}
    said |= {"data": [*map(str, config.data)], "size": config.size and [*config.size], "steps": config.count}
    said |= {"model": format_name(model.config), "embed": model.config.embed.kind, **lesson.begun_with()}
    if run.config_file.is_file():
        if changed := list_changes(run.config["pretrain"], said):
            raise ValueError(f"{run.path} was begun otherwise ({changed}): choose another --out")
    elif holds_others(run.path):
        raise ValueError(f"{run.path} holds something that is no pre-training: choose another --out")
    else:
        run.path.mkdir(parents=True, exist_ok=True)
        run.begin({"pretrain": said, "model": model.config.to_json()})
    return run


@dataclass
class Learner:
    """A model, a lesson that asks it, and their optimizer. Every draw is a function of the seed and the step."""

    config: PretrainConfig
    model: SpaceTimeTransformer
    lesson: Lesson[Any]
    device: torch.device
    step: int = 0
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        self.head = self.lesson.head.to(self.device)
        named = [*self.model.named_parameters(), *self.head.named_parameters()]
        groups = [
            [p for name, p in named if (p.ndim > 1 and "tables" not in name) == decays] for decays in (True, False)
        ]
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "weight_decay": WEIGHT_DECAY * decays} for group, decays in zip(groups, (1, 0))],
            fused=True,
        )
        self.bfloat16 = has_bfloat16(self.device)[0]
        self.halted, self.unread = torch.zeros((), device=self.device), list[dict[str, Tensor]]()

    def learn(self, run: Run, *, show: bool) -> None:
        """The rest of the steps, with a bar, looks at what is never learned from, and checkpoints."""
        lesson, steps, first = self.lesson, self.config.count, self.step
        held, batches = lesson.open(show=show), lesson.batches(self.step, steps)
        if show:
            say("explained", f"0 % is the answer that says {lesson.know_little}; 100 % is all")
        begun = saved = asked = time.monotonic()
        recent, look = list[dict[str, float]](), ""
        with signals(show=show) as caught, bar("pre-training", steps, show=show) as progress, closing(batches):
            progress.done = self.step
            while self.step < steps:
                self.unread.append(self.take_step(next(batches)))
                due = time.monotonic() - saved > 60 * self.config.save_minutes or self.step == steps
                look_due = self.step * LOOKS // steps > (self.step - 1) * LOOKS // steps
                if not (caught or due or look_due) and time.monotonic() - asked < MEET_SECONDS:
                    continue
                count = len(self.unread)
                recent, asked = recent + self.read_losses(), time.monotonic()
                loss = means(recent)["loss"]
                if look_due:
                    shares = self.look(held)
                    run.log({"kind": "train", "step": self.step, **means(recent)})
                    run.log({"kind": "val", "step": self.step, **shares})
                    look, recent = " ".join(f"{name} {100 * share:.0f}%" for name, share in shares.items()), []
                left = (time.monotonic() - begun) / (self.step - first) * (steps - self.step)
                progress.advance(f"loss {loss:.2f} explained of others: {look or '?'} left {clock(left)}", by=count)
                if caught or due:
                    missed = run.try_checkpoint(self.step, *self.tensors(), last=bool(caught))
                    if missed and show:
                        say("warning", missed)
                    saved = time.monotonic()
                if caught:
                    raise Stopped(run.path, caught[0])

    def take_step(self, batch: Any) -> dict[str, Tensor]:
        """One step of the optimizer; the losses, their weighted sum, and the norm of the gradient, on the device, which
        nothing is asked of. After a gradient that is not finite no step changes a weight."""
        config, steps = self.config, self.config.count
        rate = config.lr * min(1.0, (self.step + 1) / (WARMUP * steps))
        rate *= 0.5 * (1 + math.cos(math.pi * self.step / steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        losses = self.ask(batch)
        total = torch.stack([self.lesson.weights[name] * loss for name, loss in losses.items()]).sum()
        total.backward()
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        norm = nn.utils.clip_grad_norm_(weights, MOST_GRADIENT)
        self.halted = step_if_finite(self.optimizer, norm, self.halted)
        self.step += 1
        return {"loss": total.detach(), **{name: loss.detach() for name, loss in losses.items()}, "norm": norm}

    def read_losses(self) -> list[dict[str, float]]:
        """The losses of the steps since they were last read. Raises ValueError where a gradient was not finite."""
        names, values = self.unread[0].keys(), torch.stack([torch.stack([*one.values()]) for one in self.unread])
        found = [dict(zip(names, row)) for row in values.tolist()]
        self.unread = []
        for step, one in enumerate(found, self.step - len(found)):
            norm = one.pop("norm")
            if not math.isfinite(norm):
                raise ValueError(
                    f"step {step}: the loss is {one['loss']:.4g} and its gradient {norm:.4g}, no weights were changed "
                    f"by it: use a lower --lr than {self.config.lr:g}, with another --out"
                )
        return found

    def ask(self, batch: Any) -> dict[str, Tensor]:
        """The losses of the model's answers, by name."""
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            answers = self.lesson.answer(self.model, batch)
        return self.lesson.measure(batch, *(answer.float() for answer in answers))

    @torch.no_grad()
    def look(self, held: list[Any]) -> dict[str, float]:
        """The shares that the answers explain of what was never learned from: 0 is that of one who knows nothing."""
        self.model.eval()
        ours = [self.ask(batch) for batch in held]
        without = [self.lesson.measure(batch, *self.lesson.know_nothing(batch)) for batch in held]

        def total(losses: list[dict[str, Tensor]], name: str) -> float:
            return sum(float(one[name]) for one in losses)

        return {name: 1 - total(ours, name) / total(without, name) for name in self.lesson.explained}

    def tensors(self) -> tuple[Tensors, dict[str, Any]]:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"head.{name}": value for name, value in self.head.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
        found = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        return found, {"steps": self.config.count}

    def resume(self, checkpoint: Checkpoint) -> None:
        def part(prefix: str) -> Tensors:
            return {
                name.removeprefix(prefix): value
                for name, value in checkpoint.tensors.items()
                if name.startswith(prefix)
            }

        self.model.load_state_dict(part("model."))
        self.head.load_state_dict(part("head."))
        moments: dict[int, dict[str, Any]] = {}
        for name, value in part("optimizer.").items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.step = checkpoint.step


def means(recent: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([figures[name] for figures in recent])) for name in recent[0]}


def finish(learner: Learner, run: Run) -> None:
    """Writes the weights and their card; the checkpoints are no longer needed."""
    lesson, looks = learner.lesson, [record for record in run.metrics() if record["kind"] == "val"]
    known = {name: looks[-1][name] for name in lesson.explained}
    about = {**run.config["pretrain"], **lesson.about(), "explained": known}
    save(learner.model.half(), run.path / MODEL, about={PRETRAINING: about} | write_terms(lesson.terms))
    run.write_text(CARD, lesson.write_card(about))
    run.remove_checkpoints()
