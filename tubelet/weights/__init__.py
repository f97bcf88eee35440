"""Checkpoints in and out: our own format, the dialects of others, initialisation from an image ViT."""

from tubelet.weights.dialects.reference import from_reference, read_reference, recognise, to_reference
from tubelet.weights.init.from_image import init_from_image
from tubelet.weights.init.image_weights import image_config
from tubelet.weights.init.resize_patch import resize_kernel, with_patch
from tubelet.weights.store import load, read_about, save

__all__ = [
    "from_reference",
    "image_config",
    "init_from_image",
    "load",
    "read_about",
    "read_reference",
    "recognise",
    "resize_kernel",
    "save",
    "to_reference",
    "with_patch",
]
