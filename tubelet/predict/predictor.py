"""From a run, or its model file alone, and files to labels."""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import numpy as np
import torch
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.health_cache import MANY, HealthCache
from tubelet.data.items import Item
from tubelet.data.prefetch import prefetch
from tubelet.data.walk import list_clips, walk
from tubelet.features.distance import DISTANCE, Distance
from tubelet.media.address import absolute, join, name_from
from tubelet.media.bytes import is_tar
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.predict.answer import Answer, Prediction, answer, mean_features, parse_views, predict_item, read_views
from tubelet.predict.exported import Exported, is_exported
from tubelet.predict.frames import Clip, Frames, is_one, take
from tubelet.predict.precision import cast_encoders, choose_dtype
from tubelet.system.device import find_device
from tubelet.tasks import Task, task_from_json
from tubelet.weights.store import ModelFile, open_model

WORKERS = 2  # threads that read files, unless told otherwise
AHEAD = 128  # files of an iterator that are looked at together, before the first of them is read
Given = TypeVar("Given", bound=Item | Frames)


class Predictor:
    """A trained model with all it needs to answer for a file: class names and ClipSpec come from the checkpoint.

    >>> Predictor.load("runs/clips").predict("clip.mp4").label
    """

    def __init__(
        self,
        model: SpaceTimeTransformer | Exported,
        spec: ClipSpec,
        task: Task,
        *,
        distance: Distance | None = None,
        device: str = "auto",
    ):
        self.device = find_device(device)
        self.answers, self.spec, self.task = model.eval().to(self.device), spec, task
        self.distance = distance  # None: every file is taken for one of the classes
        self.run: Path | None = None
        self.file: ModelFile | None = None  # of the weights; None: exported, or made in memory
        self.precision = "float32"  # in words

    @classmethod
    def load(
        cls, run: str | os.PathLike[str], *, device: str = "auto", dtype: str = "float32", trusted: bool = False
    ) -> "Predictor":
        """Loads a run directory, a model.safetensors file, or the folder of an exported model.

        dtype: "float32", "bfloat16", "float16" (on a GPU), or "auto": what the device is fast in.
        trusted: you know who exported the folder: a model.pt2, which torch runs as a program, is not opened without.

        Raises:
            ValueError: no checkpoint there, or one without class names (weights that were not trained by tubelet), or
                a dtype that the device or the exported model does not have, or a model.pt2 that is not trusted.
        """
        model: SpaceTimeTransformer | Exported
        file, distance = None, None
        if is_exported(run):
            if device not in ("auto", "cpu"):
                raise ValueError(f"{run}: an exported model runs on the processor, as it is: leave device out")
            model, device = Exported(run, dtype=dtype, trusted=trusted), "cpu"
            about, precision = model.about, model.precision
        else:
            file = open_model(run)
            about = file.about
            if not about.keys() & {"task", "classes"} or "clip_spec" not in about:
                raise ValueError(f"{run}: weights without class names and ClipSpec: train them with `tubelet train`")
            chosen, precision = choose_dtype(dtype, find_device(device))
            model = cast_encoders(file.load(), chosen)
            distance = read_distance(file, model)
        spec, task = ClipSpec.from_json(about["clip_spec"]), read_task(about, run, model)
        found = cls(model, spec, task, distance=distance, device=device)
        found.run, found.file, found.precision = Path(str(about.get("run", run))), file, precision
        return found

    def describe(self) -> dict[str, str]:
        """All that answers depend on but for files and views: a sha256 of the model's files, and the precision.

        Raises ValueError: the model was made in memory.
        """
        exported = sorted(self.answers.folder.iterdir()) if isinstance(self.answers, Exported) else []
        files = [self.file.file] if self.file else [file for file in exported if file.is_file()]
        if not files:
            raise ValueError("a model that was made in memory has no file to tell it by: save it first")
        digest = hashlib.sha256()
        for file in files:
            with open(file, "rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return {"model": digest.hexdigest(), "precision": self.precision}

    @property
    def classes(self) -> list[str]:
        """Names of the model's outputs."""
        return list(self.task.names)

    @property
    def model(self) -> SpaceTimeTransformer:
        """The model in torch. Raises ValueError: it was exported."""
        if isinstance(self.answers, Exported):
            raise ValueError("an exported model only answers whole clips: give the run that it was made from")
        return self.answers

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
        self, clip: str | os.PathLike[str], *, views: str = "auto", frames_per_second: float | None = None
    ) -> Prediction: ...

    @overload  # one, or a list for a batch: which, the shape says
    def predict(
        self, clip: np.ndarray | Tensor, *, views: str = "auto", frames_per_second: float | None = None
    ) -> Any: ...

    @overload
    def predict(
        self, clip: Iterable[Clip], *, views: str = "auto", frames_per_second: float | None = None
    ) -> list[Prediction]: ...

    def predict(
        self, clip: Clip | Iterable[Clip], *, views: str = "auto", frames_per_second: float | None = None
    ) -> Prediction | list[Prediction]:
        """The answer for one clip: a file, or frames, a picture or sound in its place; the answers for a batch.

        clip: a path; or, as an array of numpy, (T, H, W, 3) uint8 RGB, for a model of images (H, W, 3), for one of
            sound (samples,) float; or a tensor of torch with the channels first. With one axis more, or as an iterable
            of clips, many: answered as by `predict_files`, in a list.
        views: temporal x spatial views, such as 4x3; "auto": as many clips as show all of the file, 32 at most.
        frames_per_second: of frames in memory; left out, they lie as far apart as the ClipSpec says.

        Raises:
            ValueError: the file cannot be read, or the array is none of these; says why.
        """
        if not is_one(clip, self.spec):
            return self.predict_files(cast(Iterable[Clip], clip), views=views, frames_per_second=frames_per_second)
        prediction = self.predict_files([cast(Clip, clip)], views=views, frames_per_second=frames_per_second)[0]
        if prediction.label is None:
            raise ValueError(prediction.status)
        return prediction

    def predict_files(
        self,
        paths: Iterable[Clip],
        *,
        views: str = "auto",
        frames_per_second: float | None = None,
        workers: int = WORKERS,
        after: Callable[[Prediction], None] = lambda prediction: None,
    ) -> list[Prediction]:
        """Answers for many files, in their order; one that cannot be read keeps its place and says why.

        paths: also of clips in memory, as `predict` takes them. What is no list is asked for its next ones as they are
            needed, a hundred ahead at most.

        Where there are several, processes of their own look at the start of each first: one of which the decoder dies
        cannot be read either.

        Raises:
            ValueError: a clip in memory that is none.
            OSError: such a process cannot be started.
        """
        given: list[Prediction] = []

        def keep(one: Answer) -> None:
            given.append(predict_item(one, self.task, self.distance))
            after(given[-1])

        clips = self.take_clips(paths, frames_per_second)
        self.answer_items(clips, views=views, workers=workers, after=keep)
        return given

    @torch.no_grad()
    def features(
        self, clip: Clip | Iterable[Clip], *, views: str = "auto", frames_per_second: float | None = None
    ) -> Tensor:
        """What the head classifies, the mean over the views of one clip, (D,) float32; of many, (N, D).

        It takes what `predict` takes; of a file it is the vector that `tubelet embed` writes.

        Raises:
            ValueError: a file cannot be read, an array is no clip, features are not finite, or the model was exported,
                which has none.
        """
        model, (temporal, spatial) = self.model, parse_views(views, self.spec.kind)
        many = [cast(Clip, clip)] if is_one(clip, self.spec) else cast(Iterable[Clip], clip)

        def read(item: Item | Frames) -> Tensor:
            return read_views(item, self.spec, temporal=temporal, spatial=spatial).clips

        with (
            closing(check_first(self.take_clips(many, frames_per_second), workers=WORKERS)) as ready,
            closing(prefetch(read, ready, threads=WORKERS, ahead=2 * WORKERS)) as clips,
        ):
            rows = [mean_features(lambda piece: model.features(piece.to(self.device)), one) for one in clips]
        if not all(row.isfinite().all() for row in rows):
            raise ValueError(f"features that are not finite, in {self.precision}: take another dtype, or other weights")
        found = torch.stack(rows) if rows else torch.empty(0, model.stack[-1].out_dim)
        return found[0] if many is not clip else found

    def take_clips(self, clips: Iterable[Clip], frames_per_second: float | None) -> Iterable[Item | Frames]:
        """Items of files, and frames; a list of a list, else one by one as they are asked for."""
        taken = (take(clip, self.spec, frames_per_second=frames_per_second) for clip in clips)
        return list(taken) if isinstance(clips, Sequence) else taken

    def answer_items(
        self,
        items: Iterable[Item | Frames],
        *,
        root: Path | None = None,
        views: str,
        workers: int,
        after: Callable[[Answer], None],
        among: int | None = None,
    ) -> list[Answer]:
        """Answers for items of the data in `root`, or of files as the user could open them; see `answer`.

        among: how many items are answered in all, here and elsewhere, if these are not all.
        """
        settings: dict[str, Any] = {"views_text": views, "workers": workers, "after": after}
        settings["features"] = self.distance is not None
        settings["among"] = among or (len(items) if isinstance(items, Sequence) else 1)
        with closing(check_first(items, root=root, workers=workers)) as ready:
            return answer(self.answers, self.spec, self.task, root or Path(), ready, **settings)


