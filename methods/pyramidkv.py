"""PyramidKV: SnapKV's scorer, with more entries in the lower layers and fewer in the upper ones.

Claim: attention spreads in lower layers and narrows in upper ones, so budgets should too (Cai et al.,
    arXiv:2406.02069).
Source: Zefan-Cai/KVCache-Factory at c97f9d7; its schedule is ``schedule: reference``. That of FFY0/AdaKV at efe4e2e
    is ``schedule: sloped``.
Differs:
    - ``schedule: reference`` keeps the published floor division, whose total exceeds budget x layers: by 0-27 % at the
      published budgets (64-2048) and window, and anywhere by up to half the number of layers in entries per layer.
    - ``schedule: sloped`` also falls where the prompt is too short for a pyramid at its budget: the first layers then
      keep the whole prompt, and the last ones less than the budget.
    - ``schedule: exact`` keeps the same endpoints and makes the total exactly budget x layers.
    - with one layer the published code divides by zero; here that layer gets the budget.
    - from the paper: its step divides by the number of layers, the code's, which is followed here, by one less; and in
      the code the window comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.method import Method
from harness.compression.scorers import Kernel, Pooling, Window, WindowAttention
from harness.values import Refusal

Beta = Annotated[int, Meta(ge=1), Refusal("is not a whole number of 1 or more", "the published tables use beta=20")]
Schedule = Literal["reference", "sloped", "exact"]


@dataclass(frozen=True)
class Pyramid(Allocation):
    """Numbers that fall from the first layer to the last; the whole prompt if it fits the budget.

    Attributes:
        beta: the top layer gets 1 / beta of an even share.
        schedule: ``reference``, ``sloped`` or ``exact``.
    """

    beta: Beta
    schedule: Schedule

    def total(self, budget: int, shape: Shape) -> int:
        """The sum of the numbers, which ``reference`` and ``sloped`` let exceed the budget."""
        return sum(min(count, shape.tokens) for count in self.counts(budget, shape, ())) * shape.cache_heads

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[int]:
        """One number per layer."""
        tokens, layers = shape.tokens, shape.layers
        if tokens <= budget:
            return [tokens] * layers
        share = budget - shape.window  # entries chosen per layer if all layers were equal
        if layers == 1 or (tokens < 2 * share and self.schedule != "sloped"):
            return [budget] * layers
        lowest = share // self.beta
        highest = 2 * share - lowest
        if highest >= tokens - shape.window:
            highest = tokens - shape.window
            lowest = 2 * share - highest
        schedule = _exact if self.schedule == "exact" else _floored
        return [chosen + shape.window for chosen in schedule(highest, lowest, layers)]


@dataclass(frozen=True)
class PyramidKV(Method):
    """Keep what SnapKV scores highest, with more entries in the lower layers and fewer in the upper ones.

    Attributes:
        window: trailing queries that vote; their tokens are always kept, in every layer.
        kernel: width of the pooling over neighbouring positions.
        pooling: ``maxpool`` or ``avgpool``.
        beta: the top layer gets 1 / beta of an even share; a whole number of 1 or more.
        schedule: ``reference``, ``sloped`` or ``exact``.
    """

    window: Window
    kernel: Kernel
    pooling: Pooling
    beta: Beta
    schedule: Schedule

    @property
    def scorer(self) -> WindowAttention:
        """SnapKV's: attention received from the window, pooled over neighbouring positions."""
        return WindowAttention(self.window, self.kernel, self.pooling)

    @property
    def allocation(self) -> Pyramid:
        """A schedule over layers."""
        return Pyramid(self.beta, self.schedule)


def _floored(highest: int, lowest: int, layers: int) -> Sequence[int]:
    """Numbers that fall from ``highest`` by equal steps, floored to whole ones, so the last is ``lowest`` or above."""
    step = (highest - lowest) // (layers - 1)
    return [highest - layer * step for layer in range(layers)]


def _exact(highest: int, lowest: int, layers: int) -> Sequence[int]:
    """Numbers that fall from ``highest`` to ``lowest``, with the total exactly (highest + lowest) * layers / 2.

    A layer and its mirror image together get ``highest + lowest``. This is even, being twice the equal share, so the
    middle layer gets a whole number.
    """
    drop = highest - lowest
    lower = [highest - drop * layer // (layers - 1) for layer in range(layers // 2)]
    middle = [(highest + lowest) // 2] if layers % 2 else []
    return [*lower, *middle, *(highest + lowest - chosen for chosen in reversed(lower))]
