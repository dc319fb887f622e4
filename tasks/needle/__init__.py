"""Needle in a haystack: its grid, contexts, settings and scores."""
