"""From a run, or its model file alone, and files to labels."""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.health_cache import MANY, HealthCache
from tubelet.data.items import Item
from tubelet.data.walk import walk
from tubelet.features.distance import DISTANCE, Distance
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.predict.answer import Answer, Prediction, answer, predict_item
from tubelet.predict.exported import Exported, is_exported
from tubelet.predict.precision import cast_encoders, choose_dtype
from tubelet.system.device import find_device
from tubelet.tasks import Task, task_from_json
from tubelet.weights.store import ModelFile, open_model


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
    def load(cls, run: str | os.PathLike[str], *, device: str = "auto", dtype: str = "float32") -> "Predictor":
        """Loads a run directory, a model.safetensors file, or the folder of an exported model.

        dtype: "float32", "bfloat16", "float16" (on a GPU), or "auto": what the device is fast in.

        Raises:
            ValueError: no checkpoint there, or one without class names (weights that were not trained by tubelet), or
                a dtype that the device or the exported model does not have.
        """
        model: SpaceTimeTransformer | Exported
        file, distance = None, None
        if is_exported(run):
            if device not in ("auto", "cpu"):
                raise ValueError(f"{run}: an exported model runs on the processor, as it is: leave device out")
            model, device = Exported(run, dtype=dtype), "cpu"
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

    def predict(self, path: str | os.PathLike[str], *, views: str = "auto") -> Prediction:
        """The answer for one file.

        views: temporal x spatial views, such as 4x3; "auto": as many clips as show all of the file, 32 at most.

        Raises:
            ValueError: the file cannot be read; says why.
        """
        prediction = self.predict_files([path], views=views)[0]
        if prediction.label is None:
            raise ValueError(prediction.status)
        return prediction

    def predict_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        views: str = "auto",
        workers: int = 2,
        after: Callable[[Prediction], None] = lambda prediction: None,
    ) -> list[Prediction]:
        """Answers for many files, in their order; one that cannot be read keeps its place and says why.

        Where there are several, processes of their own look at the start of each first: one of which the decoder dies
        cannot be read either.

        Raises:
            OSError: such a process cannot be started.
        """
        items = [Item(str(path), "") for path in paths]
        given: list[Prediction] = []

        def take(one: Answer) -> None:
            given.append(predict_item(one, self.task, self.distance))
            after(given[-1])

        self.answer_items(items, views=views, workers=workers, after=take)
        return given

    def answer_items(
        self,
        items: Sequence[Item],
        *,
        root: Path | None = None,
        views: str,
        workers: int,
        after: Callable[[Answer], None],
    ) -> list[Answer]:
        """Answers for items of the data in `root`, or of files as the user could open them; see `answer`."""
        settings: dict[str, Any] = {"views_text": views, "workers": workers, "after": after}
        settings["features"] = self.distance is not None
        with closing(check_first(items, root=root, workers=workers)) as ready:
            return answer(self.answers, self.spec, self.task, root or Path(), ready, **settings)


def check_first(items: Sequence[Item], *, root: Path | None = None, workers: int) -> Generator[Item, None, None]:
    """The items, in order, each when children have looked at its file, and this process will not open it if they died.

    root: of the data set; None: the paths are as the user could open them. A file alone is not looked at: a process
    takes longer to start than the answer.
    """
    if len(items) < 2:
        yield from items
        return
    paths = [item.path for item in items]
    checked = HealthCache.open(root) if root else HealthCache.open_above(paths)
    if root is None:
        paths = [Path(os.path.relpath(os.path.abspath(path), checked.root)).as_posix() for path in paths]
    with closing(checked.look(paths, threads=workers)) as looks:
        for item, _ in zip(items, looks, strict=True):
            yield item
    if len(items) >= MANY:
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


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files named, and the media files in the folders named, sorted.

    Raises:
        ValueError: nothing named, a folder without media, or one that may not be looked into.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
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
