"""Decoding's attention in Triton: one new entry for every row, and attention to all that the row holds, whatever its length.

A launch serves all rows of a layer that cache the same number of heads. What a row holds is cut into splits of
``SPLIT`` entries, with a program for each and each cached head; a second launch puts a row's splits together. Which
entries make a split, and in which order splits are added, depends on the row alone: what stands beside it in the batch
cannot change a bit of it.

Lengths are read on the device, so that a captured graph of one step can be replayed for every step.

Everything is float32. Numbers of 16 bits are multiplied as TF32, which holds them exactly; float32 numbers are
multiplied as such.

Shapes: R rows, H query heads, Hk kv heads, C cached heads (Hk, or H where every query head has entries of its own), D
head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.kernels.tiles import padded, precision_of, tile_tokens

# Entries of one program: enough to be worth a program, few enough for a long row to fill a card.
SPLIT = 512
# Splits that are put together at once.
_TOGETHER = 16
_TILE_TOKENS = {"tf32": 64, "ieee": 16}


@dataclass(frozen=True)
class Held:
    """Rows that joined together and cache equally much in a layer.

    Attributes:
        keys, values: [rows, C, capacity, D], each row contiguous.
        length: entries that a row would have held at step 0; below 0 for rows that joined late.
    """

    keys: Tensor
    values: Tensor
    length: int


@dataclass(frozen=True)
class _Table:
    """Where the entries of those rows of one layer lie that cache the same number of heads. Numbers are int64.

    Attributes:
        cached: C.
        rows: [rows] their numbers in the batch.
        keys, values: [rows] addresses of a row's entries.
        capacities: [rows] entries that a row has room for.
        lengths: [rows] see ``Held``.
        first_splits: [rows] a row's first split.
        split_rows: [splits] the row, as a place in this table, that a split belongs to.
    """

    cached: int
    rows: Tensor
    keys: Tensor
    values: Tensor
    capacities: Tensor
    lengths: Tensor
    first_splits: Tensor
    split_rows: Tensor


class RaggedAttention:
    """Attention of a batch of rows, as long as none comes or goes."""

    def __init__(self, layers: Sequence[Sequence[Held]], step: int) -> None:
        """Note where everything lies.

        Args:
            layers: per layer the rows of the batch, in their order. They must stay where they are.
            step: steps taken so far.
        """
        columns = [_columns(buckets) for buckets in layers]
        words = torch.tensor(
            [word for of_layer in columns for _, table in of_layer for column in table for word in column]
        )
        devices = {buckets[0].keys.device for buckets in layers if buckets}
        there = {device: words.to(device) for device in devices}  # all at once: copies wait for the device
        self._steps = {device: torch.tensor([step], device=device) for device in devices}
        self._tables: list[list[_Table]] = []
        begin = 0
        for buckets, of_layer in zip(layers, columns, strict=True):
            self._tables.append([])
            for cached, table in of_layer:
                sizes = [len(column) for column in table]
                end = begin + sum(sizes)
                self._tables[-1].append(_Table(cached, *torch.split(there[buckets[0].keys.device][begin:end], sizes)))
                begin = end

    def advance(self) -> None:
        """The step is taken."""
        for step in self._steps.values():
            step += 1

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Append one entry to every row, and attend to all that it holds.

        Args:
            layer: the layer.
            queries: [R, H, D], the last dimension contiguous.
            keys, values: [R, Hk, D], the same.
            scaling: of the query-key products.

        Returns:
            [R, H, D].
        """
        _, heads, dim = queries.shape
        kv_heads = keys.shape[1]
        precision = precision_of(queries.dtype)
        tile = tile_tokens(dim, _TILE_TOKENS[precision])
        out = torch.empty_like(queries, memory_format=torch.contiguous_format)
        strides = (*queries.stride()[:2], *keys.stride()[:2], *values.stride()[:2])
        with torch.cuda.device_of(queries):  # type: ignore[no-untyped-call]  # layers may lie on different cards
            for table in self._tables[layer]:
                splits, group = len(table.split_rows), heads // table.cached
                mixed = torch.empty(splits, heads, dim, dtype=torch.float32, device=queries.device)
                largest, total = torch.empty(2, splits, heads, dtype=torch.float32, device=queries.device)
                shared = (
                    mixed,
                    largest,
                    total,
                    table.rows,
                    table.lengths,
                    table.first_splits,
                    self._steps[queries.device],
                    heads,
                )
                entries = (table.keys, table.values, table.capacities, table.split_rows)
                constants = (group, padded(group), table.cached // kv_heads, dim, padded(dim), tile, SPLIT, precision)
                _attend[splits, table.cached](*shared, queries, keys, values, *entries, scaling, *strides, *constants)
                _join[len(table.rows), heads](*shared, out, dim, padded(dim), SPLIT, _TOGETHER)
        return out


def _columns(buckets: Sequence[Held]) -> list[tuple[int, list[list[int]]]]:
    """The tables of one layer: cached heads, and the columns in the order of ``_Table``."""
    found = []
    for cached in dict.fromkeys(bucket.keys.shape[1] for bucket in buckets):
        rows: list[tuple[int, ...]] = []
        split_rows: list[int] = []
        first = 0
        for bucket in buckets:
            count, heads, capacity, _ = bucket.keys.shape
            key_bytes, value_bytes = (
                states.stride(0) * states.element_size() for states in (bucket.keys, bucket.values)
            )
            keys, values = bucket.keys.data_ptr(), bucket.values.data_ptr()
            for place in range(count if heads == cached else 0):
                entries = (keys + place * key_bytes, values + place * value_bytes, capacity, bucket.length)
                rows.append((first + place, *entries, len(split_rows)))
                split_rows += [len(rows) - 1] * -(-capacity // SPLIT)
            first += count
        found.append((cached, [*map(list, zip(*rows, strict=True)), split_rows]))
    return found


@triton.jit  # type: ignore[untyped-decorator]
def _attend(
    mixed_out: tl.tensor,
    largest_out: tl.tensor,
    total_out: tl.tensor,
    rows: tl.tensor,
    lengths: tl.tensor,
    first_splits: tl.tensor,
    step: tl.tensor,
    heads: tl.tensor,
    queries: tl.tensor,
    new_keys: tl.tensor,
    new_values: tl.tensor,
    key_addresses: tl.tensor,
    value_addresses: tl.tensor,
    capacities: tl.tensor,
    split_rows: tl.tensor,
    scaling: tl.tensor,
    query_row: tl.tensor,
    query_head: tl.tensor,
    key_row: tl.tensor,
    key_head: tl.tensor,
    value_row: tl.tensor,
    value_head: tl.tensor,
    GROUP: tl.constexpr,
    GROUP_PADDED: tl.constexpr,
    COPIES: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    TILE: tl.constexpr,
    SPLIT_ENTRIES: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """One split of one cached head: the attention of its queries to these entries, not yet divided by its sum."""
    split, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    row = tl.load(split_rows + split)
    length = tl.load(lengths + row) + tl.load(step)  # the place of the new entry
    first = (split - tl.load(first_splits + row)) * SPLIT_ENTRIES
    if first <= length:
        number = tl.load(rows + row)
        begin = head * tl.load(capacities + row) * DIM
        keys = tl.load(key_addresses + row).to(tl.pointer_type(new_keys.dtype.element_ty)) + begin
        values = tl.load(value_addresses + row).to(tl.pointer_type(new_values.dtype.element_ty)) + begin
        dims, members = tl.arange(0, PADDED), tl.arange(0, GROUP_PADDED)
        inside = dims < DIM
        own = (members < GROUP)[:, None] & inside[None, :]
        at = number * query_row + (head * GROUP + members) * query_head
        asking = tl.load(queries + at[:, None] + dims[None, :], mask=own, other=0.0).to(tl.float32)
        new_key = tl.load(new_keys + number * key_row + head // COPIES * key_head + dims, mask=inside, other=0.0)
        new_value = tl.load(
            new_values + number * value_row + head // COPIES * value_head + dims, mask=inside, other=0.0
        )
        largest = tl.full([GROUP_PADDED], float("-inf"), tl.float32)
        total = tl.zeros([GROUP_PADDED], tl.float32)
        mixed = tl.zeros([GROUP_PADDED, PADDED], tl.float32)
        for start in range(first, tl.minimum(first + SPLIT_ENTRIES, length + 1), TILE):
            places = start + tl.arange(0, TILE)
            offsets = places[:, None] * DIM + dims[None, :]
            held, newest = (places < length)[:, None] & inside[None, :], (places == length)[:, None]
            seen = tl.where(newest, new_key[None, :], tl.load(keys + offsets, mask=held, other=0.0)).to(tl.float32)
            told = tl.where(newest, new_value[None, :], tl.load(values + offsets, mask=held, other=0.0)).to(tl.float32)
            logits = tl.dot(asking, tl.trans(seen), input_precision=PRECISION) * scaling
            logits = tl.where((places <= length)[None, :], logits, float("-inf"))
            larger = tl.maximum(largest, tl.max(logits, 1))
            weights = tl.exp(logits - larger[:, None])
            shrink = tl.exp(largest - larger)
            total = total * shrink + tl.sum(weights, 1)
            mixed = mixed * shrink[:, None] + tl.dot(weights, told, input_precision=PRECISION)
            largest = larger
        if length < first + SPLIT_ENTRIES:
            tl.store(keys + length * DIM + dims, new_key, mask=inside)
            tl.store(values + length * DIM + dims, new_value, mask=inside)
        to = split * heads + head * GROUP + members
        tl.store(mixed_out + to[:, None] * DIM + dims[None, :], mixed, mask=own)
        tl.store(largest_out + to, largest, mask=members < GROUP)
        tl.store(total_out + to, total, mask=members < GROUP)


@triton.jit  # type: ignore[untyped-decorator]
def _join(
    mixed_in: tl.tensor,
    largest_in: tl.tensor,
    total_in: tl.tensor,
    rows: tl.tensor,
    lengths: tl.tensor,
    first_splits: tl.tensor,
    step: tl.tensor,
    heads: tl.tensor,
    out: tl.tensor,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    SPLIT_ENTRIES: tl.constexpr,
    TOGETHER: tl.constexpr,
) -> None:
    """The splits of one row and query head, put together."""
    row, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    splits = (tl.load(lengths + row) + tl.load(step)) // SPLIT_ENTRIES + 1
    first = tl.load(first_splits + row)
    dims = tl.arange(0, PADDED)
    largest = float("-inf")
    total = 0.0
    mixed = tl.zeros([PADDED], tl.float32)
    for start in range(0, splits, TOGETHER):
        places = start + tl.arange(0, TOGETHER)
        used = places < splits
        at = (first + places) * heads + head
        peaks = tl.load(largest_in + at, mask=used, other=float("-inf"))
        larger = tl.maximum(largest, tl.max(peaks, 0))
        weights = tl.exp(peaks - larger)
        shrink = tl.exp(largest - larger)
        total = total * shrink + tl.sum(weights * tl.load(total_in + at, mask=used, other=0.0), 0)
        theirs = tl.load(
            mixed_in + at[:, None] * DIM + dims[None, :], mask=used[:, None] & (dims < DIM)[None, :], other=0.0
        )
        mixed = mixed * shrink + tl.sum(weights[:, None] * theirs, 0)
        largest = larger
    number = tl.load(rows + row)
    tl.store(out + (number * heads + head) * DIM + dims, mixed / total, mask=dims < DIM)
