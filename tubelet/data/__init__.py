"""From a folder or a table to batches."""
