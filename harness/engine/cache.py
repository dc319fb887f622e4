"""The KV cache: rows that keep different numbers of entries per layer and head, decoded together without padding.

Neighbouring rows that keep the same number of entries in a layer share a bucket there: one tensor, one attention call,
no mask, and a slice of the batch instead of a gather. Where the heads of a row keep different numbers, each run of
heads that keep equally many has a bucket. Rows that join later come behind the others, in buckets of their own. With
the project's kernels, one call serves all buckets of equally many heads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.engine.attention import fused_attention
from harness.kernels import Kernels

if TYPE_CHECKING:
    from harness.kernels.ragged_attention import RaggedAttention


@dataclass(frozen=True)
class LayerKV:
    """The kept entries of one row in one layer.

    Attributes:
        keys: [cache_heads, entries, head_dim]; where heads keep different numbers, [entries of all heads, head_dim],
            head by head.
        values: the same shape.
        counts: number of entries of each head, where they differ; None where they are equal.
    """

    keys: Tensor
    values: Tensor
    counts: tuple[int, ...] | None = None

    @property
    def bytes(self) -> int:
        """Bytes of its keys and values."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """(heads, entries of each) of the runs of neighbouring heads that keep equally many."""
        if self.counts is None:
            return ((self.keys.shape[0], self.keys.shape[1]),)
        return tuple((len(list(run)), count) for count, run in groupby(self.counts))

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values [heads, entries, head_dim] of each run."""
        if self.counts is None:
            yield self.keys, self.values
            return
        start = 0
        for heads, entries in self.runs:
            stop = start + heads * entries
            yield (
                self.keys[start:stop].view(heads, entries, -1),
                self.values[start:stop].view(heads, entries, -1),
            )
            start = stop


