"""Rankings and the tensor maths under them: window attention, column sums, pooling, group reduction, order, ties.

Pure functions of tensors; no model, no cache. Shapes: H query heads, Hk kv heads, G = H / Hk, T prompt tokens, D
head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from harness.compression.attention_weights import attention_rows
from harness.compression.method import LayerState
from harness.errors import ConfigError

Pooling = Literal["maxpool", "avgpool"]


def window_attention(layer: LayerState, window: int) -> Tensor:
    """Attention that the last ``window`` queries pay to each earlier token, summed over these queries.

    The softmax runs over all tokens that a query may see, those of the window included.

    Returns:
        [H, T - window] in ``layer.score_dtype``.
    """
    tokens = layer.keys.shape[1]
    queries = layer.queries[:, tokens - window :].to(layer.score_dtype)
    ((_, _, attention),) = attention_rows(queries, layer.keys.to(layer.score_dtype), layer.scaling, block_bytes=2**62)
    return attention[:, :, : tokens - window].sum(dim=1)


def column_sums(layer: LayerState, window: int, causal: bool, block_bytes: int | None = None) -> Tensor:
    """Attention that each token but the last ``window`` receives from all queries, exact, in O(block x T) memory.

    Args:
        layer: the layer.
        window: trailing tokens that get no score; their queries still vote.
        causal: False gives what the code behind the published tables did: only the last ``window`` rows are masked, so
            an earlier query also pays attention to later tokens.
        block_bytes: see ``attention_rows``.

    Returns:
        [H, T - window] in ``layer.score_dtype``. Blocks are summed in float32.
    """
    if layer.kernels == "triton" and causal and layer.score_dtype == torch.float32:
        from harness.kernels.column_sums import (
            causal_column_sums,
        )  # triton comes with torch for CUDA, and with no other

        return causal_column_sums(layer.queries, layer.keys, layer.scaling, window)
    queries, keys = layer.queries.to(layer.score_dtype), layer.keys.to(layer.score_dtype)
    reader = ColumnReader(layer, window)
    masked_from = 0 if causal else layer.keys.shape[1] - window
    for _, _, attention in attention_rows(queries, keys, layer.scaling, masked_from, block_bytes):
        reader.read(attention)
    return reader.scores()


class ColumnReader:
    """Sums the weights that each token receives, block by block, in float32."""

    def __init__(self, layer: LayerState, window: int) -> None:
        self._sums = torch.zeros(layer.queries.shape[:2], dtype=torch.float32, device=layer.queries.device)
        self._candidates = layer.keys.shape[1] - window
        self._dtype = layer.score_dtype

    def read(self, weights: Tensor) -> None:
        self._sums[:, : weights.shape[-1]] += weights.sum(dim=1, dtype=torch.float32)

    def resume(self, earlier: ColumnReader) -> None:
        """Go on from what was read of the same prompt's beginning, or of the beginning that it shares with another."""
        self._sums[:, : earlier._sums.shape[1]] += earlier._sums

    def scores(self) -> Tensor:
        """[H, T - window] in the layer's score dtype."""
        return self._sums[:, : self._candidates].to(self._dtype)


def pool(scores: Tensor, kernel: int, pooling: Pooling) -> Tensor:
    """Pool [heads, candidates] along positions, stride 1, padding kernel // 2: -inf for maxpool, counted zeros for avgpool.

    An even kernel looks one position further back than forth and yields candidates + 1 positions, as the published code
    does.
    """
    if pooling == "maxpool":
        return functional.max_pool1d(scores[None], kernel, stride=1, padding=kernel // 2)[0]
    return functional.avg_pool1d(scores[None], kernel, stride=1, padding=kernel // 2)[0]


@dataclass(frozen=True)
class WindowAttention:
    """Attention from the last ``window`` tokens, pooled over neighbours (SnapKV, arXiv:2404.14469).

    Attributes:
        window: trailing queries that vote, 1 or more; always kept.
        kernel: width of the pooling, 1 or more.
        pooling: ``maxpool`` or ``avgpool``.

    Raises:
        ConfigError: a knob out of range.
    """

    window: int
    kernel: int
    pooling: Pooling

    def __post_init__(self) -> None:
        check_window(self.window)
        if not isinstance(self.kernel, int) or self.kernel < 1:
            raise ConfigError(
                f"kernel={self.kernel} is not a whole number of 1 or more: the published tables use kernel=7"
            )
        if self.pooling not in ("maxpool", "avgpool"):
            raise ConfigError(f"pooling={self.pooling} is unknown: use pooling=maxpool or pooling=avgpool")

    def raw(self, layer: LayerState) -> Tensor:
        return window_attention(layer, self.window)

    def finish(self, grouped: Tensor) -> Tensor:
        return pool(grouped, self.kernel, self.pooling)


@dataclass(frozen=True)
class ColumnSums:
    """Attention received from the whole prompt (H2O, arXiv:2306.14048, as a one-shot statistic of the prompt).

    Attributes:
        window: trailing tokens always kept, 1 or more.
        causal: see ``column_sums``.

    Raises:
        ConfigError: a knob out of range.
    """

    window: int
    causal: bool

    def __post_init__(self) -> None:
        check_window(self.window)
        if not isinstance(self.causal, bool):
            raise ConfigError(f"causal={self.causal} is neither true nor false")

    def raw(self, layer: LayerState) -> Tensor:
        return column_sums(layer, self.window, self.causal)

    def reader(self, layer: LayerState) -> ColumnReader | None:
        return ColumnReader(layer, self.window) if self.causal else None

    def finish(self, grouped: Tensor) -> Tensor:
        return grouped


@dataclass(frozen=True)
class FirstTokens:
    """Position alone: the earliest candidates win, ``window`` trailing tokens are kept.

    Raises:
        ConfigError: a knob out of range.
    """

    window: int

    def __post_init__(self) -> None:
        check_window(self.window)

    def raw(self, layer: LayerState) -> Tensor:
        candidates = layer.keys.shape[1] - self.window
        return -torch.arange(candidates, device=layer.keys.device, dtype=torch.float32)[None]

    def finish(self, grouped: Tensor) -> Tensor:
        return grouped


@dataclass(frozen=True)
class SinksThenRecent:
    """Position alone: the first ``sinks`` tokens win, then the most recent ones. The last token is always kept.

    Raises:
        ConfigError: a knob out of range.
    """

    sinks: int
    window: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.sinks, int) or self.sinks < 0:
            raise ConfigError(
                f"sinks={self.sinks} is not a whole number of 0 or more: the published tables use sinks=4"
            )

    def raw(self, layer: LayerState) -> Tensor:
        candidates = layer.keys.shape[1] - self.window
        position = torch.arange(candidates, device=layer.keys.device, dtype=torch.float32)
        return torch.where(position < self.sinks, 2 * candidates - position, position)[None]

    def finish(self, grouped: Tensor) -> Tensor:
        return grouped


def check_window(window: object) -> None:
    """Refuse a window that is not a whole number of 1 or more.

    Raises:
        ConfigError: with the value.
    """
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        raise ConfigError(
            f"window={window} is not a whole number of 1 or more: the published LongBench tables use window=8"
        )
