"""The KV pool: rows that keep different numbers of entries in different layers, decoded together without padding.

Neighbouring rows that keep the same number of entries in a layer share a bucket there: one tensor, one attention call,
no mask, and a slice of the batch instead of a gather. Rows that join later are behind the others, in buckets of their
own. With the project's kernels one call serves all buckets of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.engine.attention import fused_attention
from harness.kernels import Kernels

if TYPE_CHECKING:
    from harness.kernels.ragged_attention import RaggedAttention


@dataclass(frozen=True)
class LayerKV:
    """The kept entries of one row in one layer: keys and values [cache_heads, entries, head_dim]."""

    keys: Tensor
    values: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes


@dataclass
class _Bucket:
    """Neighbouring rows with equal (heads, entries) in one layer that joined together.

    Attributes:
        keys, values: [R, heads, entries + spare, head_dim]; what lies behind the steps taken is unset.
        entries: kept entries, without the decoded ones.
        born: the pool's step when its rows joined.
    """

    keys: Tensor
    values: Tensor
    entries: int
    born: int

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, step: int) -> Tensor:
        """Append one entry per row and attend to all: queries [R, H, D], keys and values [R, heads, D] to [R, H, D]."""
        rows, heads, _, dim = self.keys.shape
        length = self.entries + step - self.born
        self.keys[:, :, length] = keys
        self.values[:, :, length] = values
        # The queries of a cache head stand where those of several tokens would.
        grouped = queries.reshape(rows, heads, -1, dim)
        seen = slice(0, length + 1)
        out = fused_attention(grouped, self.keys[:, :, seen], self.values[:, :, seen], scale=scaling)
        return out.reshape(queries.shape)


class KVPool:
    """The cache of a batch of rows while they decode.

    Attributes:
        step: steps taken so far.
    """

    def __init__(self, layers: int, kernels: Kernels = "torch") -> None:
        """Hold no row yet.

        Args:
            layers: of the model.
            kernels: what attends; see ``EngineSettings``.
        """
        self.step = 0
        self._layers: list[list[_Bucket]] = [[] for _ in range(layers)]
        self._kernels = kernels
        self._ragged: RaggedAttention | None = None  # of the rows that are there, with the project's kernels

    def advance(self) -> None:
        """The step is taken: every row has one entry more."""
        self.step += 1
        if self._ragged is not None:
            self._ragged.advance()

    def add(self, rows: Sequence[list[LayerKV]], spare: int) -> None:
        """Take over the entries of rows that join, behind those that are there.

        Args:
            rows: per row, one ``LayerKV`` per layer. The lists are emptied, so that entries are held once.
            spare: steps that these rows will be in the pool at most.
        """
        for layer, buckets in enumerate(self._layers):
            runs = _runs([row[layer].keys.shape[:2] for row in rows])
            buckets += [_seal(rows[start:stop], layer, spare, self.step) for start, stop in runs]
        for row in rows:
            row.clear()
        self._tabulate()

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """One decoding step of one layer.

        Args:
            layer: the layer.
            queries: [rows, H, 1, D].
            keys: [rows, Hk, 1, D], appended to the cache.
            values: [rows, Hk, 1, D], appended to the cache.
            scaling: of the query-key products.

        Returns:
            [rows, 1, H, D].
        """
        rows, heads, _, dim = queries.shape
        queries, keys, values = queries.squeeze(2), keys.squeeze(2), values.squeeze(2)
        if self._ragged is not None:
            return self._ragged.attend(layer, queries, keys, values, scaling)[:, None]
        # Of kv heads, and, where a bucket caches query heads, once more of these.
        new = {keys.shape[1]: (keys, values)}
        outs, start = [], 0
        for bucket in self._layers[layer]:
            cached, stop = bucket.keys.shape[1], start + len(bucket.keys)
            if cached not in new:
                copies = cached // keys.shape[1]
                new[cached] = (keys.repeat_interleave(copies, dim=1), values.repeat_interleave(copies, dim=1))
            theirs, part = new[cached], slice(start, stop)
            outs.append(bucket.attend(queries[part], theirs[0][part], theirs[1][part], scaling, self.step))
            start = stop
        return torch.cat(outs).view(rows, 1, heads, dim)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these; they are renumbered in the given (ascending) order."""
        for buckets in self._layers:
            start = 0
            for bucket in buckets:
                stop = start + len(bucket.keys)
                inside = [row - start for row in rows if start <= row < stop]
                if len(inside) < stop - start:
                    bucket.keys, bucket.values = bucket.keys[inside], bucket.values[inside]
                start = stop
            buckets[:] = [bucket for bucket in buckets if len(bucket.keys)]
        self._tabulate()

    def _tabulate(self) -> None:
        """Rows have come or gone, and the kernels must know where the others lie."""
        if self._kernels == "triton":
            from harness.kernels.ragged_attention import (
                Held,
                RaggedAttention,
            )  # triton comes with torch for CUDA, and with no other

            layers = [[Held(b.keys, b.values, b.entries - b.born) for b in buckets] for buckets in self._layers]
            self._ragged = RaggedAttention(layers, self.step)


def _runs(shapes: Sequence[torch.Size]) -> list[tuple[int, int]]:
    """(start, stop) of neighbours with equal shapes."""
    starts = [place for place in range(len(shapes)) if place == 0 or shapes[place] != shapes[place - 1]]
    return list(zip(starts, [*starts[1:], len(shapes)], strict=True))


def _seal(rows: Sequence[list[LayerKV]], layer: int, spare: int, born: int) -> _Bucket:
    first = rows[0][layer].keys
    heads, entries, dim = first.shape
    keys = first.new_empty(len(rows), heads, entries + spare, dim)
    values = keys.new_empty(keys.shape, dtype=rows[0][layer].values.dtype)
    for place, row in enumerate(rows):
        keys[place, :, :entries] = row[layer].keys
        values[place, :, :entries] = row[layer].values
        row[layer] = LayerKV(first.new_empty(0, 0, 0), first.new_empty(0, 0, 0))
    return _Bucket(keys, values, entries, born)
