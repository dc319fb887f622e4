"""KV-cache compression, measured."""
