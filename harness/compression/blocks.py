"""Scores that are computed block by block, among what the earlier blocks left (the form of KeyDiff's paper)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.method import LayerState, Parts
from harness.compression.wrappers import Rescorer
from harness.errors import ConfigError
from harness.values import Refusal

BlockSize = Annotated[int, Meta(ge=1), Refusal("is not a whole number of 1 or more", "kvpress uses block_size=128")]


class _WithoutPositions:
    """Parts of a model for tokens that have left their positions."""

    def __init__(self, parts: Parts | None) -> None:
        self._parts = parts

    def output_projection(self, layer: int) -> Tensor:
        """See ``Parts``."""
        assert self._parts is not None
        return self._parts.output_projection(layer)

    def rotary(self, layer: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing: blocks are scored apart from their positions."""
        raise ConfigError(
            "blocks are scored apart from the positions of their tokens, which this scorer looks at: wrap one of keys "
            "and values alone, as scorer=keydiff"
        )


@dataclass(frozen=True)
class Blocks(Rescorer):
    """The entries that remain when the prompt comes in blocks and each is scored with what was kept until then.

    Attributes:
        block_size: tokens of a block.
    """

    block_size: BlockSize

    def rerank(self, scores: Tensor, layer: LayerState, counts: Tensor) -> Tensor:
        """1 for what remains in the end, 0 for the rest."""
        (heads, tokens), count, device = scores.shape, int(counts[0]), scores.device
        kept = torch.arange(count, device=device).expand(heads, -1)
        for start in range(count, tokens, self.block_size):
            block = torch.arange(start, min(start + self.block_size, tokens), device=device).expand(heads, -1)
            seen = torch.cat([kept, block], dim=1)
            best = self._scores(layer, seen).topk(count, dim=1).indices
            kept = seen.gather(1, best).sort(dim=1).values
        return torch.zeros_like(scores).scatter(1, kept, 1.0)

    def _scores(self, layer: LayerState, seen: Tensor) -> Tensor:
        """Scores of some tokens alone.

        Args:
            layer: the state of the layer.
            seen: indices of the tokens, [cache_heads, count].

        Returns:
            [cache_heads, count].
        """
        heads = len(seen)

        def of_seen(states: Tensor) -> Tensor:
            every = states.repeat_interleave(max(1, heads // len(states)), dim=0)
            index = seen.repeat_interleave(len(every) // heads, dim=0)
            return every.gather(1, index[..., None].expand(-1, -1, every.shape[-1]))

        state = replace(
            layer,
            queries=of_seen(layer.queries),
            keys=of_seen(layer.keys),
            values=of_seen(layer.values),
            parts=_WithoutPositions(layer.parts),
        )
        scores = self.base.score(state)
        scores = scores.expand(heads, -1) if len(scores) == 1 else scores.reshape(heads, -1, seen.shape[1]).mean(1)
        return self.base.smooth(scores, state)[:, : seen.shape[1]]
