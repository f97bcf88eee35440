"""The machine and the person at it: files, text, console, device, signals, errors. Knows nothing of ours."""
