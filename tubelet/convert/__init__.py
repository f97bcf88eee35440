"""`tubelet convert`: weights of others to ours, and back."""

from tubelet.convert.conversion import convert, convert_back

__all__ = ["convert", "convert_back"]
