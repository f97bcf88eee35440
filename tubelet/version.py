"""The version of tubelet, known without importing the rest."""

__version__ = "0.1.0"
