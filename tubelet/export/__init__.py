"""`tubelet export`: a folder that other runtimes answer from."""

from tubelet.export.writer import export

__all__ = ["export"]
