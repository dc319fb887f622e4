"""Non-causal attention: the tokens that all queries of their chunk attend to, earlier queries included.

Claim: without a mask the first tokens have no advantage (Chari et al., arXiv:2507.08143).
Source: kvpress 0.5.5, NonCausalAttnPress.
Differs:
    - from kvpress: a share of the prompt is rounded to a whole number, not cut down. Its logits are not scaled, and the
      tokens that fill the last chunk take part in the softmax; both are followed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from msgspec import Meta
from torch import Tensor

from harness.compression.leverage import chunk_attention
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import standardised, value_norms
from harness.compression.scorers import pool

Chunk = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class ChunkAttention(Scorer):
    """Attention within chunks without a mask, times the norms of values, pooled over three neighbours.

    Attributes:
        chunk: tokens in a chunk, 1 or more.

    Raises:
        ConfigError: a knob out of range.
    """

    window: ClassVar[int] = 0
    chunk: Chunk

    def score(self, layer: LayerState) -> Tensor:
        """[heads, tokens]; see ``chunk_attention``."""
        return chunk_attention(layer.queries.to(layer.score_dtype), layer.keys.to(layer.score_dtype), self.chunk)

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Multiply by the norms of values, pool, and standardise."""
        return standardised(pool(scores * value_norms(layer, len(scores)), 3, "avgpool"))


@dataclass(frozen=True)
class NonCausal(Method):
    """Keep the tokens that all queries of their chunk attend to.

    Attributes:
        chunk: tokens in a chunk.
    """

    chunk: Chunk

    @property
    def scorer(self) -> ChunkAttention:
        """Attention within chunks without a mask."""
        return ChunkAttention(self.chunk)
