"""The commands, a dataclass each: its fields are the flags, their docstrings the help."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tubelet.data.labels import LABELS
from tubelet.pretrain.config import PretrainConfig
from tubelet.stream.config import StreamConfig
from tubelet.system.options import NamesOf, Positional
from tubelet.train.config import TrainConfig

ClipSize = Annotated[tuple[int, int, int], "FRAMES HEIGHT WIDTH"]
TaskName = Annotated[str, NamesOf("tubelet.tasks", "NAMES")]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A command whose files several jobs can share."""

    shard: str | None = None
    """Do part I of N, such as 3/100, of the files: for many jobs, whose parts `tubelet merge` puts together."""
    parts: Path = Path("runs/parts")
    """Folder for the parts, with --shard."""


@dataclass(frozen=True)
class Demo:
    """Render clips that only motion tells apart, train on them, evaluate, report."""

    out: Path = Path("runs/demo")
    """Folder for the clips and the run."""
    clips_per_class: int = 60
    """Clips rendered for each class; a fifth of them is held out."""
    epochs: float = 10
    """Passes over the training clips: the same steps on any machine."""
    seed: int = 0
    """Seed of the clips and of the training."""
    json: bool = False
    """At the end, print the run and its results as one JSON object."""


@dataclass(frozen=True)
class Train(TrainConfig):
    """Train a model on a folder of clips, images or sounds; evaluate it; report.

    Stopped with Ctrl-C, the same command goes on where it stopped.

    Processes share the work: torchrun --nproc-per-node 2 -m tubelet train DIR
    """

    json: bool = False
    """At the end, print the run and its results as one JSON object."""


@dataclass(frozen=True)
class Pretrain(PretrainConfig):
    """Learn motion from made-up worlds, or from clips of yours without labels: weights that a training starts from.

    Stopped with Ctrl-C, the same command goes on where it stopped.
    """

    json: bool = False
    """At the end, print where the weights are and what they know as one JSON object."""


@dataclass(frozen=True)
class Check(Shared):
    """Read every file of a folder and say which are damaged, before a training does.

    Nothing in the folder is changed. Stopped with Ctrl-C, the same command goes on.
    """

    data: Positional[str]
    """Data set as for training, any folder of media, or a single file."""
    task: TaskName = "classification"
    """What its labels are, as for training: classification, multilabel, regression or segments."""
    labels: tuple[str, ...] = LABELS
    """Columns of the table that hold them; several only where they hold numbers."""
    quick: bool = False
    """Only what stands at the start of each file, and its first picture."""
    json: bool = False
    """Print one JSON object a line, for each file, instead of a table."""
    workers: int = 0
    """Threads that read a file each; 0: one for each processor."""


@dataclass(frozen=True)
class Prepare(Shared):
    """Copy videos once, small and quick to read, so that training need not wait.

    Stopped with Ctrl-C, the same command goes on where it stopped.
    """

    data: Positional[Path]
    """Data set as for training, any folder of videos, a table of paths, or one file."""
    out: Positional[Path]
    """Folder for the copies."""
    task: TaskName = "classification"
    """What its labels are, as for training: classification, multilabel, regression or segments."""
    labels: tuple[str, ...] = LABELS
    """Columns of the table that hold them; several only where they hold numbers."""
    short_side: int = 256
    """Pixels; smaller videos are not enlarged."""
    gop: int = 12
    """Frames from one key frame to the next, at most."""
    quality: int = 16
    """0 (best) to 51 (worst), as x264's crf; 16 can hardly be told from the original."""
    workers: int = 0
    """Threads that copy a file each; 0: one for each processor."""
    json: bool = False
    """At the end, print what was copied as one JSON object."""


