"""A threshold in place of a budget (DMS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta
from torch import Tensor

from harness.compression.allocation import Allocation, Counts, Seen, Shape
from harness.compression.method import LayerState
from harness.compression.wrappers import Rescorer
from harness.values import Refusal

SlidingWindow = Annotated[
    int, Meta(ge=0), Refusal("is not a whole number of 0 or more", "kvpress uses sliding_window=128")
]


@dataclass(frozen=True)
class BeforeWindow(Rescorer):
    """Another scorer's scores, with a window that is at least as long as its own.

    Attributes:
        sliding_window: trailing tokens that are always kept.
    """

    sliding_window: SlidingWindow

    @property
    def window(self) -> int:
        """The sliding window."""
        return self.sliding_window

    def rescore(self, scores: Tensor, layer: LayerState) -> Tensor:
        """The scores before the window."""
        return scores[:, : layer.keys.shape[1] - self.sliding_window]


@dataclass(frozen=True)
class AtLeast(Allocation):
    """As many entries as have a score of at least a threshold; whatever the budget.

    Attributes:
        threshold: the least score.
    """

    threshold: float

    @property
    def sees(self) -> Literal["layer"]:
        """The scores of the layer."""
        return "layer"

    def total(self, budget: int, shape: Shape) -> int:
        """The whole prompt: nobody knows how many scores reach the threshold."""
        return shape.tokens * shape.layers * shape.cache_heads

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Counts]:
        """Numbers of the one layer that was seen; one where no score reaches the threshold and there is no window."""
        return [[max(1, shape.window + count) for count in (seen[0].scores >= self.threshold).sum(dim=1).tolist()]]
