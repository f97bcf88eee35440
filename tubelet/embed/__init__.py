"""`tubelet embed`: a vector for each file or window. `search`: which are alike. `suggest`: which to label."""

from tubelet.embed.embeddings import Embeddings
from tubelet.embed.writer import embed

__all__ = ["Embeddings", "embed"]
