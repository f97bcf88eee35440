"""The clips of `tubelet demo`, and the table of what their classes are in a mirror, and backwards."""

from pathlib import Path

from tubelet.synthetic.camera_motions import CLASSES, render_demo
from tubelet.system.console import bar
from tubelet.system.files import write_whole

# as `--label-swaps` of `tubelet train` takes it
LABEL_SWAPS = """label,mirrored,reversed
move_left,move_right,move_right
move_right,move_left,move_left
turn_clockwise,turn_counterclockwise,turn_counterclockwise
turn_counterclockwise,turn_clockwise,turn_clockwise
zoom_in,,zoom_out
zoom_out,,zoom_in
disc_then_square,,square_then_disc
square_then_disc,,disc_then_square
"""


def ensure_demo(folder: Path, *, clips_per_class: int, seed: int = 0) -> Path:
    """The demo set in `folder`: rendered now, with a progress bar, unless it is there from before. Beside it
    label-swaps.csv."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_whole(folder.with_name("label-swaps.csv"), LABEL_SWAPS)
    if folder.is_dir() and all(len(list((folder / name).glob("*.mp4"))) == clips_per_class for name in CLASSES):
        return folder
    with bar("rendering", clips_per_class * len(CLASSES)) as progress:
        return render_demo(
            folder,
            clips_per_class=clips_per_class,
            seed=seed,
            after=lambda: progress.advance(f"{progress.done + 1} clips"),
        )
