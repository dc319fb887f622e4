"""Scorers and the tensor functions under them: window attention, column sums, pooling, positions.

They are pure functions of tensors and need no model and no cache. Shapes: H query heads, T prompt tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from harness.compression.attention_weights import attention_rows
from harness.compression.method import LayerState, Scorer
from harness.values import Refusal

# The knobs that methods share: type, range, and what to give instead.
Window = Annotated[
    int,
    Meta(ge=1),
    Refusal("is not a whole number of 1 or more", "the published LongBench tables use window=8"),
]
Kernel = Annotated[int, Meta(ge=1), Refusal("is not a whole number of 1 or more", "the published tables use kernel=7")]
Pooling = Literal["maxpool", "avgpool"]
Sinks = Annotated[int, Meta(ge=0), Refusal("is not a whole number of 0 or more", "the published tables use sinks=4")]


def window_attention(layer: LayerState, window: int) -> Tensor:
    """Attention that the last ``window`` queries pay to each earlier token, summed over these queries.

    The softmax runs over all tokens that a query sees, those of the window included.

    Returns:
        [H, T - window] in ``layer.score_dtype``.
    """
    tokens = layer.keys.shape[1]
    queries = layer.queries[:, tokens - window :].to(layer.score_dtype)
    ((_, _, attention),) = attention_rows(queries, layer.keys.to(layer.score_dtype), layer.softmax, block_bytes=2**62)
    return attention[:, :, : tokens - window].sum(dim=1)


def column_sums(layer: LayerState, window: int, causal: bool, block_bytes: int | None = None) -> Tensor:
    """Attention that each token but the last ``window`` receives from all queries, exact, in O(block x T) memory.

    Args:
        layer: the state of the layer.
        window: number of trailing tokens that get no score; their queries still vote.
        causal: False does as the code behind the published tables: only the last ``window`` rows are masked, so an
            earlier query also pays attention to later tokens.
        block_bytes: see ``attention_rows``.

    Returns:
        [H, T - window] in ``layer.score_dtype``. Blocks are summed in float32.
    """
    if layer.kernels == "triton" and causal and layer.score_dtype == torch.float32 and layer.softmax.is_plain:
        # Not imported above: triton comes with torch for CUDA alone.
        from harness.kernels.column_sums import causal_column_sums

        return causal_column_sums(layer.queries, layer.keys, layer.scaling, window, layer.log_sums)
    queries, keys = layer.queries.to(layer.score_dtype), layer.keys.to(layer.score_dtype)
    reader = ColumnAccumulator(layer, window)
    masked_from = 0 if causal else layer.keys.shape[1] - window
    for _, _, attention in attention_rows(queries, keys, layer.softmax, masked_from, block_bytes):
        reader.read(attention)
    return reader.scores()


class ColumnAccumulator:
    """Sums the weights that each token receives, block by block, in float32."""

    def __init__(self, layer: LayerState, window: int) -> None:
        """Start with sums of zero.

        Args:
            layer: the layer whose weights will be read.
            window: number of trailing tokens that get no score.
        """
        self._sums = torch.zeros(layer.queries.shape[:2], dtype=torch.float32, device=layer.queries.device)
        self._candidates = layer.keys.shape[1] - window
        self._dtype = layer.score_dtype

    def read(self, weights: Tensor) -> None:
        """Add the weights [H, rows, seen] of one block."""
        self._sums[:, : weights.shape[-1]] += weights.sum(dim=1, dtype=torch.float32)

    def resume(self, earlier: ColumnAccumulator) -> None:
        """Add what another reader summed over the beginning of the prompt, or over one that it shares."""
        self._sums[:, : earlier._sums.shape[1]] += earlier._sums

    def scores(self) -> Tensor:
        """The sums so far, [H, T - window] in the layer's score dtype."""
        return self._sums[:, : self._candidates].to(self._dtype)


def pool(scores: Tensor, kernel: int, pooling: Pooling) -> Tensor:
    """Pool scores [heads, candidates] along positions, with stride 1.

    Both ends are padded by kernel // 2: with -inf for maxpool, with zeros that count for avgpool. As in the published
    code, an even kernel looks one position further back than ahead and gives candidates + 1 positions.
    """
    if pooling == "maxpool":
        return functional.max_pool1d(scores[None], kernel, stride=1, padding=kernel // 2)[0]
    return functional.avg_pool1d(scores[None], kernel, stride=1, padding=kernel // 2)[0]


@dataclass(frozen=True)
class WindowAttention(Scorer):
    """Attention from the last ``window`` tokens, pooled over neighbours (SnapKV, arXiv:2404.14469).

    Attributes:
        window: number of trailing queries that vote, 1 or more; these tokens are always kept.
        kernel: width of the pooling, 1 or more.
        pooling: ``maxpool`` or ``avgpool``.

    Raises:
        ConfigError: a knob out of range.
    """

    window: Window
    kernel: Kernel
    pooling: Pooling

    @property
    def last_queries(self) -> int:
        """Those of the window."""
        return self.window

    def score(self, layer: LayerState) -> Tensor:
        """Attention received from the window; see ``window_attention``."""
        return window_attention(layer, self.window)

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Pool the scores; see ``pool``."""
        return pool(scores, self.kernel, self.pooling)


@dataclass(frozen=True)
class ColumnSums(Scorer):
    """Attention received from the whole prompt (H2O, arXiv:2306.14048), computed once over the prompt.

    Attributes:
        window: number of trailing tokens that are always kept, 1 or more.
        causal: see ``column_sums``.

    Raises:
        ConfigError: a knob out of range.
    """

    window: Window
    causal: bool

    def score(self, layer: LayerState) -> Tensor:
        """Attention received from all queries; see ``column_sums``."""
        return column_sums(layer, self.window, self.causal)

    def accumulator(self, layer: LayerState) -> ColumnAccumulator | None:
        """A reader that sums the prefill's own weights; None if ``causal`` is False."""
        return ColumnAccumulator(layer, self.window) if self.causal else None


@dataclass(frozen=True)
class FirstTokens(Scorer):
    """Position alone: the earliest candidates win.

    Attributes:
        window: number of trailing tokens that are always kept, 1 or more.

    Raises:
        ConfigError: a knob out of range.
    """

    window: Window

    @property
    def last_queries(self) -> int:
        """None: it looks at positions alone."""
        return 0

    def score(self, layer: LayerState) -> Tensor:
        """The negated position, [1, candidates]."""
        candidates = layer.keys.shape[1] - self.window
        return -torch.arange(candidates, device=layer.keys.device, dtype=torch.float32)[None]


@dataclass(frozen=True)
class SinksThenRecent(Scorer):
    """Position alone: the first ``sinks`` tokens win, then the most recent ones.

    Attributes:
        sinks: number of first tokens that win, 0 or more.
        window: number of trailing tokens that are always kept.

    Raises:
        ConfigError: a knob out of range.
    """

    sinks: Sinks
    window: Window = 1

    @property
    def last_queries(self) -> int:
        """None: it looks at positions alone."""
        return 0

    def score(self, layer: LayerState) -> Tensor:
        """The position, raised for the sinks, [1, candidates]."""
        candidates = layer.keys.shape[1] - self.window
        position = torch.arange(candidates, device=layer.keys.device, dtype=torch.float32)
        return torch.where(position < self.sinks, 2 * candidates - position, position)[None]
