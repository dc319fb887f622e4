"""Compression: methods, budgets, scores and the selection of the entries that are kept."""
