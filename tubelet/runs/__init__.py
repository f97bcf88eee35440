"""The run directory: layout, checkpoints, lock."""
