"""TOVA as in its paper: at every new token a layer drops the entry that its query attends to least.

Claim: a bounded cache loses little if it drops what the newest query attends to least (Oren et al., arXiv:2401.06104).
Source: https://github.com/schwartz-lab-NLP/TOVA at 9c7d09b.
Differs:
    - ``evict_every`` above 1 drops several entries at once, by the newest query; in the paper it is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from harness.compression.eviction import Entries, Every, Evictor
from harness.compression.method import Method
from harness.compression.score_parts import LastQuery


@dataclass(frozen=True)
class NewestQuery(Evictor):
    """Attention from the newest token, averaged over all query heads of the layer; that token itself can be dropped."""

    reads: ClassVar[bool] = True

    def reading(self, weights: Tensor) -> Tensor:
        """The weights of the last query alone."""
        return weights[..., -1, :].float()

    def updated(self, statistic: Tensor, reading: Tensor) -> Tensor:
        """The newest weights; earlier ones are forgotten."""
        return reading

    def scores(self, entries: Entries) -> Tensor:
        """The mean over heads, [rows, 1, entries]."""
        assert entries.statistic is not None
        return entries.statistic.mean((1, 2))[:, None]


@dataclass(frozen=True)
class TovaDecode(Method):
    """Keep the tokens that the newest token attends to most, at every new token.

    Attributes:
        evict_every: new tokens from one eviction to the next.
    """

    evict_every: Every

    @property
    def scorer(self) -> LastQuery:
        """Attention from the last token of the prompt, averaged over heads."""
        return LastQuery(keep_last=False)

    @property
    def evictor(self) -> NewestQuery:
        """Attention from the newest token, averaged over heads."""
        return NewestQuery(self.evict_every)
