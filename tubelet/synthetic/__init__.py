"""Rendered clips with known truth, for the demo, the benchmarks and pre-training."""
