"""CriticalAdaKV: CriticalKV's two stages in every head, under AdaKV's budgets as kvpress reads them.

Claim: the size of projected values helps AdaKV too (Feng et al., arXiv:2502.03805).
Source: NVIDIA/kvpress 0.5.5, CriticalAdaKVPress; the same in its authors' fork, FFY0/DefensiveKV at 9251b95.
Differs:
    - with a scorer without a window, a head keeps at least one entry whatever the minimum; in the authors' fork a
      minimum of 0 is none.
    - from kvpress: what is dropped is dropped, not masked; and both stages choose among the tokens before a window.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.head_budgets import Safeguard, SafeguardedHeads
from harness.compression.two_stages import Epsilon, FirstStage, GuardedStages
from harness.compression.wrappers import Wrapper


@dataclass(frozen=True)
class CriticalAdaKV(Wrapper):
    """Keep in every head what a scorer prefers and then what has large values, with AdaKV's budgets.

    Attributes:
        alpha_safeguard: share of the budget that every head keeps at least, 0 to 1.
        first_stage_ratio: share of a head's entries that the scorer alone chooses, 0 to 1.
        epsilon: what is added to a score before it is multiplied, 0 or more.
    """

    alpha_safeguard: Safeguard
    first_stage_ratio: FirstStage
    epsilon: Epsilon

    @property
    def scorer(self) -> GuardedStages:
        """Two stages."""
        return GuardedStages(super().scorer, self.first_stage_ratio, self.epsilon, self.alpha_safeguard)

    @property
    def allocation(self) -> SafeguardedHeads:
        """Shares of the layer's best scores, above a minimum."""
        return SafeguardedHeads(self.alpha_safeguard)
