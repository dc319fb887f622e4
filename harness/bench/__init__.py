"""Speed and memory, measured: what ``benchmarks/`` is made of.

clock.py       seconds, and where they were measured
setup.py       a grid from the words of a command line
subject.py     a model to measure, its variants and its prompts
grid.py        the whole grid against one run per cell and against the stock ``generate``
memory.py      peak memory against the prompt's length
write.py       JSON and Markdown
"""
