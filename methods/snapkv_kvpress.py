"""SnapKV as kvpress reads it: a window of 64 inside the budget, pooled before heads are grouped.

Claim: the attention of an observation window at the prompt's end predicts what decoding attends to (Li et al.,
    arXiv:2404.14469).
Source: kvpress 0.5.5, SnapKVPress.
Differs:
    - from the paper and from ``method=snapkv``: the window is a part of the budget, and where it does not fit, only its
      newest tokens are kept.
    - from kvpress: it keeps an arbitrary part of a window that does not fit; and a share of the prompt is rounded to a
      whole number here, not cut down.
    - a prompt that is no longer than the window keeps its newest tokens; kvpress refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.method import Method
from harness.compression.score_parts import WindowInBudget
from harness.compression.scorers import Kernel, Pooling, Window


@dataclass(frozen=True)
class SnapKVKvpress(Method):
    """Keep the tokens that the last queries attend to most, these last tokens being a part of the budget.

    Attributes:
        window: trailing queries that vote; their tokens come before all others.
        kernel: width of the pooling over neighbouring positions.
        pooling: ``maxpool`` or ``avgpool``.
    """

    window: Window
    kernel: Kernel
    pooling: Pooling

    @property
    def scorer(self) -> WindowInBudget:
        """Attention received from the window, pooled, with the window's own tokens forced."""
        return WindowInBudget(self.window, self.kernel, self.pooling)
