"""Tables by which the attention of decoding steps finds the entries of rows: addresses, lengths, splits.

Shapes: C cached heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

import torch
from torch import Tensor

# Entries per program: enough to be worth a program, and few enough for a single long row to fill a card.
SPLIT = 512
# Bytes of the largest load.
_ALIGNED = 16


class Held(NamedTuple):
    """Heads of neighbouring rows that joined together and hold equally many entries in a layer.

    Attributes:
        keys: [rows, heads, capacity, D], contiguous.
        values: the same shape, contiguous.
        length: number of entries of a row minus the number of steps; below 0 for rows that joined late.
        row: index of the first row in the batch.
        head: index of the first head among the cached ones.
        cached: number of heads that these rows cache, C.
    """

    keys: Tensor
    values: Tensor
    length: int
    row: int
    head: int
    cached: int


@dataclass(frozen=True)
class Table:
    """Where the parts of rows of one layer that have equally many of equally many heads lie. All tensors are int64.

    Attributes:
        cached: C.
        heads: number of heads of a part.
        aligned: bytes, 16 at most, of which all addresses of entries are multiples.
        rows: [rows] index of each part's row in the batch.
        heads_before: [rows] index of a part's first head.
        keys: [rows] address of a row's keys.
        values: [rows] address of a row's values.
        capacities: [rows] number of entries that a row has room for.
        lengths: [rows] see ``Held``.
        first_splits: [rows] index of a row's first split.
        split_rows: [splits] index in this table of the row that a split belongs to.
    """

    cached: int
    heads: int
    aligned: int
    rows: Tensor
    heads_before: Tensor
    keys: Tensor
    values: Tensor
    capacities: Tensor
    lengths: Tensor
    first_splits: Tensor
    split_rows: Tensor


def tabulate(layers: Sequence[Sequence[Held]]) -> list[list[Table]]:
    """The tables of each layer, one for each number of cached heads and heads of a part, on the devices of its rows.

    Args:
        layers: per layer, the rows of the batch in their order. Their tensors must keep their addresses.
    """
    columns = [_columns(buckets) for buckets in layers]
    numbers = torch.tensor(
        [number for tables in columns for *_, table in tables for column in table for number in column]
    )
    devices = {buckets[0].keys.device for buckets in layers if buckets}
    on_device = {device: numbers.to(device) for device in devices}  # one copy, as each waits for the device
    found: list[list[Table]] = []
    begin = 0
    for buckets, tables in zip(layers, columns, strict=True):
        found.append([])
        for cached, heads, aligned, table in tables:
            sizes = [len(column) for column in table]
            end = begin + sum(sizes)
            numbers_here = torch.split(on_device[buckets[0].keys.device][begin:end], sizes)
            found[-1].append(Table(cached, heads, aligned, *numbers_here))
            begin = end
    return found


def _columns(buckets: Sequence[Held]) -> list[tuple[int, int, int, list[list[int]]]]:
    """The tables of one layer: (cached heads, heads of a part, alignment, columns in the order of ``Table``)."""
    tables = []
    shapes = [tuple(bucket.keys.shape) for bucket in buckets]
    for cached, heads in dict.fromkeys(
        (bucket.cached, shape[1]) for bucket, shape in zip(buckets, shapes, strict=True)
    ):
        rows: list[tuple[int, ...]] = []
        split_rows: list[int] = []
        for bucket, (count, here, capacity, _) in zip(buckets, shapes, strict=True):
            if (bucket.cached, here) != (cached, heads):
                continue
            keys, values, splits = bucket.keys.data_ptr(), bucket.values.data_ptr(), -(-capacity // SPLIT)
            row_bytes = bucket.keys.stride(0) * bucket.keys.element_size() if count > 1 else 0
            for index in range(count):
                rows.append((bucket.row + index, bucket.head, keys, values, capacity, bucket.length, len(split_rows)))
                split_rows += [len(rows) - 1] * splits
                keys, values = keys + row_bytes, values + row_bytes
        columns = [*map(list, zip(*rows, strict=True)), split_rows]
        numbers = buckets[0].keys
        aligned = gcd(_ALIGNED, numbers.shape[-1] * numbers.element_size(), *columns[2], *columns[3])
        tables.append((cached, heads, aligned, columns))
    return tables
