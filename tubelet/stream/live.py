"""The segments of a video as they become certain: on the screen and in files, line by line."""

import sys
import time
from collections.abc import Iterable

from tubelet.media.reader import MediaError
from tubelet.nn.segment_streamer import SegmentStreamer
from tubelet.predict.predictor import Predictor
from tubelet.stream.codes import keep_if_asked, read_steps
from tubelet.stream.config import StreamConfig
from tubelet.stream.outputs import SegmentFiles, choose_places, segment_object
from tubelet.stream.segmenter import Segmenter
from tubelet.stream.segments import Segment, moment
from tubelet.stream.show import watch
from tubelet.stream.source import Footage, from_file, open_pipe
from tubelet.system.console import clock, console, facts, say
from tubelet.system.exits import exit_code
from tubelet.system.text import dumps, plural, visible

# In --out.
FILES = {"csv": "segments.csv", "jsonl": "segments.jsonl", "srt": "segments.srt", "picture": "timeline.svg"}
OF_WINDOWS = ("window", "hop", "on", "off")  # settings that a model with segments of its own has no use for
BLOCK_STEPS = 16  # read and seen at a time; of a pipe 1


def stream_segments(config: StreamConfig) -> int:
    """Prints what a model finds in a video, each segment as soon as nothing can change it any more; writes the files
    that were asked for. Returns the exit code, as `stream_fn`.

    Raises:
        ValueError: settings or files that cannot work.
    """
    if asked := [name for name in OF_WINDOWS if getattr(config, name) != getattr(StreamConfig, name)]:
        listed = " and ".join(f"--{name}" for name in asked)
        raise ValueError(
            f"{config.run} finds segments in windows of its own: leave {listed} out; "
            "--threshold says how sure a segment must be"
        )
    places = choose_places(config, FILES)
    predictor = Predictor.load(config.run, device=config.device, dtype=config.dtype)
    segmenter = Segmenter.read(predictor)
    least = segmenter.threshold if config.threshold is None else config.threshold
    streamer = SegmentStreamer(segmenter.pyramid, least_score=least)
    try:
        footage = open_footage(config, segmenter)
    except MediaError as error:
        return complain(str(error), 3)
    if not config.json:
        show_plan(config, segmenter, footage, least)
    code, trouble, found, begun = 0, "", list[Segment](), time.monotonic()
    saver = keep_if_asked(config, footage, lambda: segmenter.key, seconds_between_steps=segmenter.step_seconds)
    with SegmentFiles(places) as outputs, saver as kept:

        def take(settled: Iterable[Segment]) -> None:
            for one in settled:
                if one.end_seconds - one.start_seconds >= config.min_seconds:
                    found.append(one)
                    outputs.add(one)
                    print(dumps(segment_object(one)), flush=True) if config.json else show_segment(one)

        try:
            with watch(footage, segmenter.step_seconds, segmenter.spec, show=not config.json) as blocks:
                for steps in blocks if footage.encoded else segmenter.steps(blocks):
                    if kept is not None:
                        kept.append(steps)
                    take(segmenter.in_seconds(one) for one in streamer.push(steps))
        except MediaError as error:
            code, trouble = 3, str(error)
        except KeyboardInterrupt as stop:
            code, trouble = exit_code(stop), "interrupted; what was found so far is kept"
        take(segmenter.in_seconds(one) for one in streamer.finish())
        seconds = streamer.seen * segmenter.step_seconds
        outputs.finish(found, segmenter.names, seconds, title=str(config.file.name))
    if not streamer.seen and not code:
        raise ValueError(
            f"{config.file}: shorter than one step of {2 * segmenter.middle_seconds:g} s: use `tubelet predict`"
        )
    if not config.json:
        speed = f"{seconds / max(time.monotonic() - begun, 1e-9):.3g}x real time"
        say("done", f"{plural(len(found), 'segment')} in {moment(seconds)}, {speed}")
        for place in places.values():
            say("wrote", place)
    return complain(trouble, code) if code else 0


def open_footage(config: StreamConfig, segmenter: Segmenter) -> Footage:
    """Raises MediaError where the file cannot be opened or is no video, ValueError for codes of another model."""
    frames = segmenter.model.embed.stride[0]
    if config.is_pipe:
        return open_pipe(segmenter.spec, config, block_frames=frames)  # live: no more than the next step waits for
    if config.file.suffix != ".safetensors":
        return from_file(config.file, segmenter.spec, block_frames=BLOCK_STEPS * frames, threads=1)
    steps = read_steps(config.file, key=segmenter.key)
    return Footage(f"{len(steps)} encoded steps", steps.split(BLOCK_STEPS), len(steps), encoded=True)


def show_plan(config: StreamConfig, segmenter: Segmenter, footage: Footage, least: float) -> None:
    spec, model = segmenter.spec, segmenter.model.config.family
    rows = [
        ("file", str(config.file)),
        ("model", f"{model}, finds segments of {plural(len(segmenter.names), 'label')}"),
        ("video", footage.words),
        ("frames", f"every {spec.seconds_between_frames:.4g} s; a step is {segmenter.step_seconds:.4g} s"),
        ("shown", f"with a score of {least:g} or more, {clock(segmenter.delay_seconds)} after their end at the latest"),
    ]
    facts("Streaming", rows)


def show_segment(one: Segment) -> None:
    times = f"{moment(one.start_seconds):>9}  {moment(one.end_seconds):>9}"
    console.print(f"{times}  {100 * one.probability:3.0f}%  {visible(one.label)}", soft_wrap=True)


def complain(trouble: str, code: int) -> int:
    print(f"tubelet: {visible(trouble)}", file=sys.stderr)
    return code
