"""StreamingLLM as in its paper: at every new token the first tokens and the newest ones, at positions in the cache.

Claim: sinks keep a model fluent beyond its window (Xiao et al., arXiv:2309.17453).
Source: https://github.com/mit-han-lab/streaming-llm at 2e50426.
Differs:
    - tokens are turned to their distances within the cache: the newest ones stay where they are and the sinks follow
      them, where that code turns all keys anew. Attention, which sees distances alone, is the same.
    - ``rolling: false`` keeps the tokens' own positions, as the baselines of other papers do.
    - that code can make room before a token comes (``evict_for_space``), which is this with a budget less by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.compression.eviction import Entries, Every, Evictor
from harness.compression.method import Method, require_above
from harness.compression.scorers import Sinks, SinksThenRecent


@dataclass(frozen=True)
class OldestButSinks(Evictor):
    """The oldest entries but the first tokens.

    Attributes:
        sinks: number of first tokens that are never dropped, 0 or more.
        rolling: whether distances are those within the cache.
    """

    sinks: Sinks
    rolling: bool

    @property
    def rerotated(self) -> int:
        """The sinks, if positions roll: nothing is dropped between later tokens."""
        return self.sinks if self.rolling else 0

    def scores(self, entries: Entries) -> Tensor:
        """The position, raised for the sinks, [rows, cache_heads, entries]."""
        return entries.positions.double().masked_fill(entries.positions < self.sinks, torch.inf)


@dataclass(frozen=True)
class StreamingLLMDecode(Method):
    """Keep the first tokens and the most recent ones, at every new token.

    Attributes:
        sinks: number of first tokens kept, the rest of the budget being recent tokens.
        evict_every: new tokens from one eviction to the next.
        rolling: whether positions are those within the cache.
    """

    sinks: Sinks
    evict_every: Every
    rolling: bool

    @property
    def scorer(self) -> SinksThenRecent:
        """Position alone."""
        return SinksThenRecent(self.sinks)

    @property
    def evictor(self) -> OldestButSinks:
        """Position alone."""
        return OldestButSinks(self.evict_every, self.sinks, self.rolling)

    def check_budget(self, budget: int) -> None:
        """Refuse a budget that is not above ``sinks``."""
        require_above(budget, "sinks", self.sinks, self.label)