@dataclass(frozen=True)
class Eval(Shared):
    """Evaluate a run on labelled files."""

    run: Positional[Path]
    """Run directory, model.safetensors or exported folder."""
    data: Positional[Path]
    """Folder of class folders, folder with train/ val/ test/, or CSV file."""
    views: str = "auto"
    """Temporal x spatial views of each clip, such as 4x3; auto: as many in time as show all of it."""
    split: str | None = None
    """Only this split; test, else val, else all if left out."""
    labels: tuple[str, ...] | None = None
    """Columns of the table that hold what is right; label, or the names of numbers, if left out."""
    unknown: bool = False
    """Clips of classes that the model does not know are no mistake: say how well it tells that they are none of its."""
    csv: Path | None = None
    """Write the answer for every file to this CSV file."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    dtype: str = "float32"
    """float32, bfloat16, float16 (on a GPU) or auto."""
    trusted: bool = False
    """Also open a model.pt2, which can run any program: for folders that you, or people you trust, exported."""
    workers: int = 2
    """Threads that read files."""
    json: bool = False
    """Print the results as one JSON object, tables to stderr."""


@dataclass(frozen=True)
class Explain:
    """Show which parts of files an answer rests on: a picture, a video with the map laid over, the numbers."""

    run: Positional[Path]
    """Run directory or model.safetensors."""
    files: Positional[tuple[str, ...]]
    """Files, or folders of files."""
    label: str | None = None
    """The class, label or number to explain; the model's own answer for each file if left out."""
    out: Path = Path("explained")
    """Folder for NAME.png, NAME.npz and NAME.mp4 of each file."""
    views: str = "auto"
    """Temporal views of each clip, such as 4x1; auto: as many as show all of it."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    json: bool = False
    """Print one JSON object a line instead of a table."""


@dataclass(frozen=True)
class Predict(Shared):
    """Say what is in files."""

    run: Positional[Path]
    """Run directory, model.safetensors or exported folder."""
    files: Positional[tuple[str, ...]]
    """Files, or folders of files."""
    views: str = "auto"
    """Temporal x spatial views of each clip, such as 4x3; auto: as many in time as show all of it."""
    top: int = 3
    """How many classes to show for each file."""
    abstain: bool = True
    """Say "none of these" of a file that is like none of the training clips."""
    json: bool = False
    """Print one JSON object a line instead of a table."""
    csv: Path | None = None
    """Write a CSV file instead of a table."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    dtype: str = "auto"
    """auto: bfloat16 where the device is fast in it, else float32."""
    trusted: bool = False
    """Also open a model.pt2, which can run any program: for folders that you, or people you trust, exported."""
    workers: int = 2
    """Threads that read files."""


@dataclass(frozen=True)
class Stream(StreamConfig):
    """Say what happens when in a long video: a window slides along it.

    Ctrl-C keeps what was computed so far.

    Raw frames of FFmpeg (-f rawvideo -pix_fmt rgb24) come through a pipe.
    """


@dataclass(frozen=True)
class Export:
    """Write a folder for onnxruntime, OpenVINO or torch.export, and compare it with its run."""

    run: Positional[Path]
    """Run directory or model.safetensors."""
    out: Positional[Path]
    """New folder; predict and eval take it like a run."""
    format: Literal["onnx", "openvino", "torch-export"] = "onnx"
    """onnx runs nearly everywhere; openvino is the fastest on processors; torch-export is for programs of torch."""
    int8: bool = False
    """Products in int8: faster; look at how many answers stay the same."""
    full_range: bool = False
    """int8 weights of eight bits, not seven: right only on processors with VNNI."""
    data: Path | None = None
    """Folder or table of files to compare answers on; synthetic clips if left out."""
    clips: int = 32
    """Clips to compare answers on."""
    overwrite: bool = False
    """Replace an exported folder."""
    json: bool = False
    """At the end, print what was written as one JSON object."""


