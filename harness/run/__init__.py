"""Runs: what to compute, computing it, verifying and reporting it."""
