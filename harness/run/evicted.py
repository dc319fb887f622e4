"""What a row held while it decoded, of methods that evict then: numbers alone say it, as the schedule is known."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from harness.compression.eviction import attended
from harness.engine.prefill import Kept
from harness.results import Evicted

_POINTS = 64


def evicted(kept: Kept, tokens: int, question: int, lengths: Sequence[int]) -> Evicted | None:
    """What rows of one variant and prompt held, call by call; None if its method does not evict while decoding.

    Args:
        kept: what was kept of the prompt.
        tokens: length of what was compressed.
        question: tokens that followed in one call; 0 for none.
        lengths: new tokens of each of its rows; the last one of a row is never attended to.
    """
    eviction = kept.eviction
    if eviction is None:
        return None
    curves = []
    for length in lengths:
        layers = []
        for entries, budget in zip(kept.entries, eviction.budgets, strict=True):
            assert isinstance(entries, int)
            before, _ = attended(eviction.evictor, budget, entries, tokens, question, max(0, length - 1))
            layers.append((entries, *before))
        curves.append([fmean(call) for call in zip(*layers, strict=True)])
    longest = max(curves, key=len)
    calls = [entries for curve in curves for entries in (curve[1:] or curve)]
    total = tokens + len(longest) - 1 + max(0, question - 1)
    mean, peak = fmean(calls), max(map(max, curves))
    others = kept.bytes - kept.evicting_bytes
    entry_bytes = kept.evicting_bytes / fmean(entries for entries in kept.entries if isinstance(entries, int))
    last = len(longest) - 1
    places = sorted({round(last * point / _POINTS) for point in range(_POINTS + 1)})
    return Evicted(
        target=fmean(eviction.evictor.target(budget, total) for budget in eviction.budgets),
        peak=peak,
        mean=mean,
        peak_bytes=others + round(entry_bytes * peak),
        mean_bytes=others + round(entry_bytes * mean),
        steps=tuple(places),
        entries=tuple(round(longest[place], 3) for place in places),
    )
