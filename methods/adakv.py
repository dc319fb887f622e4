"""AdaKV: budgets of a layer's heads by how its best scores are spread over them, around any scorer.

Claim: heads that spread their attention need more entries than heads that focus it (Feng et al., arXiv:2407.11550).
Source: FFY0/AdaKV at efe4e2e; Zefan-Cai/KVCache-Factory at c97f9d7 keeps the same.
Differs:
    - the published code has one scorer, SnapKV's; here it is any. Where scores can be negative, ``normalise`` has no
      meaning.
    - as published, each head rounds its number (half to even) and the floor is cut down, so that the numbers of a layer
      add up to its budget within half an entry per head, and less than one for the floor.
    - a head without a window that would be left empty keeps one entry.
    - a budget of the window alone is refused, since nothing is chosen; the published code keeps the window.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.head_budgets import AdaptiveHeads, Floor, SkippedLayers
from harness.compression.wrappers import Wrapper


@dataclass(frozen=True)
class AdaKV(Wrapper):
    """Keep what a scorer prefers, with more entries in heads that hold more of a layer's best scores.

    Attributes:
        floor: share of the budget that every head keeps, 0 to 1; the rest goes where the best scores are.
        normalise: whether a head's scores are first multiplied by the share of them that its budget would keep.
        skip: number of first layers in which all heads keep the budget.
    """

    floor: Floor
    normalise: bool
    skip: SkippedLayers

    @property
    def rescores(self) -> bool:
        """False: each head keeps its best."""
        return False

    @property
    def allocation(self) -> AdaptiveHeads:
        """Budgets by where the best scores are."""
        return AdaptiveHeads(self.floor, self.normalise, self.skip)
