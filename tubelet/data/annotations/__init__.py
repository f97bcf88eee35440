"""Labels that other programs wrote: a file for each format, and `reading`, which tells them apart."""
