"""How faithful explanations are, on clips whose truth is known, beside other ways to explain.

python benchmarks/explain.py FOLDER

Rendered clips in which one object of several does something for a part of the time: which one, where and when is known,
and the class is what it does. The test has scenes and objects that training never saw. A second set, the shortcut: a
tinted patch of the background tells the class, as long as an object does anything, whatever it is; a faithful map must
point at the patch. How much the answers of each model rest on object and patch is measured too, by hiding them.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import load_views
from tubelet.data.table import Item, read_table, write_table
from tubelet.media.writer import write_video
from tubelet.nn.grid import Grid
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.relevance.explain import answer, explain
from tubelet.relevance.hide import HOWS, hide, smooth
from tubelet.synthetic.films import OBJECTS, Act, Film, act_masks, render_film
from tubelet.synthetic.objects import CLASSES, CYCLES_PER_SECOND, HOMES, draw_object
from tubelet.synthetic.scenes import FRAMES_PER_SECOND, draw_scene
from tubelet.weights.store import load, read_about

SECONDS, ACT_SECONDS = 3.2, (1.2, 1.8)
CLIPS = {"train": 400, "test": 40}  # of each class
FRAMES, SIZE = 32, (72, 96)
PART = 8  # clips that are looked at together
SHARES = (0.05, 0.1, 0.2, 0.4)  # of the tubelets, that are left or taken away
JUDGED = 60  # clips that are answered right

Way = Callable[[SpaceTimeTransformer, Tensor, Tensor], Tensor]


def draw_clip(split: str, number: int, *, betrayed: bool) -> Film:
    """A short film in which one object of several does one thing: that of its class, or, where a patch betrays the
    class, any."""
    seeds = (7, ("train", "val", "test").index(split), number)
    rng = np.random.default_rng(seeds)
    frames = round(SECONDS * FRAMES_PER_SECOND)
    label, count = CLASSES[number % len(CLASSES)], int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    length = round(rng.uniform(*ACT_SECONDS) * FRAMES_PER_SECOND)
    start, actor = int(rng.integers(frames - length + 1)), int(rng.integers(count))
    speeds = np.zeros((count, len(CLASSES), frames))
    speed = rng.uniform(*CYCLES_PER_SECOND) * rng.choice([-1, 1]) / FRAMES_PER_SECOND
    done = int(rng.integers(len(CLASSES))) if betrayed else CLASSES.index(label)
    speeds[actor, done, start : start + length] = speed
    objects = tuple(draw_object(home, one, split, rng) for home, one in zip(rng.permutation(HOMES), speeds))
    act = Act(start, start + length, label, actor, betrayed)
    return Film(f"{split}-{number:04d}", split, seeds, draw_scene(frames, split, rng), objects, (act,))


def render(folder: Path, *, shortcut: bool) -> Path:
    """Clips and a table of them, with where and when it is done beside each: masks (T, H, W) bool as .npz."""
    table, items = folder / "clips.csv", list[Item]()
    if table.is_file():
        return table
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in CLIPS.items():
        for number in range(count * len(CLASSES)):
            film = draw_clip(split, number, betrayed=shortcut)
            frames, seen = (np.concatenate(parts) for parts in zip(*render_film(film), strict=True))
            write_video(folder / f"{film.name}.mp4", frames, frames_per_second=FRAMES_PER_SECOND)
            if split == "test":
                (act,) = film.acts
                masks = {name: np.zeros(seen.shape, bool) for name in ("object", "patch")}
                for name, mask in act_masks(act, seen, 0).items():
                    masks[name][act.start : act.end] = mask
                np.savez_compressed(folder / f"{film.name}.npz", **masks)
            items.append(Item(f"{film.name}.mp4", film.acts[0].label, split=split, group=film.name))
    write_table(table, items)
    return table


def train(table: Path, out: Path, minutes: float) -> Path:
    """A run, trained as a user would."""
    if not (out / "results.json").is_file():
        size = ["--frames", str(FRAMES), "--size", *map(str, SIZE), "--seconds-between-frames", "0.1"]
        command = [sys.executable, "-m", "tubelet", "train", str(table), *size, "--minutes", str(minutes)]
        subprocess.run([*command, "--out", str(out)], check=True)
    print(json.dumps({"run": str(out), "accuracy": json.loads((out / "results.json").read_text())["accuracy"]}))
    return out


# What is told of a clip, (B, C, T, H, W) uint8 and the outputs asked about, (B,): relevance (B, t, h, w).


def gradient_times_input(model: SpaceTimeTransformer, clips: Tensor, targets: Tensor) -> Tensor:
    tokens, grid = model.embed_clip(clips)
    return (slopes(model, tokens, grid, targets) * tokens.detach()).sum(2).unflatten(1, tuple(grid))


def integrated_gradients(model: SpaceTimeTransformer, clips: Tensor, targets: Tensor) -> Tensor:
    """From the mean token of each clip. Source: arXiv 1703.01365."""
    tokens, grid = model.embed_clip(clips)
    base = tokens.detach().mean(1, keepdim=True)
    way, steps = tokens.detach() - base, 16
    total = sum(slopes(model, base + (i + 0.5) / steps * way, grid, targets) for i in range(steps))
    return (total / steps * way).sum(2).unflatten(1, tuple(grid))


def grad_cam(model: SpaceTimeTransformer, clips: Tensor, targets: Tensor) -> Tensor:
    """On the tokens before the last block. Source: arXiv 1610.02391."""
    (encoder,) = model.stack
    kept: dict[str, Tensor] = {}
    hook = encoder.blocks[-2].register_forward_hook(lambda module, given, made: kept.update(tokens=made))
    tokens, grid = model.embed_clip(clips)
    logits = answer(model, tokens.detach().requires_grad_(), grid)
    hook.remove()
    (slope,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), kept["tokens"])
    weighed = slope.mean(1, keepdim=True) * kept["tokens"].detach()
    return weighed[:, encoder.prefix_size :].sum(2).clamp(min=0).unflatten(1, tuple(grid))


def attention_weights(model: SpaceTimeTransformer, clips: Tensor) -> list[Tensor]:
    """The weights of each block, (B, P + N, P + N), the mean over its heads."""
    (encoder,), found = model.stack, list[Tensor]()

    def keep(module: Any, given: tuple[Tensor, ...], made: Tensor) -> None:
        q, k, _ = module.qkv(given[0]).unflatten(2, (3, module.heads, -1)).permute(2, 0, 3, 1, 4)
        found.append((q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(3).mean(1))

    hooks = [block.attns[0].register_forward_hook(keep) for block in encoder.blocks]
    with torch.no_grad():
        model(clips)
    for hook in hooks:
        hook.remove()
    return found


def raw_attention(model: SpaceTimeTransformer, clips: Tensor, targets: Tensor) -> Tensor:
    """What the class token looks at in the last block."""
    return attention_weights(model, clips)[-1][:, 0, 1:].unflatten(1, tuple(model.grid(clips.shape[2:])))


def rollout(model: SpaceTimeTransformer, clips: Tensor, targets: Tensor) -> Tensor:
    """The same through all blocks, half of each being what passes by. Source: arXiv 2005.00928."""
    through = None
    for weights in attention_weights(model, clips):
        step = (weights + torch.eye(weights.shape[1])) / 2
        through = step if through is None else step @ through
    assert through is not None
    return through[:, 0, 1:].unflatten(1, tuple(model.grid(clips.shape[2:])))


def occlusion(model: SpaceTimeTransformer, clips: Tensor, targets: Tensor) -> Tensor:
    """By how much the logit falls without each tubelet, frozen: a forward pass for each."""
    grid = model.grid(clips.shape[2:])
    relevance = torch.zeros(len(clips), *grid)
    with torch.no_grad():
        whole = model(clips).gather(1, targets[:, None])[:, 0]
        for t, h, w in np.ndindex(*grid):
            hidden = torch.zeros(len(clips), *grid, dtype=torch.bool)
            hidden[:, t, h, w] = True
            relevance[:, t, h, w] = whole - model(hide(clips, hidden, "frozen")).gather(1, targets[:, None])[:, 0]
    return relevance


def at_random(model: SpaceTimeTransformer, clips: Tensor, targets: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(int(clips.long().sum()) % 2**31)
    return torch.rand(len(clips), *model.grid(clips.shape[2:]), generator=generator)


def slopes(model: SpaceTimeTransformer, tokens: Tensor, grid: Grid, targets: Tensor) -> Tensor:
    tokens = tokens.detach().requires_grad_()
    (found,) = torch.autograd.grad(answer(model, tokens, grid).gather(1, targets[:, None]).sum(), tokens)
    return found


FIRST = "tubelet explain, smoothed"  # with which the others are compared
WAYS: dict[str, Way] = {
    FIRST: lambda *asked: smooth(explain(*asked)),
    "tubelet explain": explain,
    "integrated gradients, 16 steps": integrated_gradients,
    "gradient x input": gradient_times_input,
    "Grad-CAM on tokens": grad_cam,
    "raw attention": raw_attention,
    "attention rollout": rollout,
    "occlusion, frozen": occlusion,
    "at random": at_random,
}
SLOW, FEW = ("occlusion, frozen",), 12  # clips of ways that take a forward pass for each tubelet


def rest_on(model: SpaceTimeTransformer, clips: Tensor, targets: Tensor, truth: Tensor) -> list[float]:
    """The mean probability of the class, and that without the thing, frozen and blurred."""
    cells = F.adaptive_avg_pool3d(truth.float().unsqueeze(1), tuple(model.grid(clips.shape[2:])))[:, 0] > 0.05
    found = []
    with torch.no_grad():
        for shown in (clips, *(hide(clips, cells, how) for how in HOWS)):
            parts = zip(shown.split(PART), targets.split(PART), strict=True)
            found.append(torch.cat([model(a).softmax(1).gather(1, b[:, None]) for a, b in parts]).mean().item())
    return [round(one, 3) for one in found]


def load_test(folder: Path, run: Path, what: str) -> tuple[SpaceTimeTransformer, Tensor, Tensor, Tensor]:
    """The model; the test clips that it answers right, (B, C, T, H, W), their classes, and where `what` is seen in
    them while it is done, (B, T, H, W) bool."""
    about, model = read_about(run), load(run).eval()
    spec, names = ClipSpec.from_json(about["clip_spec"]), about["task"]["names"]
    clips, classes, truths = [], [], []
    items = read_table(folder / "clips.csv", root=folder).items
    for item in (item for item in items if item.split == "test"):
        clips.append(load_views(folder / item.path, spec).clips[0])
        classes.append(names.index(item.label))
        with np.load(folder / f"{Path(item.path).stem}.npz") as masks:
            frames = (np.arange(spec.frames) * spec.seconds_between_frames * FRAMES_PER_SECOND + 1e-6).astype(int)
            truths.append(torch.from_numpy(masks[what][frames.clip(max=len(masks[what]) - 1)]))
    found, wanted, seen = torch.stack(clips), torch.tensor(classes), torch.stack(truths)
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in found.split(PART)]) == wanted
    return model, found[right][:JUDGED], wanted[right][:JUDGED], seen[right][:JUDGED]


def in_parts(way: Way, model: SpaceTimeTransformer, clips: Tensor, targets: Tensor) -> Tensor:
    pairs = zip(clips.split(PART), targets.split(PART), strict=True)
    return torch.cat([way(model, *pair).detach() for pair in pairs])


def measure_places(relevance: Tensor, truth: Tensor) -> dict[str, np.ndarray]:
    """Each (B,). A cell counts where a twentieth of it is the thing, a step where it is done for half of it."""
    grid = tuple(relevance.shape[1:])
    cells = F.adaptive_avg_pool3d(truth.float().unsqueeze(1), grid)[:, 0] > 0.05
    steps = F.adaptive_avg_pool1d(truth.flatten(2).any(2).float().unsqueeze(1), grid[0])[:, 0] >= 0.5
    good = relevance.clamp(min=0)
    space, time = good.sum(1).flatten(1).argmax(1), good.sum((2, 3)).argmax(1)
    ranks = relevance.flatten(1).argsort(1, descending=True).argsort(1)
    many = cells.flatten(1).sum(1)
    found = {
        "space": cells.any(1).flatten(1).gather(1, space[:, None])[:, 0],
        "time": steps.gather(1, time[:, None])[:, 0],
        "mass": (good * cells).sum((1, 2, 3)) / good.sum((1, 2, 3)).clamp(min=1e-12),
        "rank": ((ranks < many[:, None]) & cells.flatten(1)).sum(1) / many.clamp(min=1),
    }
    return {name: value.double().numpy() for name, value in found.items()}


def measure_curves(
    model: SpaceTimeTransformer, clips: Tensor, targets: Tensor, relevance: Tensor, how: str
) -> np.ndarray:
    """Insertion minus deletion, (B,): by how much the probability with only the most relevant tubelets is above that
    without them, in the mean over how many these are."""
    grid = tuple(relevance.shape[1:])
    ranks = relevance.flatten(1).argsort(1, descending=True).argsort(1).unflatten(1, grid)

    def probability(hidden: Tensor) -> np.ndarray:
        parts = zip(clips.split(PART), hidden.split(PART), targets.split(PART), strict=True)
        with torch.no_grad():
            found = [model(hide(a, b, how)).softmax(1).gather(1, c[:, None])[:, 0] for a, b, c in parts]
        return torch.cat(found).double().numpy()

    counts = [round(share * ranks[0].numel()) for share in SHARES]
    gaps = [probability(ranks >= count) - probability(ranks < count) for count in counts]
    return np.trapezoid(gaps, SHARES, axis=0) / (SHARES[-1] - SHARES[0])


def compare(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """By how much ours is more in the mean, and the 95 % interval of that over clips, by the bootstrap."""
    gaps = ours - theirs
    draws = np.random.default_rng(0).integers(0, len(gaps), (2000, len(gaps)))
    return float(gaps.mean()), *np.quantile(gaps[draws].mean(1), [0.025, 0.975]).tolist()


def randomise(run: Path, clips: Tensor, targets: Tensor) -> dict[str, float]:
    """Spearman's correlation of the maps with those of the same model whose weights are random from the head down."""
    from scipy.stats import spearmanr

    model = load(run).eval()
    whole = in_parts(explain, model, clips, targets)
    torch.manual_seed(0)
    (encoder,), found = model.stack, dict[str, float]()
    layers = [("head", model.head), *((f"block {i}", encoder.blocks[i]) for i in reversed(range(len(encoder.blocks))))]
    for name, layer in layers:
        for part in layer.modules():
            if isinstance(part, torch.nn.Linear):
                torch.nn.init.trunc_normal_(part.weight, std=float(part.weight.std()))
        other = in_parts(explain, model, clips, targets)
        pairs = zip(whole.flatten(1).numpy(), other.flatten(1).numpy(), strict=True)
        found[name] = float(np.mean([spearmanr(*pair).statistic for pair in pairs]))
    return found


