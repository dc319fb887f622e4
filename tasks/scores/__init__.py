"""Scores of a generated text against a reference."""
