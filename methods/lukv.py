"""LU-KV: numbers of entries per layer and kv head by curves that were measured beforehand, around any scorer.

Claim: how much each head can lose at each compression can be learnt once for a model and a scorer (arXiv:2602.08585).
Source: NVIDIA/kvpress 0.5.5, LUKVPress.
Differs:
    - with ``granularity=query_head`` a query head keeps as many entries as its kv head would.
    - where a scorer forces more tokens than a head keeps, the newest of them are kept; in kvpress the oldest are.
    - with a scorer that always keeps a window, this window comes first, and ``recent`` has no effect on its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.method import LayerState
from harness.compression.method_files import of_cache, place, refusal
from harness.compression.wrappers import Rescorer, Wrapper
from harness.values import Refusal

First = Annotated[int, Meta(ge=0), Refusal("is not a whole number of 0 or more", "kvpress uses sinks=4")]
Last = Annotated[int, Meta(ge=0), Refusal("is not a whole number of 0 or more", "kvpress uses recent=1")]
Rows = tuple[tuple[tuple[float, ...], ...], ...]

PERCENTS = 99
_WHAT = f"curves: a numpy array [{PERCENTS}, layers, kv heads] of dropped shares, for 1 % to {PERCENTS} % compression"


@dataclass(frozen=True)
class Protected(Rescorer):
    """Another scorer's scores, with the first and the last tokens above all others; of these the first come first.

    Attributes:
        sinks: number of first tokens.
        recent: number of last tokens.
    """

    sinks: First
    recent: Last

    def rescore(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Scores in which the protected tokens have the largest number."""
        tokens = layer.keys.shape[1]
        position = torch.arange(scores.shape[1], device=scores.device)
        protected = (position < self.sinks) | (position >= tokens - self.recent)
        return scores.masked_fill(protected, torch.finfo(scores.dtype).max)


@dataclass(frozen=True)
class Curves(Allocation):
    """Numbers by the row of the curves for the budget's compression.

    Attributes:
        file: see ``LUKV``.
        label: the method's label, for errors.
    """

    file: str
    label: str

    def total(self, budget: int, shape: Shape) -> int:
        """The sum of the numbers."""
        return sum(map(sum, self.counts(budget, shape, ())))

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Sequence[int]]:
        """A number for each head of the cache, 1 or more."""
        percent = round(100 * (1 - shape.share))
        dropped = curves(self.file, self.label)[min(max(percent, 1), PERCENTS) - 1]
        of_cache(dropped, shape, self.file, "kv")
        copies, least = shape.cache_heads // shape.kv_heads, max(1, shape.window)
        return [
            [max(least, count) for count in whole_numbers(layer, shape.tokens) for _ in range(copies)]
            for layer in dropped
        ]


@dataclass(frozen=True)
class LUKV(Wrapper):
    """Keep what a scorer prefers, as many entries in each head as curves say.

    Attributes:
        file: a numpy array [99, layers, kv heads]: the share that each head drops at 1 % to 99 % compression.
        sinks: first tokens that are kept before all others.
        recent: last tokens that are kept before all others.

    Raises:
        ConfigError: the file cannot be read or has another form.
    """

    file: str | None
    sinks: First
    recent: Last

    def __post_init__(self) -> None:
        super().__post_init__()
        curves(self.file, self.label)

    @property
    def scorer(self) -> Protected:
        """The wrapped method's, with protected tokens."""
        return Protected(super().scorer, self.sinks, self.recent)

    @property
    def allocation(self) -> Curves:
        """Numbers by curves."""
        assert self.file is not None
        return Curves(self.file, self.label)


def whole_numbers(dropped: Sequence[float], tokens: int) -> list[int]:
    """Entries of a layer's heads: what the shares leave, cut down, and one more for the largest remainders."""
    kept = (1 - np.array(dropped, dtype=np.float32)) * np.float32(tokens)
    numbers = np.floor(kept).astype(int)
    more = round(float(kept.sum())) - int(numbers.sum())
    numbers[np.argsort(-(kept - numbers), kind="stable")[: max(0, more)]] += 1
    return [min(int(number), tokens) for number in numbers]


@lru_cache
def curves(file: str | None, label: str) -> Rows:
    """The shares that heads drop, by percent, layer and kv head.

    Raises:
        ConfigError: the file cannot be read or has another form.
    """
    try:
        table = np.load(place(file, label, _WHAT), allow_pickle=False)
    except OSError as error:
        raise refusal(file, label, f"cannot be read ({error.strerror or 'no numpy array'})", _WHAT) from error
    except (ValueError, EOFError) as error:
        raise refusal(file, label, "is no numpy array", _WHAT) from error
    if not isinstance(table, np.ndarray) or table.dtype.kind not in "fiu" or table.ndim != 3 or len(table) != PERCENTS:
        shape = list(table.shape) if isinstance(table, np.ndarray) else "several arrays"
        raise refusal(file, label, f"holds {shape}", _WHAT)
    if not table.size or not ((table >= 0) & (table <= 1)).all():
        raise refusal(file, label, "has shares that are not from 0 to 1", _WHAT)
    return tuple(tuple(map(tuple, row)) for row in table.tolist())
