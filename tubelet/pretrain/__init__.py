"""Pre-training: weights that know motion before they see a clip of the user, from made-up worlds alone."""
