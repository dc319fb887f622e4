"""SnapKV: the tokens that the last few queries of the prompt attend to most, and these last tokens.

Claim: the attention of an observation window at the prompt's end predicts what decoding attends to (Li et al.,
    arXiv:2404.14469).
Source: Zefan-Cai/KVCache-Factory at c97f9d7, the code of the published comparisons.
Differs:
    - from the published code: scores are float32 and ties go to the lowest index; ``selection.ties=torch`` and
      ``selection.dtype=model`` do as published.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.method import Method
from harness.compression.scorers import Kernel, Pooling, Window, WindowAttention


@dataclass(frozen=True)
class SnapKV(Method):
    """Keep the tokens that the last queries attend to most, and these last tokens.

    Attributes:
        window: trailing queries that vote; their tokens are always kept.
        kernel: width of the pooling over neighbouring positions.
        pooling: ``maxpool`` or ``avgpool``.
    """

    window: Window
    kernel: Kernel
    pooling: Pooling

    @property
    def scorer(self) -> WindowAttention:
        """Attention received from the window, pooled over neighbouring positions."""
        return WindowAttention(self.window, self.kernel, self.pooling)
