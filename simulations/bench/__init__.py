"""Benchmarks: ours and the limit beside it, in one run, as ratios. Commands, never timed tests."""
