"""Published weights for who names none: --init auto, and what the plan of a training advises where clips are few."""

import shlex
from dataclasses import replace

from tubelet.nn.cost import describe
from tubelet.system.console import clock, size
from tubelet.system.text import plural
from tubelet.train.config import TrainConfig
from tubelet.train.init import image_name
from tubelet.weights.listing import describe as describe_line
from tubelet.weights.pretrained import find_weights
from tubelet.weights.published import BEST, find_published

AUTO = "auto"  # of --init
FEW = 1000  # clips, that are better seen by an encoder that has seen more
# Multiply-adds of two processors, in 10^9: said with "about". Not measured here: it must not hang on a moment.
GMACS_A_SECOND = 60.0


def settle_auto(config: TrainConfig, kind: str) -> tuple[TrainConfig, list[str]]:
    """The settings with weights in the place of --init auto: the published ones that serve best, from the cache or the
    hub; where neither has them, those of the package, or fresh ones. And a note on which.

    Raises ValueError with --freeze, where they are not to be had.
    """
    if config.init != AUTO:
        return config, []
    best = BEST[kind]
    line = find_published(best)
    try:
        find_weights(best)
    except ValueError as error:
        if config.freeze:
            raise
        return replace(config, init=None), [f"--init auto: {error}; so it starts as without --init"]
    return replace(config, init=best), [f"--init auto: {line.terms if line else best}"]


def suggest_start(config: TrainConfig, kind: str, data: str, clips: int) -> list[str]:
    """A note where clips are few and no weights are named: those that would serve best, and what they take; none where
    they would take longer than the training may, or where it is told how many epochs to take."""
    line = find_published(BEST[kind])
    if config.init or config.freeze or config.epochs or clips >= FEW or line is None:
        return []
    model = image_name(line.model, kind) if line.family == "vit" else line.model
    info = describe(model, clip=(8, 112, 112) if kind == "video" else (1, 112, 112) if kind == "image" else line.clip)
    seconds = info.gmacs * clips * (1 + config.freeze_views) / GMACS_A_SECOND
    if seconds > 60 * config.minutes:
        return []
    command = f"tubelet train {shlex.quote(data)} --init {line.name} --freeze"
    what = f"{size(describe_line(line)['bytes'])} from Hugging Face's hub, {line.licence}, about {clock(seconds)} here"
    return [f"{plural(clips, 'clip')} to train on are few; where what is seen tells them apart, try {command} ({what})"]
