"""The engine: a loaded model, exact prefill, compressed caches, and decoding of many rows at once."""
