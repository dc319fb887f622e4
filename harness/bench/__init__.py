"""Measurements of speed and memory, from which ``benchmarks/`` and ``kvgauge bench`` are made.

clock.py       seconds, and the machine that they were measured on
setup.py       a grid and its model from Hydra overrides
subject.py     a model to measure, its variants and its prompts
grid.py        the whole grid against one run per cell and against the stock ``generate``
methods.py     each method by itself: prefill, decoding, peak memory
memory.py      peak memory by prompt length
profile.py     where the time of a grid goes, and its lower bound
checks.py      attention against a reference, rows in another order, rows alone
kernels.py     a kernel of the project against the torch operations that it equals
parts.py       all of this for one model, written to files
write.py       measurements as JSON and Markdown
"""

# What ``parts.measure`` can measure.
PARTS = ("grid", "methods", "memory", "checks", "kernels")
