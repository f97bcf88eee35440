"""What lies between logits and what people read."""
