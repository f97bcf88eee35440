"""Space-time transformers for video, images and sound: from a folder of clips to a tested model, in one command.

Names are imported when they are first used, so that `import tubelet` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tubelet.version import __version__

if TYPE_CHECKING:
    from tubelet import nn, train, weights
    from tubelet.data.clip_spec import ClipSpec
    from tubelet.embed.embeddings import Embeddings
    from tubelet.nn.config import ModelConfig
    from tubelet.nn.create import list_models, model_config
    from tubelet.nn.model import SpaceTimeTransformer
    from tubelet.nn.streamer import Streamer
    from tubelet.predict.predictor import Prediction, Predictor
    from tubelet.relevance.explain import explain
    from tubelet.stream.segmenter import Segmenter
    from tubelet.train.config import TrainConfig
    from tubelet.train.train import train_fn
    from tubelet.weights.init.from_image import init_from_image
    from tubelet.weights.pretrained import create_model
    from tubelet.weights.store import load, save

# public name -> the file it lives in
HOMES = {
    "ClipSpec": "tubelet.data.clip_spec",
    "Embeddings": "tubelet.embed.embeddings",
    "ModelConfig": "tubelet.nn.config",
    "Prediction": "tubelet.predict.predictor",
    "Predictor": "tubelet.predict.predictor",
    "Segmenter": "tubelet.stream.segmenter",
    "SpaceTimeTransformer": "tubelet.nn.model",
    "Streamer": "tubelet.nn.streamer",
    "TrainConfig": "tubelet.train.config",
    "create_model": "tubelet.weights.pretrained",
    "explain": "tubelet.relevance.explain",
    "init_from_image": "tubelet.weights.init.from_image",
    "list_models": "tubelet.nn.create",
    "load": "tubelet.weights.store",
    "model_config": "tubelet.nn.create",
    "save": "tubelet.weights.store",
    "train_fn": "tubelet.train.train",
}
ROOMS = ("nn", "train", "weights")

__all__ = [
    "ClipSpec",
    "Embeddings",
    "ModelConfig",
    "Prediction",
    "Predictor",
    "Segmenter",
    "SpaceTimeTransformer",
    "Streamer",
    "TrainConfig",
    "__version__",
    "create_model",
    "explain",
    "init_from_image",
    "list_models",
    "load",
    "model_config",
    "nn",
    "save",
    "train",
    "train_fn",
    "weights",
]


def __getattr__(name: str) -> object:
    if name in ROOMS:
        return import_module(f"tubelet.{name}")
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module 'tubelet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
