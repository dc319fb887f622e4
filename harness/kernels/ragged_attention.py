"""The attention of decoding steps in Triton, for rows of any length in one launch.

It appends one new entry to every row and attends to all entries of the row. A launch serves all rows of a layer that
cache the same number of heads. A row's entries are cut into splits of ``SPLIT``, with one program for each split and
cached head; a second launch combines the splits of a row. The splits and the order in which they are added depend on
the row alone, so that other rows in the batch cannot change a single bit of it.

Lengths are read on the device, so that the captured graph of one step can be replayed for every step.

Sums are float32. 16-bit numbers are multiplied as they are, on tensor cores, and attention weights are rounded to 16
bits before they meet the values, as in FlashAttention; float32 numbers are multiplied as float32. The new entry is
taken by itself, after those that are held, so that tiles of these are loaded ahead of their products.

Shapes: R rows, H query heads, Hk kv heads, C cached heads (Hk, or H where every query head has entries of its own), D
head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.kernels.ragged_tables import SPLIT, Held, tabulate
from harness.kernels.tiles import padded, product_bytes, product_dtype, tile_tokens

# Splits that are combined at a time.
_TOGETHER = 16
# Most entries of a tile, for products of numbers of so many bytes.
_TILE_TOKENS = {2: 64, 4: 16}


class RaggedAttention:
    """The attention of a batch of rows, valid until a row joins or leaves."""

    def __init__(self, layers: Sequence[Sequence[Held]], step: int) -> None:
        """Copy the addresses and lengths of all rows to the device.

        Args:
            layers: per layer, the rows of the batch in their order. Their tensors must keep their addresses.
            step: number of steps so far.
        """
        self._tables = tabulate(layers)
        devices = {buckets[0].keys.device for buckets in layers if buckets}
        self._steps = {device: torch.tensor([step], device=device) for device in devices}

    def advance(self) -> None:
        """End a step, in which every row got one more entry."""
        for step in self._steps.values():
            step += 1

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Append one entry to every row, then attend to all of its entries.

        Args:
            layer: index of the layer.
            queries: [R, H, D], the last dimension contiguous.
            keys: [R, Hk, D], the last dimension contiguous.
            values: [R, Hk, D], the last dimension contiguous.
            scaling: factor on query-key products.

        Returns:
            [R, H, D].
        """
        _, heads, dim = queries.shape
        kv_heads = keys.shape[1]
        # Keys and values of a tile lie there together.
        tile = tile_tokens(2 * dim, _TILE_TOKENS[product_bytes(queries.dtype)], queries.dtype)
        product = product_dtype(queries.dtype)
        out = torch.empty_like(queries, memory_format=torch.contiguous_format)
        strides = (*queries.stride()[:2], *keys.stride()[:2], *values.stride()[:2])
        with torch.cuda.device_of(queries):  # type: ignore[no-untyped-call]  # layers may lie on different cards
            for table in self._tables[layer]:
                splits, group = len(table.split_rows), heads // table.cached
                width = table.heads * group  # query heads of a part
                mixed = torch.empty(splits, width, dim, dtype=torch.float32, device=queries.device)
                largest, total = torch.empty(2, splits, width, dtype=torch.float32, device=queries.device)
                shared = (
                    mixed,
                    largest,
                    total,
                    table.rows,
                    table.lengths,
                    table.first_splits,
                    self._steps[queries.device],
                    table.heads_before,
                    width,
                )
                entries = (table.keys, table.values, table.capacities, table.split_rows)
                constants = (
                    group,
                    padded(group),
                    table.cached // kv_heads,
                    dim,
                    padded(dim),
                    tile,
                    SPLIT,
                    product,
                    table.aligned,
                )
                _attend[splits, table.heads](*shared, queries, keys, values, *entries, scaling, *strides, *constants)
                _join[len(table.rows), width](*shared, out, heads, group, dim, padded(dim), SPLIT, _TOGETHER)
        return out


