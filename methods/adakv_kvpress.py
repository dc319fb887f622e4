"""AdaKV in kvpress's reading: a minimum for every head, and one cut over all heads of a layer, around any scorer.

Claim: heads that spread their attention need more entries than heads that focus it (Feng et al., arXiv:2407.11550).
Source: NVIDIA/kvpress 0.5.5, AdaKVPress.
Differs:
    - from AdaKV's published code (``method=adakv``): the minimum is a minimum, where that one mixes equal parts with
      shares; scores of different heads are compared as they are; the numbers of a layer add up to its budget.
    - kvpress masks what it drops, in a cache that stays as long as the prompt; here it is dropped.
    - a share of the prompt is rounded half to even; kvpress cuts it down.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.head_budgets import Safeguard, SafeguardedHeads
from harness.compression.wrappers import Wrapper


@dataclass(frozen=True)
class AdaKVKvpress(Wrapper):
    """Keep a layer's best scores over all heads, and a minimum in every head.

    Attributes:
        alpha_safeguard: share of the budget that every head keeps at least, 0 to 1.
    """

    alpha_safeguard: Safeguard

    @property
    def rescores(self) -> bool:
        """False: each head keeps its best."""
        return False

    @property
    def allocation(self) -> SafeguardedHeads:
        """Shares of the layer's best scores, above a minimum."""
        return SafeguardedHeads(self.alpha_safeguard)
