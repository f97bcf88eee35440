"""The training of a model that finds segments in long videos: an encoder on windows, then a pyramid on what it sees.

table of segments ─> windows ─> encoder, an ordinary training in RUN/encoder ─┐
         └─────────> recordings ──────────────────────────────────────────────┴─> steps ─> pyramid ─> RUN

Each part is on the disk when the next begins: a training that was stopped goes on with the part that it was in.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import load_times
from tubelet.data.dataset import UserAugmentation
from tubelet.data.items import Item
from tubelet.data.prefetch import processors
from tubelet.data.segments import (
    Recording,
    Recordings,
    as_source,
    choose_window,
    cut_windows,
    label_cell,
    read_segments,
    say_counts,
    split_recordings,
)
from tubelet.data.table import from_anywhere, write_table
from tubelet.evaluate.segments import SegmentEvaluation, evaluate_recordings, look_through
from tubelet.evaluate.show import show_results
from tubelet.media.address import join
from tubelet.media.bytes import size_of
from tubelet.media.reader import MediaError
from tubelet.nn.model import pools_by_mean
from tubelet.predict.predictor import Predictor
from tubelet.predict.tables import write_segments
from tubelet.report.segments import FinishedSegments, write_segment_card, write_segment_report
from tubelet.runs.lock import hold
from tubelet.runs.run import ENCODER, PREDICTIONS, RESULTS, SPLIT, WEAK, WINDOWS, Run
from tubelet.stream.segmenter import ABOUT, Segmenter
from tubelet.system.console import bar, say
from tubelet.system.exits import Stopped, exit_code
from tubelet.system.team import Team
from tubelet.train.clip_size import PIXELS_A_SECOND, usual_frames
from tubelet.train.clips import train_clips
from tubelet.train.config import TrainConfig
from tubelet.train.finish import STRIP_PX
from tubelet.train.init import Start, find_start
from tubelet.train.pace import REPORT_SECONDS
from tubelet.train.plan import choose_changes, count_workers, look_at_data
from tubelet.train.published_start import settle_auto
from tubelet.train.pyramid import STEPS
from tubelet.train.resume import find_run
from tubelet.train.segment_head import train_head
from tubelet.train.show import say_next
from tubelet.train.step_cache import Seen, StepCache
from tubelet.train.weak import locate_labels
from tubelet.version import __version__
from tubelet.weights.store import save
from tubelet.weights.terms import read_terms, write_terms

WEAK_SHARES = 0.6, 0.45  # of the time that is left for encoders, of each that only says when labels hold
LATER_RATE = 5e-4  # of learning, for an encoder that goes on where another ended
STILLS, WEAK_STILLS = 0.5, 0.7  # see `TrainConfig.stills`: a scene must not tell which labels its recording has
LEAST_SHARE = 0.5  # of the time budget, that the encoder gets
FORWARD = 3  # times as fast is a clip seen as learned from
STRIP_FRAMES = 7  # of a segment in the report
MOST_VIEWS, VARIED_HOURS = 4, 4.0  # of recordings to train on, and hours of all of their views together
SECONDS_A_STEP = 0.05  # of the pyramid's optimizer


@dataclass(frozen=True)
class Training:
    """One training of segments. begun: `time.monotonic()` from which on its time counts."""

    config: TrainConfig
    data: Recordings
    run: Run
    team: Team
    user_augmentation: UserAugmentation | None
    begun: float
    show: bool


def train_segments(
    config: TrainConfig, *, user_augmentation: UserAugmentation | None, show: bool, begun: float | None = None
) -> Path:
    """Trains, evaluates and reports: `train_fn` for recordings with segments in them."""
    begun = time.monotonic() if begun is None else begun
    team = Team.join(config.device)
    if team.size > 1:
        raise ValueError(f"--task segments trains in one process, got {team.size}: start it without torchrun")
    found = read_segments(config.data, workers=count_workers(config), show=show)
    data = split_recordings(found, val_share=config.val_share, seed=config.seed)
    run = find_run(config)
    with hold(run.path):
        begin(run, data, config)
        try:
            train(Training(config, data, run, team, user_augmentation, begun, show))
        except KeyboardInterrupt as stop:
            raise Stopped(run.path, exit_code(stop) - 128) from stop
    return run.path


def train(training: Training) -> None:
    """All parts of a training that are not yet on the disk."""
    config, data, run, show = training.config, training.data, training.run, training.show
    if show:
        for note in data.notes:
            say("note", note)
        for path, message in data.unreadable.items():
            say("unreadable", f"{path}: {message}")
    encoder = train_weak(training) if data.is_weak else train_encoder(training)
    predictor = Predictor.load(encoder, device=config.device)
    if data.is_weak:
        data = locate_labels(predictor, data, sure=False, show=show)
    steps = StepCache(predictor, data.root, config.cache, run.path, show=show)
    seen, failed = steps.see(data.recordings)
    by_split = {split: [one for one in seen if one[0].split == split] for split in ("train", "val", "test")}
    learned, chosen = by_split["train"], by_split["val"] if data.held_out == "test" else []
    learned += vary(steps, [one for one, _ in learned], config, data)
    segmenter, losses = train_head(predictor, learned, chosen, seed=config.seed, count=STEPS, show=show)
    terms = write_terms(read_terms(Run(encoder).config))
    about = {"clip_spec": predictor.spec.to_json(), "task": predictor.task.to_json(), "tubelet": __version__, **terms}
    beside = segmenter.tensors() | (predictor.distance.to_tensors() if predictor.distance else {})
    save(predictor.model, run.path, about={**about, ABOUT: segmenter.to_json()}, beside=beside)
    failed |= data.unreadable
    evaluation = evaluate_held_out(training, predictor, segmenter, by_split[data.held_out], failed)
    results = {**evaluation.results.to_json(), "seconds_total": time.monotonic() - training.begun}
    seeing = {name: Run(encoder).config[name] for name in ("model_name", "model", "clip_spec")} | terms
    finished = FinishedSegments(run.path, run.config | seeing, data.names, evaluation, results, losses)
    write_segments(evaluation.found, run.path / PREDICTIONS)
    run.write_json(RESULTS, results)
    write_segment_report(finished, frames=strip_frames(data.root, predictor.spec))
    write_segment_card(finished)
    if show:
        show_results(evaluation.results, split=evaluation.split, noun="recording")
        say_next(finished, "stream")


def begin(run: Run, data: Recordings, config: TrainConfig) -> None:
    """Writes config.json, or sees that a run that goes on is of the same data and not finished."""
    if not run.config_file.is_file():
        splits = {split: there for split in ("train", "val", "test") if (there := data.of_split(split))}
        about = {
            "root": str(data.root),
            "kind": "video",
            "fingerprint": fingerprint(data),
            "counts": {split: count_labels(there) for split, there in splits.items()},
            "recordings": {split: len(there) for split, there in splits.items()},
            "notes": list(data.notes),
        }
        settings = {"train": config.to_json(), "model": {}, "clip_spec": {}, "data": about}
        run.begin({"tubelet": __version__, "task": {"kind": "segments", "names": list(data.names)}, **settings})
    elif run.finished:
        raise ValueError(f"{run.path} holds a finished run: choose another --out, or leave --out away for a new one")
    elif run.config["data"].get("fingerprint") != fingerprint(data):
        raise ValueError(f"{run.path} belongs to other data, or its files have changed: choose another --out")
    items = [Item(one.path, label_cell(one), split=one.split, group=one.group) for one in data.recordings]
    write_table(run.path / SPLIT, items)


def count_labels(recordings: Sequence[Recording]) -> Counter[str]:
    """The number of segments of each label; one that is nowhere timed in a recording counts once there."""
    return Counter(chain.from_iterable((*(label for *_, label in one.segments), *one.untimed) for one in recordings))


def fingerprint(data: Recordings) -> str:
    """sha256 over the recordings, the sizes of their files and their segments."""
    lines = [json.dumps([size_of(join(data.root, one.path)), *astuple(one)]) for one in data.recordings]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def train_weak(training: Training) -> Path:
    """The encoder where labels have no times: it learns as if they held everywhere, then where the one before is sure.

    Each begins with the weights of the one before. Returns the last one's run directory.
    """
    data, before = training.data, None
    for name, share in zip(WEAK, WEAK_SHARES, strict=True):
        now = replace(training, data=data)
        before = train_encoder(now, name=name, share=share, stills=WEAK_STILLS, before=before)
        predictor = Predictor.load(before, device=training.config.device)
        data = locate_labels(predictor, training.data, sure=True, show=training.show)
    return train_encoder(replace(training, data=data), stills=WEAK_STILLS, before=before)


def train_encoder(
    training: Training, *, name: str = ENCODER, share: float = 1.0, stills: float = STILLS, before: Path | None = None
) -> Path:
    """An ordinary training on windows: which labels hold in each. Returns its run directory.

    share: of the time that is left for encoders. before: the run of an encoder whose weights it begins with.
    """
    config, data, run, show = training.config, training.data, training.run, training.show
    if before:
        config = replace(config, init=str(before), model=None, embed=None, lr=config.lr or LATER_RATE, layer_decay=1.0)
    config, notes = settle_auto(config, "video")
    if show:  # the plan of the encoder no longer knows that it was asked for
        for note in notes:
            say("note", note)
    start = find_start(config, "video")
    frames, seconds = choose_frames(config, start, data)
    learning = config if start else replace(config, pool=config.pool or "mean")
    each_step = tells_steps(learning, start)
    windows = cut_windows(data, seconds, seed=config.seed, borders=each_step)
    table = run.path / f"{name}-{WINDOWS}"
    write_table(table, from_anywhere(windows, data.root))
    out = run.path / name
    learning = replace(learning, data=table, task="multilabel", out=out, seconds_between_frames=seconds / frames)
    if config.stills is None and not config.freeze:
        learning = replace(learning, stills=stills)
    if show:
        say("segments", say_counts(data))
        say("windows", f"{len(windows)} of {seconds:.3g} s, for the encoder, in {table}")
    if Run(out).finished:
        return out
    if config.epochs is None:
        learning = replace(learning, minutes=share * encoder_minutes(training, learning))
    spans = {join(data.root, one.path): one.spans for one in data.recordings} if each_step else None
    return train_clips(learning, user_augmentation=training.user_augmentation, spans=spans, show=show)


def tells_steps(config: TrainConfig, start: Start | None) -> bool:
    """Whether the encoder can learn what holds at each step of a window, not just in all of it."""
    model = start.model if start else None
    return not config.freeze and (pools_by_mean(model) if model else config.pool == "mean")


def choose_frames(config: TrainConfig, start: Start | None, data: Recordings) -> tuple[int, float]:
    """The frames of a window and its seconds: as asked for; as those of the clips of the model to start from; or as
    many as are usual, and as long as the shorter segments."""
    spec = start.spec if start else None
    frames = config.frames or (spec.frames if spec else usual_frames(start))
    if config.seconds_between_frames:
        return frames, frames * config.seconds_between_frames
    return frames, spec.span_seconds if spec else choose_window(data)


def encoder_minutes(training: Training, learning: TrainConfig) -> float:
    """The time for encoders: what seeing all recordings once and learning from that usually leave of the budget.

    learning: the settings of an encoder. Not measured here: it must not hang on how busy the machine is at this moment.
    """
    config, data = training.config, training.data
    _, _, _, spec, _ = look_at_data(learning, training.team.device)
    again = sum(one.seconds for one in data.of_split(data.held_out))  # in windows
    again += count_views(config, data) * sum(one.seconds for one in data.of_split("train"))
    again += sum(one.seconds for one in data.recordings if one.unknown)
    clips = 2 * (sum(one.seconds for one in data.recordings) + again) / spec.span_seconds
    pixels = clips * spec.frames * spec.crop[0] * spec.crop[1]
    after = pixels / (FORWARD * PIXELS_A_SECOND * processors()) + STEPS * SECONDS_A_STEP + REPORT_SECONDS
    left = 60 * config.minutes - (time.monotonic() - training.begun)
    return max(left - after, LEAST_SHARE * left, 1.0) / 60


def vary(steps: StepCache, recordings: Sequence[Recording], config: TrainConfig, data: Recordings) -> list[Seen]:
    """Recordings to train on in varied views, the fewer the more hours there are."""
    changes, _ = choose_changes(config, as_source(data), None)
    return steps.vary(recordings, changes, views=count_views(config, data), seed=config.seed)


def count_views(config: TrainConfig, data: Recordings) -> int:
    """Of each recording to train on, besides it as it is."""
    hours = sum(one.seconds for one in data.of_split("train")) / 3600
    return min(MOST_VIEWS, int(VARIED_HOURS / hours)) if config.augment else 0


def evaluate_held_out(
    training: Training,
    predictor: Predictor,
    segmenter: Segmenter,
    measured: Sequence[Seen],
    failed: dict[str, str],
) -> SegmentEvaluation:
    """The figures on the recordings that were held out; `failed` of them could not be read."""
    data = training.data
    seen = []
    with bar("windows", len(measured), show=training.show) as progress:
        for one, steps in measured:
            seen.append(look_through(predictor, segmenter, data.root, one, steps))
            progress.advance(f"{progress.done + 1}/{progress.total} recordings")
    return evaluate_recordings(segmenter, seen, failed=failed, split=data.held_out, seed=training.config.seed)


def strip_frames(root: Path, spec: ClipSpec) -> Callable[[str, float, float], np.ndarray | None]:
    """Path, start and end of a segment -> frames (T, H, W, 3) uint8 for the report; None if unreadable."""
    spec = replace(spec, resize=STRIP_PX, crop=STRIP_PX)

    def frames(path: str, start: float, end: float) -> np.ndarray | None:
        times = start + (np.arange(STRIP_FRAMES) + 0.5) / STRIP_FRAMES * (end - start)
        try:
            return load_times(join(root, path), spec, times).permute(1, 2, 3, 0).numpy()
        except MediaError:
            return None

    return frames
