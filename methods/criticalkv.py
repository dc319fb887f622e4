"""CriticalKV: half of the entries by a scorer, the others by their scores times the size of their projected values.

Claim: what an entry adds to the output depends on its value too (Feng et al., arXiv:2502.03805).
Source: NVIDIA/kvpress 0.5.5, CriticalKVPress; the same in its authors' fork, FFY0/DefensiveKV at 9251b95.
Differs:
    - from kvpress: the first stage is a share of the kept entries, where kvpress takes it of tokens * (1 - ratio), no
      whole number: at a share of 0.5, the published one, it is the same.
    - from kvpress: with a scorer that always keeps a window, both stages choose among the tokens before it.
    - with ``granularity=query_head`` each query head has the size of its own projected values; with ``kv_head``, as
      published, the mean over the group.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.two_stages import Epsilon, FirstStage, TwoStages
from harness.compression.wrappers import Wrapper


@dataclass(frozen=True)
class CriticalKV(Wrapper):
    """Keep what a scorer prefers, and then what has large values as well.

    Attributes:
        first_stage_ratio: share of the kept entries that the scorer alone chooses, 0 to 1.
        epsilon: what is added to a score before it is multiplied, 0 or more.
    """

    first_stage_ratio: FirstStage
    epsilon: Epsilon

    @property
    def allocates(self) -> bool:
        """False: it keeps as many entries as the wrapped method."""
        return False

    @property
    def reranks(self) -> bool:
        """True: the second stage follows on the scores that it is given."""
        return True

    @property
    def scorer(self) -> TwoStages:
        """Two stages."""
        return TwoStages(super().scorer, self.first_stage_ratio, self.epsilon)
