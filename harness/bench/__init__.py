"""Speed and memory, measured: what ``benchmarks/`` is made of.

clock.py       seconds, and where they were measured
setup.py       a grid, and a model with it, from the words of a command line
subject.py     a model to measure, its variants and its prompts
grid.py        the whole grid against one run per cell and against the stock ``generate``
methods.py     each method by itself: prefill, decoding, peak memory
memory.py      peak memory against the prompt's length
profile.py     where the time of a grid goes, and its floor
checks.py      a device's kernels against references, rows in another order, rows alone
kernels.py     a kernel of ours against the torch operations that it stands for
parts.py       all of it for one model, written to files
write.py       JSON and Markdown
"""