@dataclass(frozen=True)
class Embed(Shared):
    """Write a vector for each file, or each window of it, to search in.

    Stopped with Ctrl-C, the same command goes on where it stopped; new files are added.
    """

    run: Positional[Path]
    """Run directory, model.safetensors, or converted weights, also without a head."""
    data: Positional[tuple[str, ...]]
    """Folders, tables (rows with start and end are items) and files."""
    out: Path = Path("runs/embedded")
    """Folder for the vectors."""
    views: str = "auto"
    """Temporal x spatial views of each item, such as 4x3; auto: as many in time as show all of it."""
    windows: float | None = None
    """Seconds of a window: a vector for each, one after another, instead of one for an item."""
    parquet: bool = False
    """Also write index.parquet, rows and vectors as a table; needs tubelet[parquet]."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    dtype: str = "float32"
    """float32, bfloat16, float16 (on a GPU) or auto."""
    workers: int = 2
    """Threads that read files."""
    json: bool = False
    """At the end, print what was written as one JSON object."""


@dataclass(frozen=True)
class Merge:
    """Put together what jobs with --shard did: all that the command would have shown and written without it.

    Parts that are missing are named, with what to run again; the exit code is then 5.
    """

    folder: Positional[Path]
    """The --parts of the jobs."""
    csv: Path | None = None
    """CSV file for the answers of predict or eval, in the place of the --csv of the jobs."""
    json: bool = False
    """Print JSON as the command does; where parts are missing, one object with their numbers."""


@dataclass(frozen=True)
class Search:
    """Find the files of a folder of vectors that are like others, or copies of each other."""

    folder: Positional[Path]
    """Folder that `tubelet embed` wrote."""
    files: Positional[tuple[str, ...]] = ()
    """Files to find the like of, from that folder or not."""
    top: int = 10
    """How many to find for each."""
    duplicates: bool = False
    """Find files that show the same: encoded again, resized, cropped, trimmed, faster, slower or mirrored."""
    out: Path | None = None
    """Write a contact sheet, a page of pictures, to this HTML file."""
    run: Path | None = None
    """Where the weights are that made the vectors, if they have been moved."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    workers: int = 2
    """Threads that read files."""
    json: bool = False
    """Print one JSON object a line instead of a table."""


@dataclass(frozen=True)
class Suggest:
    """Name the clips of a folder of vectors to label next: those that tell a model the most."""

    folder: Positional[Path]
    """Folder that `tubelet embed` wrote."""
    labels: Path | None = None
    """Your table of labels, a CSV file with path and label: clips are added to it, for you to fill in; begun if new."""
    count: int = 20
    """How many clips to name."""
    out: Path | None = None
    """Write a contact sheet, a page of pictures, to this HTML file."""
    seed: int = 0
    """Seed of the draw among clips that are too many to be compared all."""
    json: bool = False
    """Print one JSON object a line instead of a table."""


@dataclass(frozen=True)
class Info:
    """Parameters, multiply-accumulates, tokens and activation memory of a model."""

    model: Positional[str]
    """family-size/patch[xtubelet], such as vivit2-B/16x2; or "list" for all names."""
    clip: ClipSize | None = None
    """Frames, height and width; left out, 16 of 224 px, one picture, or a spectrogram of 10 s."""
    classes: int = 400
    """Classes to tell apart."""
    channels: int | None = None
    """Channels of a clip; 3 if left out, 1 for a spectrogram."""
    embed: Annotated[str, NamesOf("tubelet.nn.create", "TOKENISERS")] | None = None
    """Tokeniser, as for training; left out, that of the family."""
    temporal_depth: int = 4
    """Blocks of vivit2's temporal encoder."""
    json: bool = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True)
class Weights:
    """Published weights that can be read: what they are, how large, under which licence. The network is not asked."""

    pattern: Positional[str] = "*"
    """Part of a name, a model or a kind, such as '*dinov3*' or video."""
    json: bool = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True)
class Bench:
    """Measure what this machine does with a model, and how much that is of the most.

    Also says when other programs keep the machine too busy for the times to count.
    """

    model: Positional[str] = "vivit2-S/16x2"
    """family-size/patch[xtubelet], such as vivit2-B/16x2."""
    clip: ClipSize | None = None
    """Frames, height and width; left out, 16 of 224 px, or what fits the time."""
    batch: int = 1
    """Clips at a time."""
    dtype: str = "auto"
    """float32, bfloat16, float16 (on a GPU) or auto: what the device is fast in."""
    minutes: float = 0.8
    """Time budget."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    json: bool = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True)
class Compare:
    """Train candidates on the same clips within a budget of time, and say which are better, and how surely.

    Candidates are every model with every start and every variant; a few usual ones where none is given.

    Stopped with Ctrl-C, the same command goes on where it stopped.
    """

    data: Positional[Path]
    """Data set as for training, one class a clip. A test split is left alone; val, where given, is what is measured."""
    models: tuple[str, ...] = ()
    """Models, such as vivit2-N/12x4."""
    starts: tuple[str, ...] = ()
    """Weights to start from, as --init of `tubelet train`: none for fresh ones, default for what it chooses."""
    variants: tuple[str, ...] = ()
    """Settings of `tubelet train`, such as stills=0.5 or "pool=mean ema=0.99 no-augment"; default for none."""
    budget: str = "30m"
    """Time for all, such as 30m or 2h."""
    folds: int = 3
    """Parts of the data, in whole groups, each of which is held out in turn."""
    out: Path | None = None
    """Folder for the trainings and the report; runs/NAME-OF-THE-DATA-compare if left out."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    workers: int | None = None
    """Threads that read files."""
    seed: int = 0
    """Seed of the folds, the weights and every random draw."""
    json: bool = False
    """At the end, print the standings as one JSON object."""


