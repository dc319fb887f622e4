"""Benchmarks: needles, LongBench, RULER and others, your own data, and prompts of token ids."""
