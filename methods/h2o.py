"""H2O: the heavy hitters, which are the tokens that receive most attention, and a recent window.

Claim: a small set of tokens carries most of the attention (Zhang et al., arXiv:2306.14048).
Source: the prefill variant that the published comparisons run (Zefan-Cai/KVCache-Factory at c97f9d7).
Differs:
    - from the paper: scored once, over the prompt; nothing is evicted or re-scored while decoding.
    - from the published code: the sums are exact and computed in row blocks, so that memory grows with the number of
      tokens, not with its square.
    - ``causal: false`` does as the code behind the published tables, where earlier queries also saw later tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.method import Method
from harness.compression.scorers import ColumnSums, Window


@dataclass(frozen=True)
class H2O(Method):
    """Keep the tokens that receive most attention from the whole prompt, and the most recent ones.

    Attributes:
        window: recent tokens always kept.
        causal: whether a query sees earlier tokens alone.
    """

    window: Window
    causal: bool

    @property
    def scorer(self) -> ColumnSums:
        """Attention received from the whole prompt."""
        return ColumnSums(self.window, self.causal)
