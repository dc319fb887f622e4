"""Compression: what a method keeps of a prompt, and how budgets, scores and selection decide it."""
