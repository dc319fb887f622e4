"""The KV cache: rows that keep different numbers of entries per layer and head, decoded together without padding.

Neighbouring rows that keep the same number of entries in a layer share a bucket there (see ``buckets``): one tensor,
one attention call, no mask, and a slice of the batch instead of a gather. Where the heads of a row keep different
numbers, each run of heads that keep equally many has a bucket. Rows that share the entries of their prompt have one for
each prompt, whatever they keep (see ``chosen``). Rows that join later come behind the others, in buckets of their own.
With the project's kernels, one call serves all buckets of equally many heads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.engine.buckets import Bucket, Joining, LayerKV, PlainBucket, joined
from harness.engine.layer_forms import LayerForm
from harness.kernels import Kernels

if TYPE_CHECKING:
    from harness.kernels.ragged_attention import RaggedAttention


_EMPTY = LayerKV(torch.empty(0, 0, 0), torch.empty(0, 0, 0))
"""What stands in the place of entries that the cache has taken over."""


class KVCache:
    """The cached entries of a batch of rows while they decode.

    Attributes:
        step: number of decoding steps so far.
    """

    def __init__(self, forms: Sequence[LayerForm], kernels: Kernels = "torch") -> None:
        """Start without rows.

        Args:
            forms: the form of each layer of the model.
            kernels: what computes; see ``EngineSettings``.
        """
        self.step = 0
        self._forms = forms
        self._layers: list[list[Bucket]] = [[] for _ in forms]
        self._kernels = kernels
        self._ragged: RaggedAttention | None = None  # with the project's kernels: where the rows lie

    def advance(self) -> None:
        """End a step, in which every row got one more entry in each layer."""
        self.step += 1
        if self._ragged is not None:
            self._ragged.advance()
        for buckets in self._layers:
            for bucket in buckets:
                bucket.advance()

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
            for start, stop in _runs([row[layer].layout for row in rows]):
                alike = [row[layer] for row in rows[start:stop]]
                for bucket in alike[0].buckets(alike, Joining(first + start, spare, question)):
                    bucket.form = self._forms[layer]
                    buckets.append(bucket)
                for row in rows[start:stop]:
                    row[layer] = _EMPTY
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

    def attend_question(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, left: int | None = None
    ) -> Tensor:
        """Run the question of the rows that joined last, or a piece of it, through one layer; it may be repeated.

        Each token sees all entries of the row that were kept, and the question up to itself. This is computed by torch
        whatever the kernels are.

        Args:
            layer: index of the layer.
            queries: [rows, H, tokens, D], of the rows that joined last.
            keys: [rows, Hk, tokens, D], written into the cache.
            values: [rows, Hk, tokens, D], written into the cache.
            scaling: factor on query-key products.
            left: number of the question's tokens from the first of these on; None if these are all of them.

        Returns:
            [rows, tokens, H, D].
        """
        rows, _, tokens, _ = queries.shape
        first = self._layers[layer][-1].rows.stop - rows
        return self._attend(layer, queries, keys, values, scaling, first, tokens if left is None else left)

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
            new_keys, new_values = entries[0][here], entries[1][here]
            out[there] = bucket.attend(queries[there], new_keys, new_values, scaling, question)
        return out.transpose(1, 2)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these.

        Args:
            rows: indices of the rows that stay, ascending; they are numbered anew in this order.
        """
        for layer, buckets in enumerate(self._layers):
            staying: list[Bucket] = []
            for bucket in buckets:
                count, _ = bucket.shape
                first, stop = bisect_left(rows, bucket.row), bisect_left(rows, bucket.row + count)
                if first == stop:
                    continue
                if stop - first < count:
                    bucket.select([row - bucket.row for row in rows[first:stop]])
                bucket.row = first
                staying += bucket.rest() if stop - first < count else [bucket]
            buckets[:] = staying
            for bucket in buckets:
                bucket.form = self._forms[layer]
        self._tabulate()

    def reserve(self) -> bool:
        """Make room for the entries of a step, bucket by bucket; whether entries lie elsewhere now."""
        moved = [bucket.reserve() for buckets in self._layers for bucket in buckets]
        if any(moved):
            self._tabulate()
        return any(moved)

    def row(self, row: int) -> list[LayerKV]:
        """The entries of a row, with those of its question and of its steps, one ``LayerKV`` per layer; copies."""
        return [
            joined([b.taken(row - b.row) for b in sorted(buckets, key=lambda b: b.head) if b.row <= row < b.rows.stop])
            for buckets in self._layers
        ]

    @property
    def in_kernels(self) -> bool:
        """Whether the project's kernels compute a step, so that it can be captured; torch does for all other forms."""
        return self._ragged is not None

    def _tabulate(self) -> None:
        """After rows came or went, tell the kernels where all rows lie."""
        self._ragged = None
        layers = [[bucket for bucket in buckets if isinstance(bucket, PlainBucket)] for buckets in self._layers]
        if self._kernels == "triton" and list(map(len, layers)) == list(map(len, self._layers)):
            # Not imported above: triton comes with torch for CUDA alone.
            from harness.kernels.ragged_attention import RaggedAttention
            from harness.kernels.ragged_tables import Held

            held = [
                [Held(b.keys, b.values, b.entries + b.steps - self.step, b.row, b.head, b.cached) for b in buckets]
                for buckets in layers
            ]
            self._ragged = RaggedAttention(held, self.step)


def _runs(layouts: Sequence[object]) -> list[tuple[int, int]]:
    """(start, stop) of each run of neighbours with equal layouts."""
    starts = [index for index in range(len(layouts)) if index == 0 or layouts[index] != layouts[index - 1]]
    return list(zip(starts, [*starts[1:], len(layouts)], strict=True))