@triton.jit  # type: ignore[untyped-decorator]
def _attend(
    mixed_out: tl.tensor,
    largest_out: tl.tensor,
    total_out: tl.tensor,
    rows: tl.tensor,
    lengths: tl.tensor,
    first_splits: tl.tensor,
    step: tl.tensor,
    heads_before: tl.tensor,
    width: tl.tensor,
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
    PRODUCT: tl.constexpr,
    ALIGNED: tl.constexpr,
) -> None:
    """Attention to the entries of one split of one cached head, not yet divided by the sum of its weights."""
    split, part_head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    row = tl.load(split_rows + split)
    head = tl.load(heads_before + row) + part_head
    length = tl.load(lengths + row) + tl.load(step)  # index of the new entry
    first = (split - tl.load(first_splits + row)) * SPLIT_ENTRIES
    if first <= length:
        number = tl.load(rows + row)
        begin = part_head * tl.load(capacities + row) * DIM
        # Of addresses from a table the compiler knows nothing, and would load number by number.
        keys = tl.load(key_addresses + row).to(tl.pointer_type(new_keys.dtype.element_ty))
        values = tl.load(value_addresses + row).to(tl.pointer_type(new_values.dtype.element_ty))
        keys = tl.multiple_of(keys, ALIGNED)
        values = tl.multiple_of(values, ALIGNED)
        keys += begin
        values += begin
        dims, members = tl.arange(0, PADDED), tl.arange(0, GROUP_PADDED)
        inside = dims < DIM
        own = (members < GROUP)[:, None] & inside[None, :]
        at = number * query_row + (head * GROUP + members) * query_head
        query_tile = tl.load(queries + at[:, None] + dims[None, :], mask=own, other=0.0)
        largest = tl.full([GROUP_PADDED], float("-inf"), tl.float32)
        total = tl.zeros([GROUP_PADDED], tl.float32)
        mixed = tl.zeros([GROUP_PADDED, PADDED], tl.float32)
        stop = tl.minimum(first + SPLIT_ENTRIES, length)
        for start in range(first, stop, TILE):
            positions = start + tl.arange(0, TILE)
            offsets = positions[:, None] * DIM + dims[None, :]
            held = (positions < stop)[:, None] & inside[None, :]
            key_tile = tl.load(keys + offsets, mask=held, other=0.0).to(PRODUCT)
            value_tile = tl.load(values + offsets, mask=held, other=0.0)
            logits = tl.dot(query_tile.to(PRODUCT), tl.trans(key_tile), input_precision="ieee") * scaling
            logits = tl.where((positions < stop)[None, :], logits, float("-inf"))
            larger = tl.maximum(largest, tl.max(logits, 1))
            weights = tl.exp(logits - larger[:, None])
            shrink = tl.exp(largest - larger)
            total = total * shrink + tl.sum(weights, 1)
            rounded = weights.to(value_tile.dtype).to(PRODUCT)
            mixed = mixed * shrink[:, None] + tl.dot(rounded, value_tile.to(PRODUCT), input_precision="ieee")
            largest = larger
        if length < first + SPLIT_ENTRIES:
            new_key = tl.load(new_keys + number * key_row + head // COPIES * key_head + dims, mask=inside, other=0.0)
            new_value = tl.load(
                new_values + number * value_row + head // COPIES * value_head + dims, mask=inside, other=0.0
            )
            tl.store(keys + length * DIM + dims, new_key, mask=inside)
            tl.store(values + length * DIM + dims, new_value, mask=inside)
            logit = tl.sum(query_tile.to(tl.float32) * new_key.to(tl.float32)[None, :], 1) * scaling
            larger = tl.maximum(largest, logit)
            weight = tl.exp(logit - larger)
            shrink = tl.exp(largest - larger)
            total = total * shrink + weight
            mixed = mixed * shrink[:, None] + weight[:, None] * new_value.to(tl.float32)[None, :]
            largest = larger
        to = split * width + part_head * GROUP + members
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
    heads_before: tl.tensor,
    width: tl.tensor,
    out: tl.tensor,
    heads: tl.tensor,
    group: tl.tensor,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    SPLIT_ENTRIES: tl.constexpr,
    TOGETHER: tl.constexpr,
) -> None:
    """Combine the splits of one part of a row and one of its query heads."""
    row, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    splits = (tl.load(lengths + row) + tl.load(step)) // SPLIT_ENTRIES + 1
    first = tl.load(first_splits + row)
    dims = tl.arange(0, PADDED)
    largest = float("-inf")
    total = 0.0
    mixed = tl.zeros([PADDED], tl.float32)
    for start in range(0, splits, TOGETHER):
        indices = start + tl.arange(0, TOGETHER)
        used = indices < splits
        at = (first + indices) * width + head
        peaks = tl.load(largest_in + at, mask=used, other=float("-inf"))
        larger = tl.maximum(largest, tl.max(peaks, 0))
        weights = tl.exp(peaks - larger)
        shrink = tl.exp(largest - larger)
        total = total * shrink + tl.sum(weights * tl.load(total_in + at, mask=used, other=0.0), 0)
        split_mixed = tl.load(
            mixed_in + at[:, None] * DIM + dims[None, :], mask=used[:, None] & (dims < DIM)[None, :], other=0.0
        )
        mixed = mixed * shrink + tl.sum(weights[:, None] * split_mixed, 0)
        largest = larger
    number = tl.load(rows + row)
    before = tl.load(heads_before + row) * group
    tl.store(out + (number * heads + before + head) * DIM + dims, mixed / total, mask=dims < DIM)
