"""The KV cache: rows that keep different numbers of entries in different layers, decoded together without padding.

Neighbouring rows that keep the same number of entries in a layer share a bucket there: one tensor, one attention call,
no mask, and a slice of the batch instead of a gather. Rows that join later come behind the others, in buckets of their
own. With the project's kernels, one call serves all buckets of a layer.
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
        """Bytes of its keys and values."""
        return self.keys.nbytes + self.values.nbytes


@dataclass
class _Bucket:
    """Neighbouring rows that joined together and have equal (heads, entries) in one layer.

    Attributes:
        keys: [rows, heads, entries + spare, head_dim]; entries of steps that are still to come are uninitialised.
        values: the same shape.
        entries: number of entries kept of the prompt, without the decoded ones.
        joined_at: the cache's step when its rows joined.
    """

    keys: Tensor
    values: Tensor
    entries: int
    joined_at: int

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, step: int) -> Tensor:
        """Append one entry per row, then attend to all entries.

        Args:
            queries: [rows, H, D].
            keys: [rows, heads, D], of the new token.
            values: [rows, heads, D], of the new token.
            scaling: factor on query-key products.
            step: the cache's step.

        Returns:
            [rows, H, D].
        """
        rows, heads, _, dim = self.keys.shape
        length = self.entries + step - self.joined_at
        self.keys[:, :, length] = keys
        self.values[:, :, length] = values
        # The query heads of one cache head take the place of several query tokens.
        grouped = queries.reshape(rows, heads, -1, dim)
        seen = slice(0, length + 1)
        out = fused_attention(grouped, self.keys[:, :, seen], self.values[:, :, seen], scale=scaling)
        return out.reshape(queries.shape)


class KVCache:
    """The cached entries of a batch of rows while they decode.

    Attributes:
        step: number of decoding steps so far.
    """

    def __init__(self, layers: int, kernels: Kernels = "torch") -> None:
        """Start without rows.

        Args:
            layers: number of layers of the model.
            kernels: what computes attention; see ``EngineSettings``.
        """
        self.step = 0
        self._layers: list[list[_Bucket]] = [[] for _ in range(layers)]
        self._kernels = kernels
        self._ragged: RaggedAttention | None = None  # with the project's kernels: where the rows lie

    def advance(self) -> None:
        """End a step, in which every row got one more entry in each layer."""
        self.step += 1
        if self._ragged is not None:
            self._ragged.advance()

    def add(self, rows: Sequence[list[LayerKV]], spare: int) -> None:
        """Take over the entries of rows that join behind the present ones.

        Args:
            rows: per row, one ``LayerKV`` per layer. Entries are removed from these lists, so that memory holds them
                once.
            spare: largest number of steps that these rows will stay.
        """
        for layer, buckets in enumerate(self._layers):
            runs = _runs([row[layer].keys.shape[:2] for row in rows])
            buckets += [_bucket_of(rows[start:stop], layer, spare, self.step) for start, stop in runs]
        for row in rows:
            row.clear()
        self._tabulate()

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """One decoding step of one layer: append an entry to every row, then attend to all of its entries.

        Args:
            layer: index of the layer.
            queries: [rows, H, 1, D].
            keys: [rows, Hk, 1, D], appended to the cache.
            values: [rows, Hk, 1, D], appended to the cache.
            scaling: factor on query-key products.

        Returns:
            [rows, 1, H, D].
        """
        rows, heads, _, dim = queries.shape
        queries, keys, values = queries.squeeze(2), keys.squeeze(2), values.squeeze(2)
        if self._ragged is not None:
            return self._ragged.attend(layer, queries, keys, values, scaling)[:, None]
        # By number of heads: the kv heads and, where a bucket caches query heads, copies for these.
        new = {keys.shape[1]: (keys, values)}
        outs, start = [], 0
        for bucket in self._layers[layer]:
            cached, stop = bucket.keys.shape[1], start + len(bucket.keys)
            if cached not in new:
                copies = cached // keys.shape[1]
                new[cached] = (keys.repeat_interleave(copies, dim=1), values.repeat_interleave(copies, dim=1))
            entries, rows_here = new[cached], slice(start, stop)
            outs.append(
                bucket.attend(queries[rows_here], entries[0][rows_here], entries[1][rows_here], scaling, self.step)
            )
            start = stop
        return torch.cat(outs).view(rows, 1, heads, dim)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these.

        Args:
            rows: indices of the rows that stay, ascending; they are numbered anew in this order.
        """
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
        """After rows came or went, tell the kernels where all rows lie."""
        if self._kernels == "triton":
            # Not imported above: triton comes with torch for CUDA alone.
            from harness.kernels.ragged_attention import Held, RaggedAttention

            layers = [[Held(b.keys, b.values, b.entries - b.joined_at) for b in buckets] for buckets in self._layers]
            self._ragged = RaggedAttention(layers, self.step)


def _runs(shapes: Sequence[torch.Size]) -> list[tuple[int, int]]:
    """(start, stop) of each run of neighbours with equal shapes."""
    starts = [index for index in range(len(shapes)) if index == 0 or shapes[index] != shapes[index - 1]]
    return list(zip(starts, [*starts[1:], len(shapes)], strict=True))


def _bucket_of(rows: Sequence[list[LayerKV]], layer: int, spare: int, joined_at: int) -> _Bucket:
    """A bucket of rows with equal shapes; their own entries in this layer are freed."""
    first = rows[0][layer].keys
    heads, entries, dim = first.shape
    keys = first.new_empty(len(rows), heads, entries + spare, dim)
    values = keys.new_empty(keys.shape, dtype=rows[0][layer].values.dtype)
    for index, row in enumerate(rows):
        keys[index, :, :entries] = row[layer].keys
        values[index, :, :entries] = row[layer].values
        row[layer] = LayerKV(first.new_empty(0, 0, 0), first.new_empty(0, 0, 0))
    return _Bucket(keys, values, entries, joined_at)