def check_first(items: Iterable[Given], *, root: Path | None = None, workers: int) -> Generator[Given, None, None]:
    """The items, in order, each when children have looked at its file, and this process will not open it if they died.

    root: of the data set; None: the paths are as the user could open them. A file alone is not looked at: a process
    takes longer to start than the answer. A list is looked at as a whole, of anything else `AHEAD` files at a time.
    """
    if isinstance(items, Sequence):
        yield from check_list(items, root, workers)
        return
    piece = list[Given]()
    for item in items:
        piece.append(item)
        if len(piece) == AHEAD or isinstance(item, Frames):  # these are large, and nothing to look at
            yield from check_list(piece, root, workers)
            piece = []
    yield from check_list(piece, root, workers)


def check_list(items: Sequence[Given], root: Path | None, workers: int) -> Generator[Given, None, None]:
    paths = [item.path for item in items if isinstance(item, Item)]
    if len(paths) < 2:
        yield from items
        return
    checked = HealthCache.open(root) if root else HealthCache.open_above(paths)
    if root is None:
        paths = [name_from(Path(checked.root), absolute(path)) for path in paths]
    with closing(checked.look(paths, threads=workers)) as looks:
        for item in items:
            if isinstance(item, Item):
                next(looks)
            yield item
    if len(paths) >= MANY:
        checked.save()  # where it cannot, all is looked at again


