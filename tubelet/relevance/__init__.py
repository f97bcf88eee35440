"""Relevance: which parts of a clip an answer rests on, how far that can be trusted, and how it looks."""