@dataclass(frozen=True)
class Convert:
    """Take over weights of Hugging Face, timm or scenic, or hand ours to them.

    What no flag says is read from the config.json beside the weights.
    """

    src: Positional[Path]
    """Weights (.safetensors, flax msgpack, .npz), or their folder."""
    dst: Positional[Path]
    """New folder, or .safetensors file, for the result."""
    dialect: str | None = None
    """Whose names the tensors have, such as timm or hf-vivit; recognised if left out."""
    heads: tuple[int, ...] | None = None
    """Attention heads; for Swin, those of each stage; for Perception Encoder, those of blocks and of pooling."""
    clip: ClipSize | None = None
    """Frames, height and width that the weights are made for; sound: 1, mel bins, columns."""
    family: str | None = None
    """Our name of the model, such as vivit4, where weights cannot tell."""
    attend: str | None = None
    """Order of attention, such as hw,t, where weights cannot tell."""
    frames: int | None = None
    """Uniform frame sampling: frames embedded of each clip."""
    stride: ClipSize | None = None
    """Frames and px between patches, where they overlap."""
    window: ClipSize | None = None
    """Swin's windows, in tokens."""
    gelu: Literal["erf", "tanh"] | None = None
    """Exact, or JAX's, where the weights of a SigLIP cannot tell."""
    classes: Path | None = None
    """Text file of class names, one a line, in the order of the outputs."""
    seconds_between_frames: float | None = None
    """Instead of what is usual for the model."""
    unsafe_pickle: bool = False
    """Also read a pickle of torch (.pt, .pth, .pyth, .bin, .ckpt). A pickle is a program: a restricted unpickler reads
    it, which lowers the risk and does not remove it. Only for a file whose origin you trust; the result is safe."""
    to: str | None = None
    """The other way: write a run's weights in the names of this dialect."""
    json: bool = False
    """At the end, print what was written as one JSON object."""


@dataclass(frozen=True)
class ConvertLabels:
    """Take over labels of other programs, as a table to train on, or hand a table to them.

    ActivityNet, THUMOS14, ELAN, BORIS, VIA, CVAT, Label Studio, FiftyOne and Google's CSV files.
    """

    src: Positional[Path]
    """File of annotations, or a folder of them; with --to, a table of labels or of answers."""
    out: Positional[Path]
    """CSV file for path, label, start, end (seconds), split, group; with --to, a new folder or JSON file."""
    videos: Path | None = None
    """Folder, at any depth, that the videos are in; paths are as the source has them if left out. With --to, folder
    that paths start from, the table's if left out, or the video that a table of `tubelet stream` is of."""
    tier: tuple[str, ...] | None = None
    """Names of ELAN's tiers, VIA's attributes, Label Studio's controls or FiftyOne's fields; all if left out."""
    from_: Annotated[str, NamesOf("tubelet.data.annotations.reading", "FORMATS")] | None = None
    """activitynet, thumos14, elan, boris, via, cvat, label-studio, fiftyone or google; recognised if left out."""
    to: Annotated[str, NamesOf("tubelet.data.annotations.writing", "FORMATS")] | None = None
    """The other way: write a table for fiftyone or label-studio."""
    json: bool = False
    """At the end, print what was written as one JSON object."""


IN_ORDER: tuple[type, ...] = (
    *(Demo, Train, Check, Prepare, Eval, Predict, Explain, Stream, Compare, Pretrain, Export),
    *(Merge, Embed, Search, Suggest, Info, Weights, Bench, Convert, ConvertLabels),
)
COMMANDS = {re.sub(r"(?<!^)(?=[A-Z])", "-", command.__name__).lower(): command for command in IN_ORDER}
