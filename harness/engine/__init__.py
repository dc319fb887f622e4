"""The engine: a loaded model, exact prefill, compressed caches, and greedy decoding of many rows at once."""
