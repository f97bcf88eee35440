"""Pre-training on made-up worlds, from the settings to weights that a training starts from."""

import math
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tubelet.data.prefetch import prefetch, processors
from tubelet.nn import SpaceTimeTransformer, create_model
from tubelet.nn.create import parse
from tubelet.predict.precision import has_bfloat16
from tubelet.pretrain.config import PretrainConfig
from tubelet.pretrain.crates import FRAMES, GRIDS, SURFACES, WORLDS, Crate, draw_textures, make_crate
from tubelet.pretrain.motion import EXPLAINED, WEIGHTS, MotionHead, know_nothing, measure
from tubelet.runs.checkpoint import Checkpoint, Tensors
from tubelet.runs.lock import hold
from tubelet.runs.run import CARD, MODEL, Run, holds_others, list_changes
from tubelet.system.console import bar, clock, say
from tubelet.system.device import find_device
from tubelet.system.exits import Stopped
from tubelet.system.signals import signals
from tubelet.weights.store import PRETRAINING, save

AGAIN = 4  # times that each crate is learned from, every time otherwise
APART = 8  # crates between
HELD_OUT = 8  # crates, of other surfaces
LOOKS = 20  # at these
WARMUP = 0.03  # of the steps
WEIGHT_DECAY = 0.05
MOST_GRADIENT = 1.0


class PretrainingRun(Run):
    """The folder of a pre-training: config.json, metrics.jsonl, checkpoints/ until the end, model.safetensors, and
    README.md, the card, written last."""

    needs = frozenset({"pretrain", "model"})


def pretrain(config: PretrainConfig, *, show: bool = True) -> PretrainingRun:
    """Learns from made-up worlds and writes the weights, float16. The same settings give the same weights, on the same
    machine, however often it was stopped meanwhile.

    Raises:
        ValueError: settings that cannot work, or a folder that holds something else.
        Stopped: on a signal, after a checkpoint.
    """
    device = find_device(config.device)
    h, w = GRIDS[2]
    _, _, patch = parse(config.model)
    torch.manual_seed(config.seed)
    clip = patch[0] * round(FRAMES / patch[0]), h * patch[1], w * patch[2]
    model = create_model(config.model, clip=clip, embed=config.embed, num_classes=1, std=(0.25,) * 3)
    learner = Learner(config, model.to(device), MotionHead(model).to(device), device)
    run = open_run(config, model)
    with hold(run.path):
        checkpoint, notes = run.newest_checkpoint()
        if checkpoint:
            learner.resume(checkpoint)
            notes.append(f"from step {learner.step} of {config.steps}")
        run.forget_metrics_after(learner.step)
        for note in notes if show else ():
            say("going on", note)
        if learner.step < config.steps and not run.finished:
            learner.learn(run, show=show)
        if not run.finished:
            finish(learner, run)
        if show:
            say("weights", run.path / MODEL)
            say("next", f"tubelet train DIR --init {run.path}")
    return run


def open_run(config: PretrainConfig, model: SpaceTimeTransformer) -> PretrainingRun:
    """The folder, begun, or as it was left. Raises ValueError where it was begun otherwise or holds something else."""
    run = PretrainingRun(config.out)
    said = {
        name: value for name, value in vars(config).items() if name not in ("out", "device", "workers", "save_minutes")
    }
    if run.config_file.is_file():
        if changed := list_changes(run.config["pretrain"], said):
            raise ValueError(f"{run.path} was begun otherwise ({changed}): choose another --out")
    elif holds_others(run.path):
        raise ValueError(f"{run.path} holds something that is no pre-training: choose another --out")
    else:
        run.path.mkdir(parents=True, exist_ok=True)
        run.begin({"pretrain": said, "model": model.config.to_json()})
    return run


def choose_crate(step: int) -> int:
    """The number of the crate that a step learns from: a new one, then ones from before."""
    newest, again = divmod(step, AGAIN)
    return newest - again * APART if newest >= again * APART else newest


def count_crates(steps: int) -> int:
    """Crates that so many steps learn from."""
    return math.ceil(steps / AGAIN)


