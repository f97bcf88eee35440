"""Files of strangers, opened without trust."""