def read_task(about: dict[str, Any], run: str | os.PathLike[str], model: SpaceTimeTransformer | Exported) -> Task:
    """The task of a checkpoint; one of 0.1.0 has the names of its classes alone.

    Raises:
        ValueError: it is damaged, or does not have a name for each output of the model.
    """
    try:
        old = {"kind": "classification", "names": about.get("classes")}
        task = task_from_json(about.get("task", old))
    except ValueError as error:
        raise ValueError(f"{run}: {error}") from error
    if isinstance(model, SpaceTimeTransformer) and model.config.num_classes != len(task.names):
        raise ValueError(f"{run}: {len(task.names)} class names for {model.config.num_classes} outputs: copy it again")
    return task


def read_distance(file: ModelFile, model: SpaceTimeTransformer) -> Distance | None:
    """The distance from the training clips, where the checkpoint has it. Raises ValueError: it is damaged."""
    if not (tensors := file.beside(DISTANCE)):
        return None
    try:
        return Distance.from_tensors(tensors, width=model.stack[-1].out_dim)
    except ValueError as error:
        raise ValueError(f"{file.file}: {error}") from error


def find_files(names: Iterable[str | Path]) -> list[str | Path]:
    """The files named, and the media files in the folders and the tars named, sorted.

    Raises:
        ValueError: nothing named, a folder without media, or one that may not be looked into.
    """
    files: list[str | Path] = []
    for path in (join("", name) for name in names):
        if is_tar(path):
            files += [join(path, name) for name in list_clips(path)]
        elif isinstance(path, Path) and path.is_dir():
            inside = walk(path)
            if inside.closed:
                raise ValueError(f"{path}/{inside.closed[0]}: you may not look into this folder: check the permissions")
            if not inside.files:
                raise ValueError(f"{path}: no video, image or sound files in this folder")
            files += [path / name for name in inside.files]
        else:
            files.append(path)
    if not files:
        raise ValueError("no files to predict: name at least one, as in `tubelet predict RUN clip.mp4`")
    return files