def find_first(step: int) -> int:
    """The first crate that is still needed from a step on."""
    return max(0, step // AGAIN - (AGAIN - 1) * APART)


@dataclass
class Learner:
    """A model, what asks it, and their optimizer. Every draw is a function of the seed and the step."""

    config: PretrainConfig
    model: SpaceTimeTransformer
    head: MotionHead
    device: torch.device
    step: int = 0
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        named = [*self.model.named_parameters(), *self.head.named_parameters()]
        groups = [
            [p for name, p in named if (p.ndim > 1 and "tables" not in name) == decays] for decays in (True, False)
        ]
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "weight_decay": WEIGHT_DECAY * decays} for group, decays in zip(groups, (1, 0))],
            fused=True,
        )
        self.bfloat16 = has_bfloat16(self.device)[0]

    def learn(self, run: Run, *, show: bool) -> None:
        """The rest of the steps, with a bar, looks at worlds that are never learned from, and checkpoints."""
        config = self.config
        with bar("surfaces", 2 * SURFACES, show=show) as progress:
            mine, others = (draw_textures(seed, after=progress.advance) for seed in (config.seed, config.seed + 1))
        held = list(self.crates(range(HELD_OUT), seed=config.seed + 1, textures=others))
        first, made = self.step, find_first(self.step)
        crates = self.crates(range(made, count_crates(config.steps)), seed=config.seed, textures=mine)
        begun = saved = time.monotonic()
        recent, look = list[dict[str, float]](), ""
        with signals(show=show) as caught, bar("pre-training", config.steps, show=show) as progress, closing(crates):
            progress.done = self.step
            waiting: dict[int, Crate] = {}
            while self.step < config.steps:
                number = choose_crate(self.step)
                while made <= number:
                    waiting[made], made = next(crates), made + 1
                recent.append(self.take_step(waiting[number]))
                loss = means(recent)["loss"]
                waiting = {one: crate for one, crate in waiting.items() if one >= find_first(self.step)}
                if self.step * LOOKS // config.steps > (self.step - 1) * LOOKS // config.steps:
                    shares = self.look(held)
                    run.log({"kind": "train", "step": self.step, **means(recent)})
                    run.log({"kind": "val", "step": self.step, **shares})
                    look, recent = " ".join(f"{name} {100 * share:.0f}%" for name, share in shares.items()), []
                left = (time.monotonic() - begun) / (self.step - first) * (config.steps - self.step)
                progress.advance(f"loss {loss:.2f} explained of new worlds: {look or '?'} left {clock(left)}")
                due = time.monotonic() - saved > 60 * config.save_minutes
                if caught or due or self.step == config.steps:
                    missed = run.try_checkpoint(self.step, *self.tensors(), last=bool(caught))
                    if missed and show:
                        say("warning", missed)
                    saved = time.monotonic()
                if caught:
                    raise Stopped(run.path, caught[0])

    def crates(self, which: Iterable[int], *, seed: int, textures: np.ndarray) -> Generator[Crate, None, None]:
        threads = self.config.workers or processors()
        patch = self.model.embed.patch

        def make(number: int) -> Crate:
            return make_crate(number, seed=seed, textures=textures, patch=patch)

        return prefetch(make, which, threads=threads, ahead=2 * threads)

    def take_step(self, crate: Crate) -> dict[str, float]:
        config = self.config
        rate = config.lr * min(1.0, (self.step + 1) / (WARMUP * config.steps))
        rate *= 0.5 * (1 + math.cos(math.pi * self.step / config.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        losses = self.ask(crate.vary(np.random.default_rng([config.seed, self.step, *b"vary"])))
        total = torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
        total.backward()
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        norm = nn.utils.clip_grad_norm_(weights, MOST_GRADIENT).item()
        if not math.isfinite(norm):
            raise ValueError(
                f"step {self.step}: the loss is {total.item():.4g} and its gradient {norm:.4g}, no weights were "
                f"changed by it: use a lower --lr than {config.lr:g}, with another --out"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return {"loss": total.item(), **{name: loss.item() for name, loss in losses.items()}}

    def ask(self, crate: Crate) -> dict[str, Tensor]:
        """The losses of the model's answers, by name."""
        crate = Crate(*(value.to(self.device) for value in vars(crate).values()))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            cells, whole = self.head(self.model, crate.clips)
        return measure(crate, cells.float(), whole.float())

    @torch.no_grad()
    def look(self, held: list[Crate]) -> dict[str, float]:
        """The shares of what moves in new worlds that the answers explain: 0 is that of one who says that nothing does,
        and that all bodies move alike; 1 is all."""
        self.model.eval()
        ours = [self.ask(crate) for crate in held]
        without = [measure(crate, *know_nothing(crate)) for crate in held]

        def total(losses: list[dict[str, Tensor]], name: str) -> float:
            return sum(float(one[name]) for one in losses)

        return {name: 1 - total(ours, name) / total(without, name) for name in EXPLAINED}

    def tensors(self) -> tuple[Tensors, dict[str, Any]]:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"head.{name}": value for name, value in self.head.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
        found = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        return found, {"steps": self.config.steps}

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
    looks = [record for record in run.metrics() if record["kind"] == "val"]
    known = {name: looks[-1][name] for name in EXPLAINED}
    worlds = WORLDS * count_crates(learner.config.steps)
    about = {**run.config["pretrain"], "worlds": worlds, "explained": known}
    save(learner.model.half(), run.path / MODEL, about={PRETRAINING: about})
    run.write_text(CARD, write_card(about))
    run.remove_checkpoints()


def write_card(about: dict[str, Any]) -> str:
    known = about["explained"]
    command = " ".join(f"--{name} {about[name]}" for name in ("model", "embed", "steps", "seed"))
    return f"""# Weights that know motion

Made by `tubelet pretrain {command} --lr {about["lr"]:g}`
from {about["worlds"]:,} made-up worlds, each {AGAIN} times: surfaces, bodies with joints and things before a
moving camera, drawn at random (`tubelet.synthetic.worlds`). No real picture, no video and no label of anybody was
used, so there is no licence but tubelet's own, Apache-2.0.

Explained in new worlds, where 0 % or less is no better than the answer that nothing moves, and that all bodies move
alike:

- {known["flow"]:.0%} of where each part goes
- {known["way"]:.0%} of how a camera or a thing moves
- {known["body"]:.0%} of how the joints of a body move

They were never shown: the demo's scenes, lamps and motions (a camera that does one thing alone), the scenes, objects
and acts of the untrimmed set (things that turn, or come back), people, rooms, or any class to tell apart.
"""
