"""In which order prompts are prefilled so that what they begin with is computed once, and which beginnings are held meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# A shared beginning that saves fewer tokens is not worth a forward of its own.
_LEAST_TOKENS = 64


def prefix_order(prompts: Sequence[NDArray[np.int32]]) -> list[tuple[int, tuple[int, ...]]]:
    """Walk the tree of common beginnings, prompts as its leaves.

    Prompts that part at one point follow each other, the part with most tokens last: it alone needs the beginning no longer, so that few
    beginnings are held at once. A haystack with the needle at many depths, or at one depth in many lengths, is walked from its front
    to its back.

    Returns:
        Each prompt's place once, with the lengths of those of its beginnings that later prompts go on from, ascending.
    """
    ranked = sorted(range(len(prompts)), key=lambda place: prompts[place].astype(">i4").tobytes())
    common = [_common(prompts[one], prompts[other]) for one, other in pairwise(ranked)]
    order: list[tuple[int, tuple[int, ...]]] = []
    # Ranges of ``ranked`` that share a beginning; what of it is prefilled when the walk gets there; what is held for later ones.
    waiting: list[tuple[int, int, int, tuple[int, ...]]] = [(0, len(ranked), 0, ())] if ranked else []
    while waiting:
        start, stop, done, held = waiting.pop()
        if stop - start == 1:
            order.append((ranked[start], held))
            continue
        shared = min(common[start : stop - 1])
        cuts = [start, *(place + 1 for place in range(start, stop - 1) if common[place] == shared), stop]
        parts = list(pairwise(cuts))
        if shared - done < _LEAST_TOKENS:
            parts.sort(key=lambda part: min(ranked[part[0] : part[1]]))
            waiting += [(*part, done, held) for part in reversed(parts)]
        else:
            parts.sort(key=lambda part: sum(len(prompts[place]) - shared for place in ranked[part[0] : part[1]]))
            waiting.append((*parts[-1], shared, held))
            waiting += [(*part, shared, (*held, shared)) for part in reversed(parts[:-1])]
    return order


def _common(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    """How many tokens both begin with."""
    least = min(len(one), len(other))
    differs = np.flatnonzero(one[:least] != other[:least])
    return int(differs[0]) if len(differs) else least


def pauses(done: int, tokens: int, chunk: int | None, held: Sequence[int]) -> tuple[int, ...]:
    """Where the prefill of a prompt pauses before its end, ascending.

    Args:
        done: tokens that are prefilled already.
        tokens: of the prompt.
        chunk: tokens of a piece; None for no pieces.
        held: lengths of its beginnings that are to be held for other prompts.
    """
    pieces = range(done + chunk, tokens, chunk) if chunk else ()
    return tuple(sorted({*pieces, *(length for length in held if done < length < tokens)}))
