"""Speed and memory, measured: what ``kvgauge bench`` and ``benchmarks/`` share.

clock.py       seconds and machines
subject.py     a model to measure, its variants and its prompts
grid.py        (a) the whole grid against one run per cell and against the stock ``generate``
alone.py       (b) one method at a time: prefill, decoding time per token, peak memory
memory.py      (c) peak memory against the prompt's length
projection.py  (d) a whole table from measured parts
profile.py     where the time goes, and the floor
write.py       JSON and Markdown
"""
