"""VATP: H2O's attention sums times the L1 norms of values, with the first tokens kept.

Claim: a token of much attention and a small value matters little, but for the first ones (Guo et al.,
    arXiv:2406.12335).
Source: the paper, its variant on H2O.
Differs:
    - from the paper: scored once, over the prompt; the paper drops an entry at every step.
    - from the paper: H2O's recent window is a number of tokens, not half of the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from harness.compression.method import LayerState, Method, Scorer, require_above
from harness.compression.score_parts import First, forced, value_norms
from harness.compression.scorers import ColumnAccumulator, Window, column_sums


@dataclass(frozen=True)
class ValuedAttention(Scorer):
    """Attention that each token receives from the whole prompt, times the sum of absolute values of its value.

    Attributes:
        window: number of trailing tokens that are always kept, 1 or more.
        sinks: number of first tokens that come before all other candidates, 0 or more.

    Raises:
        ConfigError: a knob out of range.
    """

    window: Window
    sinks: First

    def score(self, layer: LayerState) -> Tensor:
        """Attention received, [heads, tokens - window] in the layer's score dtype."""
        return column_sums(layer, self.window, causal=True)

    def accumulator(self, layer: LayerState) -> ColumnAccumulator:
        """A reader that sums the prefill's own weights."""
        return ColumnAccumulator(layer, self.window)

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Multiply by the norms of values, and force the sinks."""
        return forced(scores * value_norms(layer, len(scores), order=1)[:, : scores.shape[1]], first=self.sinks)


@dataclass(frozen=True)
class VATP(Method):
    """Keep the first tokens, the most recent ones, and those whose attention times value is largest.

    Attributes:
        window: recent tokens, always kept.
        sinks: first tokens, always kept.
    """

    window: Window
    sinks: First

    @property
    def scorer(self) -> ValuedAttention:
        """Attention received, times norms of values."""
        return ValuedAttention(self.window, self.sinks)

    def check_budget(self, budget: int) -> None:
        """Refuse a budget that is not above the first and the recent tokens."""
        require_above(budget, "window+sinks", self.window + self.sinks, self.label)
