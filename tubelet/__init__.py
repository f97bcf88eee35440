"""Space-time transformers for video, images and sound."""

__version__ = "0.1.0"
