"""PyramidKV as kvpress reads it: SnapKV's scores with the window inside the budget, and numbers that fall by layers.

Claim: attention spreads in lower layers and narrows in upper ones, so budgets should too (Cai et al.,
    arXiv:2406.02069).
Source: kvpress 0.5.5, PyramidKVPress.
Differs:
    - from ``method=pyramidkv``: the window is a part of the budget, every layer's number is rounded by itself, and
      numbers are flat where the last layer's would fall below the window.
    - with one layer kvpress divides by zero; here that layer gets the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.method import Method
from harness.compression.score_parts import WindowInBudget
from harness.compression.scorers import Kernel, Pooling, Window
from harness.values import Refusal

Beta = Annotated[int, Meta(ge=1), Refusal("is not a whole number of 1 or more", "kvpress uses beta=20")]


@dataclass(frozen=True)
class Slope(Allocation):
    """Numbers that fall by equal steps from the first layer to the last, each rounded half to even.

    Attributes:
        window: trailing tokens, below whose number no layer may fall.
        beta: the last layer gets 1 / beta of an even share.
    """

    window: Window
    beta: Beta

    def total(self, budget: int, shape: Shape) -> int:
        """The sum of the numbers, which rounding lets differ from the budget."""
        return sum(self.counts(budget, shape, ())) * shape.cache_heads

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[int]:
        """One number per layer."""
        tokens, layers = shape.tokens, shape.layers
        share = float(shape.share * tokens)
        if share >= tokens:
            return [tokens] * layers
        lowest = share / self.beta
        highest = 2 * share - lowest
        if highest >= tokens - self.window:
            highest = tokens - self.window
            lowest = 2 * share - highest
        if layers == 1 or not tokens >= highest >= lowest >= self.window:
            return [max(1, round(share))] * layers
        step = (highest - lowest) / (layers - 1)
        return [round(highest - layer * step) for layer in range(layers)]


@dataclass(frozen=True)
class PyramidKVKvpress(Method):
    """Keep what kvpress's SnapKV scores highest, with more entries in the lower layers.

    Attributes:
        window: trailing queries that vote; their tokens come before all others.
        kernel: width of the pooling over neighbouring positions.
        pooling: ``maxpool`` or ``avgpool``.
        beta: the last layer gets 1 / beta of an even share.
    """

    window: Window
    kernel: Kernel
    pooling: Pooling
    beta: Beta

    @property
    def scorer(self) -> WindowInBudget:
        """Attention received from the window, pooled, with the window's own tokens forced."""
        return WindowInBudget(self.window, self.kernel, self.pooling)

    @property
    def allocation(self) -> Slope:
        """A schedule over layers."""
        return Slope(self.window, self.beta)