@dataclass
class _Bucket:
    """Heads of neighbouring rows that joined together and have equally many entries in one layer.

    Attributes:
        keys: [rows, heads, entries + spare, head_dim]; entries of steps that are still to come are uninitialised.
        values: the same shape.
        entries: number of entries kept of the prompt, with those of a question that ran through the cache, without the
            decoded ones.
        joined_at: the cache's step when its rows joined.
        row: index of the first row.
        head: index of the first head.
        cached: number of heads that these rows have in the cache, of all buckets together.
    """

    keys: Tensor
    values: Tensor
    entries: int
    joined_at: int
    row: int
    head: int
    cached: int

    @property
    def rows(self) -> slice:
        """The rows."""
        return slice(self.row, self.row + len(self.keys))

    def heads(self, all_heads: int) -> slice:
        """The bucket's share of a number of heads that is a multiple of the cached ones."""
        times = all_heads // self.cached
        return slice(self.head * times, (self.head + self.keys.shape[1]) * times)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, start: int) -> Tensor:
        """Write the entries of new tokens, then attend to all entries up to each token's own.

        Args:
            queries: [rows, query heads of the bucket, tokens, D].
            keys: [rows, heads, tokens, D], of the new tokens.
            values: [rows, heads, tokens, D], of the new tokens.
            scaling: factor on query-key products.
            start: number of entries before those of the new tokens.

        Returns:
            [rows, query heads of the bucket, tokens, D].
        """
        rows, heads, _, dim = self.keys.shape
        tokens, copies = keys.shape[2], queries.shape[1] // heads
        new, seen = slice(start, start + tokens), slice(0, start + tokens)
        self.keys[:, :, new] = keys
        self.values[:, :, new] = values
        # The query heads of one cache head take the place of further query tokens.
        grouped = queries.reshape(rows, heads, -1, dim)
        mask = None
        if tokens > 1:
            mask = queries.new_ones(tokens, start + tokens, dtype=torch.bool).tril(start).repeat(copies, 1)
        out = fused_attention(grouped, self.keys[:, :, seen], self.values[:, :, seen], scale=scaling, attn_mask=mask)
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

    def add(self, rows: Sequence[list[LayerKV]], spare: int, question: int = 0) -> None:
        """Take over the entries of rows that join behind the present ones.

        Args:
            rows: per row, one ``LayerKV`` per layer. Entries are removed from these lists, so that memory holds them
                once.
            spare: largest number of steps that these rows will stay.
            question: number of tokens that are still to run through these rows, by ``attend_question``, before the
                next step.
        """
        for layer, buckets in enumerate(self._layers):
            first = max((bucket.rows.stop for bucket in buckets), default=0)
            for start, stop in _runs([row[layer].runs for row in rows]):
                buckets += _buckets_of(rows[start:stop], layer, spare, question, self.step, first + start)
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
        if self._ragged is not None:
            new = queries.squeeze(2), keys.squeeze(2), values.squeeze(2)
            return self._ragged.attend(layer, *new, scaling)[:, None]
        return self._attend(layer, queries, keys, values, scaling, first=0, question=0)

    def attend_question(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Run the question of the rows that joined last through one layer; it may be repeated.

        Each token sees all entries of the row that were kept, and the question up to itself. This is computed by torch
        whatever the kernels are.

        Args:
            layer: index of the layer.
            queries: [rows, H, tokens, D], of the rows that joined last.
            keys: [rows, Hk, tokens, D], written into the cache.
            values: [rows, Hk, tokens, D], written into the cache.
            scaling: factor on query-key products.

        Returns:
            [rows, tokens, H, D].
        """
        rows, _, tokens, _ = queries.shape
        first = self._layers[layer][-1].rows.stop - rows
        return self._attend(layer, queries, keys, values, scaling, first, tokens)

    def _attend(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, first: int, question: int
    ) -> Tensor:
        """The attention of the rows from ``first`` on: of a step or, if it has tokens, of a question."""
        heads = queries.shape[1]
        # By number of heads: the kv heads and, where a bucket caches query heads, copies for these.
        new = {keys.shape[1]: (keys, values)}
        out = torch.empty_like(queries)
        for bucket in self._layers[layer]:
            if bucket.row < first:
                continue
            if bucket.cached not in new:
                copies = bucket.cached // keys.shape[1]
                new[bucket.cached] = (keys.repeat_interleave(copies, dim=1), values.repeat_interleave(copies, dim=1))
            rows = slice(bucket.row - first, bucket.rows.stop - first)
            entries, here, there = new[bucket.cached], (rows, bucket.heads(bucket.cached)), (rows, bucket.heads(heads))
            start = bucket.entries - question + self.step - bucket.joined_at
            out[there] = bucket.attend(queries[there], entries[0][here], entries[1][here], scaling, start)
        return out.transpose(1, 2)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these.

        Args:
            rows: indices of the rows that stay, ascending; they are numbered anew in this order.
        """
        for buckets in self._layers:
            for bucket in buckets:
                inside = [row - bucket.row for row in rows if bucket.row <= row < bucket.rows.stop]
                if len(inside) < len(bucket.keys):
                    bucket.keys, bucket.values = bucket.keys[inside], bucket.values[inside]
                bucket.row = bisect_left(rows, bucket.row)
            buckets[:] = [bucket for bucket in buckets if len(bucket.keys)]
        self._tabulate()

    def _tabulate(self) -> None:
        """After rows came or went, tell the kernels where all rows lie."""
        if self._kernels == "triton":
            # Not imported above: triton comes with torch for CUDA alone.
            from harness.kernels.ragged_attention import Held, RaggedAttention

            layers = [
                [Held(b.keys, b.values, b.entries - b.joined_at, b.row, b.head, b.cached) for b in buckets]
                for buckets in self._layers
            ]
            self._ragged = RaggedAttention(layers, self.step)


def _runs(layouts: Sequence[object]) -> list[tuple[int, int]]:
    """(start, stop) of each run of neighbours with equal layouts."""
    starts = [index for index in range(len(layouts)) if index == 0 or layouts[index] != layouts[index - 1]]
    return list(zip(starts, [*starts[1:], len(layouts)], strict=True))


def _buckets_of(
    rows: Sequence[list[LayerKV]], layer: int, spare: int, question: int, joined_at: int, first_row: int
) -> Iterator[_Bucket]:
    """Buckets of rows with equal layouts, one for each run of heads; the rows' own entries in this layer are freed."""
    held = [list(row[layer].parts()) for row in rows]
    runs = rows[0][layer].runs
    cached, head = sum(heads for heads, _ in runs), 0
    for part, (heads, entries) in enumerate(runs):
        key, value = held[0][part]
        keys = key.new_empty(len(rows), heads, entries + question + spare, key.shape[-1])
        values = value.new_empty(keys.shape)
        for index, parts in enumerate(held):
            keys[index, :, :entries], values[index, :, :entries] = parts[part]
        yield _Bucket(keys, values, entries + question, joined_at, first_row, head, cached)
        head += heads
    for row in rows:
        nothing = row[layer].keys.new_empty(0, 0, 0)
        row[layer] = LayerKV(nothing, nothing)
