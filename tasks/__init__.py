"""Benchmarks: needle in a haystack, LongBench and prompts of token ids."""
