"""FINCH: the tokens that the question attends to most, each of its rows weighed by what it could see, without gaps.

Claim: a question that stands behind a long document says which of its entries matter (Corallo & Papotti,
    arXiv:2408.00167).
Source: NVIDIA/kvpress 0.5.5, FinchPress.
Differs:
    - the question is the last ``window`` tokens; kvpress finds it by a delimiter, whose embedding it removes.
    - kvpress keeps an arbitrary part of a window that does not fit into the budget; here it is the newest one.
    - without re-rotation, what follows stands behind the context; kvpress counts the removed delimiter, too.
    - chunks are the wrapper ``method=chunk``; kvpress has a knob for them.
    - a share of the prompt is rounded half to even; kvpress cuts it down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.compression.attention_weights import attention_rows
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import forced
from harness.compression.scorers import Window


@dataclass(frozen=True)
class QuestionAttention(Scorer):
    """Mean attention from the last queries, whose own tokens are forced.

    Attributes:
        queries: number of trailing queries that vote, 1 or more.
        normalise: whether the weights of a query are multiplied by its position, as later ones spread them further.
    """

    window: ClassVar[int] = 0
    queries: Window
    normalise: bool

    def score(self, layer: LayerState) -> Tensor:
        """[H, T] with zeros for the window's own tokens."""
        tokens = layer.keys.shape[1]
        scores = layer.queries.new_zeros(layer.queries.shape[0], tokens, dtype=layer.score_dtype)
        earlier = tokens - self.queries
        if earlier > 0:
            queries, keys = layer.queries[:, earlier:].to(layer.score_dtype), layer.keys.to(layer.score_dtype)
            ((_, _, weights),) = attention_rows(queries, keys, layer.softmax, block_bytes=2**62)
            weights = weights[:, :, :earlier]
            if self.normalise:
                weights = weights * torch.arange(earlier, tokens, device=weights.device)[:, None].to(weights.dtype)
            scores[:, :earlier] = weights.mean(1)
        return scores

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Force the last tokens; see ``forced``."""
        return forced(scores, last=self.queries)


@dataclass(frozen=True)
class Finch(Method):
    """Keep the tokens that the last queries attend to most, and turn their keys to positions without gaps.

    Attributes:
        window: trailing queries that vote, the question; their tokens come before all others.
        normalise: whether the weights of a query are multiplied by its position.
        rerotate: whether kept keys are turned to the positions 0, 1, ….
    """

    window: Window
    normalise: bool
    rerotate: bool

    @property
    def scorer(self) -> QuestionAttention:
        """Attention received from the window, with the window's own tokens forced."""
        return QuestionAttention(self.window, self.normalise)

    @property
    def rerotates(self) -> bool:
        """Whether kept keys are turned."""
        return self.rerotate
