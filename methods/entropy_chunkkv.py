"""Entropy-gated ChunkKV: whole chunks, but only the best tokens of those that a few dominate, around any scorer.

Claim: a chunk that one token makes important wastes its other entries (a variant of ChunkKV, Liu et al.,
    arXiv:2502.00299).
Source: NVIDIA/kvpress 0.5.5, EntropyGatedChunkKVPress.
Differs:
    - from kvpress: with a scorer that always keeps a window, chunks are made of the tokens before it.
    - a share of the prompt is rounded half to even; kvpress cuts it down.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.chunks import ChunkLength
from harness.compression.gated_chunks import GatedChunks
from harness.compression.wrappers import Wrapper
from harness.errors import ConfigError


@dataclass(frozen=True)
class EntropyChunkKV(Wrapper):
    """Keep chunks, spiky ones in part, the same in all heads of a layer.

    Attributes:
        chunk_length: tokens of a chunk, 2 or more.
        low_entropy_chunk_length: tokens that are kept of a spiky chunk, below ``chunk_length``.

    Raises:
        ConfigError: a knob does not fit, or ``low_entropy_chunk_length`` is not below ``chunk_length``.
    """

    chunk_length: ChunkLength
    low_entropy_chunk_length: ChunkLength

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low_entropy_chunk_length >= self.chunk_length:
            raise ConfigError(
                f"low_entropy_chunk_length={self.low_entropy_chunk_length} (method={self.label}) is not below "
                f"chunk_length={self.chunk_length}: use a smaller one"
            )

    @property
    def scorer(self) -> GatedChunks:
        """Chunks by their means and entropies."""
        return GatedChunks(super().scorer, self.chunk_length, self.low_entropy_chunk_length)
