"""Scorers and allocations that keep or cut tokens by chunks of neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from harness.compression.allocation import Allocation, Counts, Seen, Shape
from harness.compression.method import LayerState
from harness.compression.wrappers import Rescorer
from harness.values import Refusal

ChunkLength = Annotated[int, Meta(ge=1), Refusal("is not a whole number of 1 or more", "kvpress uses chunk_length=20")]


def candidate_share(budget: int, shape: Shape) -> Fraction:
    """The share of the candidates that a budget keeps: the budget's own share where all tokens are candidates."""
    if budget >= shape.tokens:
        return Fraction(1)
    kept = shape.share * shape.tokens if shape.window == 0 else Fraction(min(budget, shape.tokens))
    return (kept - shape.window) / (shape.tokens - shape.window)


def lengths(tokens: int, length: int) -> list[int]:
    """Lengths of the chunks of a row of tokens; the last one may be shorter."""
    return [min(length, tokens - start) for start in range(0, tokens, length)]


def chunk_means(scores: Tensor, length: int) -> Tensor:
    """Means of neighbouring scores.

    Args:
        scores: [tokens].
        length: tokens of a chunk; the last one may be shorter.

    Returns:
        [chunks].
    """
    whole = len(scores) // length * length
    means = scores[:whole].view(-1, length).mean(dim=1)
    return means if whole == len(scores) else torch.cat([means, scores[whole:].mean()[None]])


def ranks_in_chunks(scores: Tensor, length: int) -> Tensor:
    """Ranks of scores among their neighbours, 0 for the best of each chunk; of equal ones the first is better.

    Args:
        scores: [heads, tokens].
        length: tokens of a chunk; the last one may be shorter.

    Returns:
        [heads, tokens].
    """
    heads, tokens = scores.shape
    chunks = functional.pad(scores, (0, -tokens % length), value=-torch.inf).view(heads, -1, length)
    ranks = chunks.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    return ranks.view(heads, -1)[:, :tokens]


@dataclass(frozen=True)
class ChunkMeans(Rescorer):
    """Every token has the mean score of its chunk, over all heads: heads keep the same chunks.

    Attributes:
        chunk_length: tokens of a chunk.
    """

    chunk_length: ChunkLength

    def rescore(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Sum over heads, then take the mean of each chunk."""
        means = chunk_means(scores.sum(dim=0), self.chunk_length)
        return means.repeat_interleave(self.chunk_length)[: scores.shape[1]].expand(len(scores), -1)


@dataclass(frozen=True)
class WholeChunks(Allocation):
    """As many whole chunks as the budget is of the prompt, at least one: of the same scores, all of equal ones.

    Attributes:
        chunk_length: tokens of a chunk.
    """

    chunk_length: ChunkLength

    @property
    def sees(self) -> Literal["layer"]:
        """The scores of the layer, since the last chunk may be shorter than those before it."""
        return "layer"

    def total(self, budget: int, shape: Shape) -> int:
        """The tokens of the chunks if none of them is the last one, which is shorter."""
        return shape.layers * shape.cache_heads * self._most(budget, shape)

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Counts]:
        """The tokens of the best chunks of the one layer that was seen."""
        each = lengths(shape.tokens - shape.window, self.chunk_length)
        firsts = seen[0].scores[0, :: self.chunk_length]
        best = firsts.sort(descending=True, stable=True).indices[: self._chunks(budget, shape)]
        return [shape.window + sum(each[chunk] for chunk in best.tolist())]

    def _chunks(self, budget: int, shape: Shape) -> int:
        count = math.ceil((shape.tokens - shape.window) / self.chunk_length)
        return max(1, int(count * candidate_share(budget, shape)))

    def _most(self, budget: int, shape: Shape) -> int:
        return min(shape.tokens, shape.window + self._chunks(budget, shape) * self.chunk_length)


@dataclass(frozen=True)
class RanksInChunks(Rescorer):
    """A token's rank among its chunk's, as a share of the chunk: the best of every chunk first.

    The best n tokens are those that a cut inside every chunk leaves, whatever the cut.

    Attributes:
        chunk_length: tokens of a chunk.
    """

    chunk_length: ChunkLength

    def rescore(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Minus the share of the chunk that scores at least as high; 0 for the best token of a chunk."""
        ranks, each = ranks_in_chunks(scores, self.chunk_length), lengths(scores.shape[1], self.chunk_length)
        sizes = torch.tensor(each, device=scores.device)
        # In float64, so that shares of chunks of different lengths compare as the fractions that they are.
        return torch.where(ranks == 0, 0.0, -(ranks + 1).double() / sizes.repeat_interleave(sizes))


@dataclass(frozen=True)
class CutInChunks(Allocation):
    """The budget's share of every chunk, cut down, at least one token each.

    Attributes:
        chunk_length: tokens of a chunk.
    """

    chunk_length: ChunkLength

    def total(self, budget: int, shape: Shape) -> int:
        """The sum of the numbers, which one token of each chunk can make more than the budget."""
        return shape.layers * shape.cache_heads * self._count(budget, shape)

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Counts]:
        """The same number in every layer."""
        return [self._count(budget, shape)] * shape.layers

    def _count(self, budget: int, shape: Shape) -> int:
        share = candidate_share(budget, shape)
        each = lengths(shape.tokens - shape.window, self.chunk_length)
        return shape.window + sum(max(1, int(length * share)) for length in each)
