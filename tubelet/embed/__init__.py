"""`tubelet embed`: a vector for each file or window. `tubelet search`: which of them are alike."""

from tubelet.embed.embeddings import Embeddings
from tubelet.embed.writer import embed

__all__ = ["Embeddings", "embed"]