def measure_cost(model: SpaceTimeTransformer, clips: Tensor, targets: Tensor) -> dict[str, float]:
    """Of a map: forward passes as long, the median of interleaved runs, and what is kept for the backward pass, as a
    share of that of a training step."""
    seconds: dict[str, list[float]] = {"map": [], "forward": []}
    for _ in range(7):
        begun = time.perf_counter()
        explain(model, clips, targets)
        middle = time.perf_counter()
        with torch.no_grad():
            model(clips)
        seconds["map"].append(middle - begun)
        seconds["forward"].append(time.perf_counter() - middle)

    def kept(work: Callable[[], object]) -> int:
        sizes: dict[int, int] = {}

        def pack(value: Tensor) -> Tensor:
            sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            work()
        return sum(sizes.values())

    bytes_kept = kept(lambda: explain(model, clips, targets)), kept(lambda: F.cross_entropy(model(clips), targets))
    passes = float(np.median(seconds["map"]) / np.median(seconds["forward"]))
    return {"forward passes": round(passes, 2), "share of a step's memory": round(bytes_kept[0] / bytes_kept[1], 2)}


def judge(folder: Path, run: Path, what: str, *, curves: bool) -> None:
    model, clips, targets, truth = load_test(folder, run, what)
    rests = {f"without {thing}": rest_on(*load_test(folder, run, thing)) for thing in ("object", "patch")}
    print(json.dumps({"set": folder.name, "points at": what, "clips": len(clips), **rests}), flush=True)
    first: dict[str, np.ndarray] = {}
    for name, way in WAYS.items():
        few = slice(FEW if name in SLOW else None)
        relevance = in_parts(way, model, clips[few], targets[few])
        places = measure_places(relevance, truth[few])
        row: dict[str, Any] = {"way": name} | {key: round(float(value.mean()), 3) for key, value in places.items()}
        for how in HOWS if curves else ():
            area = measure_curves(model, clips[few], targets[few], relevance, how)
            first.setdefault(how, area)
            row[f"insertion - deletion, {how}"] = round(float(area.mean()), 3)
            if name != FIRST:
                row[f"the first ahead by, {how}"] = [round(value, 3) for value in compare(first[how][few], area)]
        print(json.dumps(row), flush=True)
    if curves:
        print(json.dumps({"randomised from the head down": randomise(run, clips[:60], targets[:60])}), flush=True)
        print(json.dumps({"cost": measure_cost(model, clips[:8], targets[:8])}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=18, help="of each training")
    arguments = parser.parse_args()
    for name, what in (("plain", "object"), ("shortcut", "patch")):
        table = render(arguments.folder / name, shortcut=name == "shortcut")
        run = train(table, arguments.folder / f"run-{name}", arguments.minutes)
        judge(table.parent, run, what, curves=name == "plain")


if __name__ == "__main__":
    main()
