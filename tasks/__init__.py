"""Benchmarks: needle in a haystack, LongBench, RULER and prompts of token ids."""
