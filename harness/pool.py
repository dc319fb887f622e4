"""The KV pool: rows that keep different numbers of entries in different layers, decoded together without padding.

Rows that keep the same number of entries in a layer share a bucket there: one tensor, one attention call, no mask. All rows of a
pool have taken the same number of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


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
    """Rows with equal (heads, entries) in one layer.

    Attributes:
        rows: positions in the batch, [R].
        keys, values: [R, heads, entries + spare, head_dim]; what lies behind the steps taken is unset.
        entries: kept entries, without the decoded ones.
    """

    rows: Tensor
    keys: Tensor
    values: Tensor
    entries: int

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, step: int) -> Tensor:
        """Append one entry per row and attend to all: queries [R, H, 1, D], keys and values [R, Hk, 1, D] to [R, H, 1, D]."""
        heads, dim = self.keys.shape[1], queries.shape[-1]
        length = self.entries + step
        copies = heads // keys.shape[1]
        self.keys[:, :, length] = keys.squeeze(2).repeat_interleave(copies, dim=1)
        self.values[:, :, length] = values.squeeze(2).repeat_interleave(copies, dim=1)
        rows, query_heads = queries.shape[:2]
        grouped = queries.reshape(rows, heads, query_heads // heads, dim)
        seen = slice(0, length + 1)
        out = functional.scaled_dot_product_attention(grouped, self.keys[:, :, seen], self.values[:, :, seen], scale=scaling)
        return out.view(rows, query_heads, 1, dim)


class KVPool:
    """The cache of a batch of rows while they decode."""

    def __init__(self, rows: Sequence[list[LayerKV]], spare: int) -> None:
        """Take over the rows' entries.

        Args:
            rows: per row, one ``LayerKV`` per layer. The lists are emptied, so that entries are held once.
            spare: steps that will be taken at most.
        """
        self.step = 0
        self._layers: list[list[_Bucket]] = []
        for layer in range(len(rows[0])):
            shapes: dict[tuple[int, int], list[int]] = {}
            for position, row in enumerate(rows):
                heads, entries, _ = row[layer].keys.shape
                shapes.setdefault((heads, entries), []).append(position)
            self._layers.append([_seal(rows, positions, layer, entries, spare) for (_, entries), positions in shapes.items()])
        for row in rows:
            row.clear()

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
        out = torch.empty_like(queries)
        for bucket in self._layers[layer]:
            rows = bucket.rows
            out[rows] = bucket.attend(queries[rows], keys[rows], values[rows], scaling, self.step)
        return out.transpose(1, 2).contiguous()

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these; they are renumbered in the given (ascending) order."""
        for buckets in self._layers:
            for bucket in buckets:
                old = bucket.rows.tolist()
                inside = [position for position, row in enumerate(old) if row in set(rows)]
                place = torch.tensor(inside, dtype=torch.int64, device=bucket.rows.device)
                bucket.rows = torch.tensor([rows.index(old[p]) for p in inside], dtype=torch.int64, device=bucket.rows.device)
                if len(inside) < len(old):
                    bucket.keys, bucket.values = bucket.keys[place], bucket.values[place]
            buckets[:] = [bucket for bucket in buckets if len(bucket.rows)]


def _seal(rows: Sequence[list[LayerKV]], positions: list[int], layer: int, entries: int, spare: int) -> _Bucket:
    first = rows[positions[0]][layer].keys
    heads, _, dim = first.shape
    keys = first.new_empty(len(positions), heads, entries + spare, dim)
    values = torch.empty_like(keys)
    for place, position in enumerate(positions):
        kept = rows[position][layer]
        keys[place, :, :entries] = kept.keys
        values[place, :, :entries] = kept.values
        rows[position][layer] = LayerKV(first.new_empty(0, 0, 0), first.new_empty(0, 0, 0))
    return _Bucket(torch.tensor(positions, dtype=torch.int64, device=first.device), keys, values, entries)
