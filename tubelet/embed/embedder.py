"""From a file to its vector: the mean of the model's features over the views of the file."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import Views, item_range, load_views
from tubelet.data.items import Item
from tubelet.embed.codes import check_codes, cut_steps, find_range, holds_codes, see_codes, step_seconds
from tubelet.features.store import hash_encoder
from tubelet.nn.create import format_name
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.predict.answer import mean_features, parse_views
from tubelet.predict.exported import is_exported
from tubelet.predict.precision import cast_encoders, choose_dtype
from tubelet.stream.codes import hash_steps
from tubelet.system.device import find_device
from tubelet.weights.store import open_model

POOLING = "mean over views"


@dataclass(frozen=True)
class Embedder:
    """A model without its head, and how files reach it.

    run: the path that the weights are of. key: that of `hash_encoder`; codes_key: that of codes of steps. dtype: what
    the encoders compute in. views: of each file, such as 4x3, or auto.
    """

    model: SpaceTimeTransformer
    spec: ClipSpec
    run: Path
    key: str
    codes_key: str
    dtype: str
    device: torch.device
    views: str = "auto"

    @classmethod
    def load(
        cls, run: str | os.PathLike[str], *, views: str = "auto", device: str = "auto", dtype: str = "float32"
    ) -> "Embedder":
        """That of a run directory, a model.safetensors, or weights without a head.

        Raises:
            ValueError: no weights there, or they do not say how their clips are made, or a dtype or views that cannot
                be.
        """
        if is_exported(run):
            raise ValueError(f"{run}: an exported model gives no features: name the run that it was made from")
        place, file = find_device(device), open_model(run)
        if "clip_spec" not in file.about:
            raise ValueError(
                f"{run}: weights without a ClipSpec do not say how a file becomes a clip: name a run of `tubelet "
                "train`, or convert the weights again with --seconds-between-frames"
            )
        spec, model = ClipSpec.from_json(file.about["clip_spec"]), file.load()
        parse_views(views, spec.kind)
        chosen, _ = choose_dtype(dtype, place)
        key = hash_encoder(model, encoders=len(model.encoders), clip_spec=spec.to_json())
        codes_key = hash_steps(model, spec)
        ready = cast_encoders(model, chosen).to(place)
        name = str(chosen).removeprefix("torch.")
        return cls(ready, spec, Path(os.path.abspath(run)), key, codes_key, name, place, views)

    @property
    def name(self) -> str:
        """The name of the model, such as vivit2-B/16x2."""
        return format_name(self.model.config)

    def describe(self) -> dict[str, Any]:
        """All that vectors depend on but for the file, as JSON, with where the model is."""
        return {
            "run": str(self.run),
            "model": self.name,
            "encoder": self.key,
            "clip_spec": self.spec.to_json(),
            "views": self.views,
            "dtype": self.dtype,
            "pooling": POOLING,
            "width": self.model.stack[-1].out_dim,
        }

    def find_range(self, item: Item) -> tuple[float, float]:
        """Start and end of an item, in seconds. Raises MediaError where its file cannot be read."""
        if holds_codes(item.path):
            return find_range(item, self.read_codes(item), step_seconds(self.model, self.spec))
        return item_range(item.path, start_seconds=item.start_seconds, end_seconds=item.end_seconds)

    def load_views(self, item: Item) -> Views:
        """The clips of an item, (V, C, T, H, W), or, of a file of codes, their steps (V, t, D).

        Raises: MediaError where the file cannot be read; ValueError where it holds codes of another model.
        """
        temporal, spatial = parse_views(self.views, self.spec.kind)
        if holds_codes(item.path):
            return cut_steps(item, self.read_codes(item), self.model, self.spec, temporal=temporal)
        where = {"start_seconds": item.start_seconds, "end_seconds": item.end_seconds}
        return load_views(item.path, self.spec, temporal=temporal, spatial=spatial, **where)

    def read_codes(self, item: Item) -> Tensor:
        if parse_views(self.views, self.spec.kind)[1] > 1:
            raise ValueError(f"{item.path}: codes are of the centre of a video: not with --views {self.views}")
        return check_codes(item, self.model, self.codes_key)

    @torch.inference_mode()
    def embed(self, clips: Tensor) -> np.ndarray:
        """Clips (V, C, T, H, W) of one item, or their steps (V, t, D) -> its vector (D,) float32.

        Raises ValueError where it is not finite.
        """
        see = self.model.features if clips.ndim == 5 else partial(see_codes, self.model)
        vector = mean_features(lambda piece: see(piece.to(self.device)), clips).numpy()
        if not np.isfinite(vector).all():
            raise ValueError(
                f"{self.run}: features that are not finite, in {self.dtype}: take another --dtype, or other weights"
            )
        return vector
