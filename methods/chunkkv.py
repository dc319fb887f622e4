"""ChunkKV: whole chunks of neighbouring tokens, those with the best mean score, around any scorer.

Claim: chunks keep the context that makes a token mean something (Liu et al., arXiv:2502.00299).
Source: NVIDIA/kvpress 0.5.5, ChunkKVPress.
Differs:
    - as in kvpress, the number of chunks is the budget's share of all, cut down, at least one; the last chunk may be
      shorter. So the number of entries misses the budget by up to two chunks.
    - from kvpress: with a scorer that always keeps a window, chunks are made of the tokens before it, and the budget
      contains it.
    - a share of the prompt is taken of the chunks as it is written.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.chunks import ChunkLength, ChunkMeans, WholeChunks
from harness.compression.wrappers import Wrapper


@dataclass(frozen=True)
class ChunkKV(Wrapper):
    """Keep whole chunks, the same in all heads of a layer.

    Attributes:
        chunk_length: tokens of a chunk, 1 or more.
    """

    chunk_length: ChunkLength

    @property
    def scorer(self) -> ChunkMeans:
        """The mean of a chunk, over all heads."""
        return ChunkMeans(super().scorer, self.chunk_length)

    @property
    def allocation(self) -> WholeChunks:
        """Whole chunks."""
        return WholeChunks(self.chunk_length)
