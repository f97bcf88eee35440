"""From a file to frames or sound. `decoder.py` is the only file that imports the decoder."""
