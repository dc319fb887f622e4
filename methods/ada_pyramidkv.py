"""Ada-PyramidKV: PyramidKV's budgets over layers, and in each layer AdaKV's over heads, around any scorer.

Claim: AdaKV's budgets over heads improve methods with budgets over layers too (Feng et al., arXiv:2407.11550).
Source: FFY0/AdaKV at efe4e2e.
Differs:
    - from ``method=pyramidkv``: the schedule slopes whatever the budget is, and a layer drops nothing where its number
      exceeds the prompt. As published, steps are floored, so that the total may exceed budget x layers.
    - with one layer the published code divides by zero; here that layer gets the budget.
    - the published code computes the schedule of its first prompt alone and reuses it; here each prompt has its own.
    - as with ``method=adakv``, each head rounds its number, and one without a window keeps at least one entry.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.head_budgets import AdaptivePyramid, Beta, Floor, SkippedLayers
from harness.compression.wrappers import Wrapper


@dataclass(frozen=True)
class AdaPyramidKV(Wrapper):
    """Keep what a scorer prefers, with budgets over layers by a schedule and over heads by their best scores.

    Attributes:
        floor: share of the layer's budget that every head keeps, 0 to 1.
        normalise: whether a head's scores are first multiplied by the share of them that its budget would keep.
        skip: number of first layers in which all heads keep the layer's budget.
        beta: the top layer gets 1 / beta of an even share; a whole number of 1 or more.
    """

    floor: Floor
    normalise: bool
    skip: SkippedLayers
    beta: Beta

    @property
    def rescores(self) -> bool:
        """False: each head keeps its best."""
        return False

    @property
    def allocation(self) -> AdaptivePyramid:
        """A schedule over layers, and budgets by where the best scores are."""
        return AdaptivePyramid(self.floor, self.normalise, self.skip, self.beta)
