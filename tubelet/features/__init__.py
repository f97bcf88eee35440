"""Features are files with one key and one format: frozen training and streaming stand on them."""
