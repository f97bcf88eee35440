"""Starts: a model filled from an image model, or from another of ours."""
