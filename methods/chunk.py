"""Chunk: a cut inside every chunk of the prompt, so that no part of it is lost, around any scorer.

Claim: none of its own; it keeps a long prompt's parts equally (the idea of FINCH, Corallo & Papotti, arXiv:2408.00167).
Source: NVIDIA/kvpress 0.5.5, ChunkPress.
Differs:
    - from kvpress: scores are those of the whole prompt; kvpress scores each chunk as if it were a prompt. For scorers
      that look at one token at a time, as knorm, it is the same.
    - as in kvpress, each chunk keeps its share cut down, and at least one token.
    - from kvpress: with a scorer that always keeps a window, chunks are made of the tokens before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.chunks import ChunkLength, CutInChunks, RanksInChunks
from harness.compression.wrappers import Wrapper


@dataclass(frozen=True)
class Chunk(Wrapper):
    """Keep the best tokens of every chunk.

    Attributes:
        chunk_length: tokens of a chunk, 1 or more.
    """

    chunk_length: ChunkLength

    @property
    def scorer(self) -> RanksInChunks:
        """Ranks inside chunks."""
        return RanksInChunks(super().scorer, self.chunk_length)

    @property
    def allocation(self) -> CutInChunks:
        """The budget's share of every chunk."""
        return CutInChunks(self.chunk_length)
