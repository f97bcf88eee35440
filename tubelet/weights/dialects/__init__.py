"""Names that others give to weights, one file each."""
