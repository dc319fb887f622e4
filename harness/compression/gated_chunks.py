"""Chunks that are kept whole or, where a few tokens hold their scores, in part (EntropyGatedChunkKV)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.compression.chunks import ChunkLength, chunk_means, lengths, ranks_in_chunks
from harness.compression.method import LayerState
from harness.compression.wrappers import Rescorer

_EPSILON = 1e-8  # of NVIDIA/kvpress 0.5.5 (Apache-2.0)


def entropies(scores: Tensor, length: int) -> Tensor:
    """How evenly each chunk's scores are spread: their entropy over that of equal scores, 0 to 1.

    Scores of a chunk with negative ones are first raised by its lowest. A chunk of one token has 0.

    Args:
        scores: [tokens].
        length: tokens of a chunk; the last one may be shorter.

    Returns:
        [chunks].
    """
    whole = len(scores) // length * length
    found = _entropies(scores[:whole].view(-1, length))
    return found if whole == len(scores) else torch.cat([found, _entropies(scores[None, whole:])])


def _entropies(chunks: Tensor) -> Tensor:
    """Entropies of chunks [chunks, length]."""
    length = chunks.shape[1]
    if length == 1:
        return chunks.new_zeros(len(chunks))
    raised = chunks - chunks.amin(dim=1, keepdim=True).clamp(max=0)
    shares = raised / (raised.sum(dim=1, keepdim=True) + _EPSILON)
    entropy = -(shares * (shares + _EPSILON).log()).sum(dim=1)
    return (entropy / math.log(length)).clamp(0, 1)


def gated(scores: Tensor, count: int, length: int, spiky: int) -> Tensor:
    """Which tokens are taken by chunks, best mean first, until there are ``count``.

    Args:
        scores: [tokens].
        count: number of tokens that are taken at most.
        length: tokens of a chunk; the last one may be shorter.
        spiky: number of tokens that are taken of a chunk whose mean is at least the median, and whose entropy is below
            the median.

    Returns:
        Booleans [tokens].
    """
    means, entropy = chunk_means(scores, length), entropies(scores, length)
    sizes = torch.tensor(lengths(len(scores), length), device=scores.device)
    wanted = sizes.where((means < means.median()) | (entropy >= entropy.median()), sizes.clamp(max=spiky))
    falling = means.argsort(descending=True, stable=True)
    before = wanted[falling].cumsum(0) - wanted[falling]
    taken = torch.zeros_like(wanted)
    taken[falling] = (count - before).clamp(min=0).minimum(wanted[falling])
    return ranks_in_chunks(scores[None], length)[0] < taken.repeat_interleave(sizes)


@dataclass(frozen=True)
class GatedChunks(Rescorer):
    """Whole chunks by their means, spiky ones in part, then the best of the other tokens; the same in all heads.

    Attributes:
        chunk_length: tokens of a chunk.
        low_entropy_chunk_length: tokens that are kept of a spiky chunk.
    """

    chunk_length: ChunkLength
    low_entropy_chunk_length: ChunkLength

    def rescore(self, scores: Tensor, layer: LayerState) -> Tensor:
        """The sum over heads, in every head."""
        return scores.sum(dim=0).expand(len(scores), -1)

    def rerank(self, scores: Tensor, layer: LayerState, counts: Tensor) -> Tensor:
        """Raise the tokens that chunks take above all others."""
        taken = gated(scores[0], int(counts[0]), self.chunk_length, self.low_entropy_chunk_length)
        return scores.masked_fill(taken, torch.finfo(scores.dtype).max)
