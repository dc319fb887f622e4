"""DuoAttention: some kv heads keep the whole prompt, the others its first and last tokens, by a file of learnt values.

Claim: only retrieval heads need the whole context; the others attend to first and recent tokens (Xiao et al.,
    arXiv:2410.10819).
Source: mit-han-lab/duo-attention at fe93c31; NVIDIA/kvpress 0.5.5 keeps the same entries for the same heads.
Differs:
    - from the authors' code: while decoding, the heads that stream keep what they kept of the prompt and every new
      token; there they go on dropping.
    - the prompt attends to all of itself in every head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
from msgspec import Meta

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.method import Method
from harness.compression.method_files import of_cache, read_text, refusal
from harness.compression.scorers import FirstTokens, Window
from harness.values import Refusal

Sparsity = Annotated[
    float,
    Meta(ge=0, le=1),
    Refusal("is not a number from 0 to 1", "the authors' paper uses sparsity=0.5 with grouped queries"),
]
First = Annotated[int, Meta(ge=0), Refusal("is not a whole number of 0 or more", "the authors use sinks=64")]

_WHAT = "values of kv heads: tab-separated numbers, a row per layer"
_SEED, _NOISE = 42, 1e-6  # of the authors' code: decides among equal values


@dataclass(frozen=True)
class FullOrStreaming(Allocation):
    """The whole prompt in some heads; ``streaming`` entries in the others.

    Attributes:
        file: see ``Duo``.
        sparsity: see ``Duo``.
        streaming: entries of a head that streams.
        label: the method's label, for errors.
    """

    file: str
    sparsity: Sparsity
    streaming: int
    label: str

    def total(self, budget: int, shape: Shape) -> int:
        """The sum of the numbers."""
        return sum(sum(layer) for layer in self.counts(budget, shape, ()))

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Sequence[int]]:
        """A number for each head of the cache, whatever the budget."""
        full = full_heads(self.file, self.sparsity, self.label)
        of_cache(full, shape, self.file, "kv")
        copies = shape.cache_heads // shape.kv_heads
        short = min(self.streaming, shape.tokens)
        return [[shape.tokens if head else short for head in layer for _ in range(copies)] for layer in full]


@dataclass(frozen=True)
class Duo(Method):
    """Keep everything in heads of high values, and the first and the last tokens in the others.

    Attributes:
        file: tab-separated values, a row per layer and a column per kv head. Null is refused.
        sparsity: share of heads that stream.
        sinks: first tokens that a head keeps that streams.
        recent: last tokens that such a head keeps.

    Raises:
        ConfigError: the file cannot be read or has another form.
    """

    file: str | None
    sparsity: Sparsity
    sinks: First
    recent: Window

    def __post_init__(self) -> None:
        super().__post_init__()
        full_heads(self.file, self.sparsity, self.label)

    @property
    def uses_budget(self) -> bool:
        """False: ``sparsity`` says what is kept."""
        return False

    @property
    def scorer(self) -> FirstTokens:
        """Position alone: the first tokens, beside the last ones."""
        return FirstTokens(self.recent)

    @property
    def allocation(self) -> FullOrStreaming:
        """The whole prompt or a few entries, head by head."""
        assert self.file is not None
        return FullOrStreaming(self.file, self.sparsity, self.sinks + self.recent, self.label)

    def check_budget(self, budget: int) -> None:
        """Nothing: there is no budget."""


@lru_cache
def full_heads(file: str | None, sparsity: float, label: str) -> tuple[tuple[bool, ...], ...]:
    """Which kv heads keep the whole prompt, one row per layer.

    As in the authors' code, values are clipped to 0-1, and a little noise from a fixed seed decides among equal ones.

    Raises:
        ConfigError: the file cannot be read or has another form.
    """
    lines = [line.split("\t") for line in read_text(file, label, _WHAT).splitlines() if line.strip()]
    try:
        values = np.array(lines, dtype=np.float64)
    except ValueError as error:
        raise refusal(file, label, "is no table of numbers", _WHAT) from error
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise refusal(file, label, "is no table of numbers", _WHAT)
    noisy = values.clip(0, 1) + np.random.RandomState(_SEED).uniform(0, _NOISE, values.shape)
    threshold = np.quantile(noisy, sparsity)
    full = np.full(values.shape, sparsity <= 0) if sparsity <= 0 or sparsity >= 1 else noisy >= threshold
    return tuple(map(tuple, full.tolist()))
