"""From a run and a long video to windows, segments and files."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from tubelet.media.reader import MediaError
from tubelet.nn.split import encodes_steps_apart
from tubelet.predict.predictor import Predictor
from tubelet.stream.codes import hash_steps, keep_if_asked, read_steps
from tubelet.stream.config import StreamConfig
from tubelet.stream.live import complain, stream_segments
from tubelet.stream.outputs import Files, choose_places, segment_object, window_object
from tubelet.stream.segmenter import finds_segments
from tubelet.stream.segments import Segment, Window, find_segments
from tubelet.stream.show import show_end, show_plan, show_segments, watch
from tubelet.stream.source import Footage, from_file, open_pipe
from tubelet.stream.window import Slide, choose_slide, slide_window
from tubelet.system.exits import exit_code
from tubelet.system.text import dumps, plural

__all__ = ["Segment", "Window", "find_segments", "stream_fn", "windows_of_file"]


def windows_of_file(
    predictor: Predictor, file: str | Path, *, window_seconds: float | None = None, hop_seconds: float | None = None
) -> Iterator[Window]:
    """The probabilities of each window of a video, or of codes, as soon as they are there.

    Raises:
        ValueError: a model of images or sounds; MediaError where the file cannot be read, or not to its end.
    """
    slide = choose_slide(predictor, window_seconds, hop_seconds)
    return slide_window(predictor, open_file(predictor, Path(file), slide), slide)


def open_file(predictor: Predictor, file: Path, slide: Slide) -> Footage:
    if file.suffix != ".safetensors":
        threads = 1 if predictor.device.type == "cpu" else 0  # leave the processor to the model if it is there
        return from_file(file, predictor.spec, block_frames=slide.block(live=False), threads=threads)
    check_caching(predictor, f"{file}: codes are of no use")
    steps = read_steps(file, key=hash_steps(predictor.model, predictor.spec))
    blocks = steps.split(slide.block(live=False))
    return Footage(f"{len(steps)} encoded steps", blocks, len(steps), encoded=True)


def check_caching(predictor: Predictor, what: str) -> None:
    if not encodes_steps_apart(predictor.model):
        raise ValueError(f"{what} for a {predictor.model.config.family} model: it sees each window as a whole")


def stream_fn(config: StreamConfig) -> int:
    """Slides a window over a video, prints what happens when, writes the files that were asked for.

    Returns:
        The exit code: 0; 3 where the video cannot be read to its end; 130 after Ctrl-C, 143 after SIGTERM. What was
        computed by then is printed and written.

    Raises:
        ValueError: settings or files that cannot work.
    """
    if finds_segments(config.run):
        return stream_segments(config)
    places = choose_places(config)
    predictor = Predictor.load(config.run, device=config.device, dtype=config.dtype)
    if not predictor.task.exclusive:
        about = predictor.task.describe()
        raise ValueError(f"{config.run}: stream tells one class after the other, this run {about}: use tubelet predict")
    slide = choose_slide(predictor, config.window, config.hop)
    try:
        footage = open_footage(config, predictor, slide)
    except MediaError as error:
        return complain(str(error), 3)

    def make_key() -> str:
        check_caching(predictor, "--save: there are no codes to save")
        return hash_steps(predictor.model, predictor.spec)

    saver = keep_if_asked(config, footage, make_key, seconds_between_steps=slide.seconds(slide.step))
    if not config.json:
        show_plan(config, predictor, footage, slide)
    code, trouble, windows, begun = 0, "", [], time.monotonic()
    model = f"{predictor.model.config.family} of {config.run}, {plural(len(predictor.classes), 'class')}"
    title = "standard input" if config.is_pipe else config.file.name
    with Files(places, predictor.classes, title=title, model=model) as files, saver as codes:
        try:
            for window in show_windows(predictor, footage, slide, codes, show=not config.json):
                windows.append(window)
                files.add(window)
                if config.json:
                    print(dumps(window_object(window, predictor.classes)), flush=True)
        except MediaError as error:
            code, trouble = 3, str(error)
        except KeyboardInterrupt as stop:
            code, trouble = exit_code(stop), "interrupted; what was computed so far is kept"
        seconds = time.monotonic() - begun
        on, off = config.on_probability, config.off_probability
        segments = find_segments(windows, predictor.classes, on=on, off=off, min_seconds=config.min_seconds)
        files.finish(windows, segments, on=on)
    if not windows and not code:
        raise ValueError(
            f"{config.file}: shorter than one step of {slide.seconds(slide.length):g} s: use `tubelet predict`"
        )
    if config.json:
        print("".join(dumps(segment_object(one)) + "\n" for one in segments), end="", flush=True)
    elif windows:
        show_segments(windows, segments, predictor.classes, on=on)
        show_end(windows, footage, [*places.values()], seconds=seconds)
    return complain(trouble, code) if code else 0


def open_footage(config: StreamConfig, predictor: Predictor, slide: Slide) -> Footage:
    if config.is_pipe:
        return open_pipe(predictor.spec, config, block_frames=slide.block(live=True))
    return open_file(predictor, config.file, slide)


def show_windows(
    predictor: Predictor, footage: Footage, slide: Slide, codes: list[Tensor] | None, *, show: bool
) -> Iterator[Window]:
    """The windows of the footage, with a bar."""
    with watch(footage, slide.seconds(slide.step), predictor.spec, show=show) as blocks:
        yield from slide_window(predictor, replace(footage, blocks=blocks), slide, codes=codes)
