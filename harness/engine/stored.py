"""Kept entries in another form than the model's: packed by a storage, unpacked layer by layer in every step.

New entries are attended to as they are; those that are due by the storage's rule are packed before the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.compression.allocation import Shape
from harness.compression.grid import Plan
from harness.compression.packing import Parts
from harness.compression.storage import EXACT, Storage
from harness.engine.buckets import Bucket, Joining, LayerKV, attention
from harness.results import by_head


@dataclass
class Packed:
    """Keys or values of some heads of some rows.

    Attributes:
        parts: the first ones, packed, each [rows, heads, ...]; none if nothing is packed yet.
        count: number of these for each head.
        rest: the others as they are, [rows, heads, entries, head_dim].
    """

    parts: Parts
    count: int
    rest: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of all that is stored."""
        return sum(part.nbytes for part in self.parts) + self.rest.nbytes

    def settle(self, border: int, entries: int, pack: Callable[[Tensor], Parts]) -> None:
        """Pack what is due, and drop entries beyond those that there are, which come from a step that is repeated.

        Args:
            border: number of first entries that are to be packed; not below ``count``.
            entries: number of entries that there are.
            pack: packs the next ones.
        """
        self.rest = self.rest[:, :, : entries - self.count]
        if due := border - self.count:
            parts = pack(self.rest[:, :, :due])
            if self.count:
                parts = tuple(torch.cat(pair, dim=2) for pair in zip(self.parts, parts, strict=True))
            self.parts = parts
            self.rest, self.count = self.rest[:, :, due:], border

    def append(self, new: Tensor, unpack: Callable[[Parts, Tensor], Tensor]) -> Tensor:
        """Append entries, and return all of them, [rows, heads, entries, head_dim]."""
        self.rest = torch.cat([self.rest, new], dim=2)
        return torch.cat([unpack(self.parts, self.rest), self.rest], dim=2) if self.count else self.rest

    def select(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        self.parts, self.rest = tuple(part[list(rows)] for part in self.parts), self.rest[list(rows)]


def joined(packed: Sequence[Packed]) -> Packed:
    """The entries of rows that have equally many, as one."""
    parts = tuple(torch.cat(part) for part in zip(*(each.parts for each in packed), strict=True))
    return Packed(parts, packed[0].count, torch.cat([each.rest for each in packed]))


@dataclass(frozen=True)
class StoredKV(LayerKV):
    """The kept entries of one row in one layer, in the form of a storage.

    Attributes:
        keys: nothing; nor has ``values``.
        storage: how entries are packed.
        stored: keys and values of each run of heads.
        lengths: ``runs``.
    """

    stays: ClassVar[bool] = False
    in_pieces: ClassVar[bool] = False
    storage: Storage = EXACT
    stored: tuple[tuple[Packed, Packed], ...] = ()
    lengths: tuple[tuple[int, int], ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of codes, scales, zero points, indices and whatever else is stored."""
        return sum(keys.bytes + values.bytes for keys, values in self.stored)

    @property
    def numbers(self) -> int:
        """See ``LayerKV``; in whatever form they are stored."""
        dim = self.stored[0][0].rest.shape[-1]
        return sum(2 * heads * entries * dim for heads, entries in self.lengths)

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """See ``LayerKV``."""
        return self.lengths

    @property
    def layout(self) -> tuple[Any, ...]:
        """See ``LayerKV``."""
        return *super().layout, self.storage.form

    def differs(self, entries: LayerKV) -> bool | None:
        """Whether a number comes back otherwise than it was; None if nothing is packed.

        Args:
            entries: the same entries as they were.
        """
        pairs = [
            (unpack(packed.parts, packed.rest)[0], exact[:, : packed.count])
            for run, exacts in zip(self.stored, entries.parts(), strict=True)
            for packed, exact, unpack in zip(
                run, exacts, (self.storage.unpack_keys, self.storage.unpack_values), strict=True
            )
            if packed.count
        ]
        return any(not torch.equal(back, exact) for back, exact in pairs) if pairs else None

    def buckets(self, rows: Sequence[LayerKV], joining: Joining) -> Iterator[Bucket]:
        """See ``LayerKV``."""
        stored = [row.stored for row in rows if isinstance(row, StoredKV)]
        cached, head = sum(heads for heads, _ in self.runs), 0
        for part, (heads, entries) in enumerate(self.runs):
            keys, values = (joined([row[part][side] for row in stored]) for side in (0, 1))
            yield StoredBucket(joining.first_row, head, cached, self.storage, keys, values, entries, joining.question)
            head += heads


@cache
def head_bytes(storage: Storage, entries: int, head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of so many entries of one head in a storage: of tensors that are made without memory."""
    states, seen = (torch.empty(1, tokens, head_dim, dtype=dtype, device="meta") for tokens in (entries, 1))
    plain = LayerKV(states, states)
    return stored(plain, storage, seen[0]).bytes if storage.packs else plain.bytes


def plan_bytes(plan: Plan, shape: Shape, head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of what a plan keeps of a prompt: at most, if it waits for its layers, and then as if heads kept alike."""
    if plan.waiting is not None or not plan.storage.packs:
        heads = shape.layers * shape.cache_heads
        counts, rest = divmod(plan.total(shape), heads)
        each = partial(head_bytes, plan.storage, head_dim=head_dim, dtype=dtype)
        return (heads - rest) * each(counts) + rest * each(counts + 1)
    return sum(
        (1 if isinstance(layer, tuple) else shape.kv_heads if layer == shape.tokens else shape.cache_heads)
        * head_bytes(plan.storage, count, head_dim, dtype)
        for layer in plan.keep
        for count in by_head(layer)
    )


def stored(entries: LayerKV, storage: Storage, seen: Tensor | None) -> StoredKV:
    """The same entries in the form of a storage.

    Args:
        entries: the entries of a row in a layer, as they are.
        storage: how they are stored; not as they are.
        seen: what the storage saw of the layer, [query heads, ...]; see ``Storage.look``.
    """
    if seen is not None:  # by head of the cache
        seen = seen.reshape(sum(heads for heads, _ in entries.runs), -1, *seen.shape[1:])
    runs, head = [], 0
    for (heads, count), (keys, values) in zip(entries.runs, entries.parts(), strict=True):
        borders = storage.borders(count, count)
        looked = None if seen is None else seen[head : head + heads]
        first_keys = partial(storage.first_keys, border=borders[0], seen=looked)
        first_values = partial(_first, border=borders[1], pack=storage.pack_values)
        runs.append((_packed(keys[None], borders[0], first_keys), _packed(values[None], borders[1], first_values)))
        head += heads
    nothing = entries.keys.new_empty(0, 0, 0)
    return StoredKV(nothing, nothing, None, storage, tuple(runs), entries.runs)


def _first(states: Tensor, border: int, pack: Callable[[Tensor], Parts]) -> Parts:
    return pack(states[:, :, :border])


def _packed(states: Tensor, border: int, pack: Callable[[Tensor], Parts]) -> Packed:
    if not border:
        return Packed((), 0, states)
    # A copy, as a view would hold the memory of all.
    return Packed(pack(states), border, states[:, :, border:].clone())


@dataclass
class StoredBucket(Bucket):
    """Entries in the form of a storage.

    Attributes:
        storage: how they are packed.
        keys: the keys.
        values: the values.
        kept: entries of each head that were kept of the prompt.
        question: number of tokens of a question that ran through them.
    """

    storage: Storage
    keys: Packed
    values: Packed
    kept: int
    question: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of its rows and of its heads."""
        return self.keys.rest.shape[0], self.keys.rest.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes of all rows."""
        return self.keys.bytes + self.values.bytes

    def settle(self, entries: int) -> None:
        """Pack what is due when there are so many entries."""
        keys, values = self.storage.borders(self.kept, entries)
        self.keys.settle(keys, entries, self.storage.pack_keys)
        self.values.settle(values, entries, self.storage.pack_values)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, question: int) -> Tensor:
        """See ``Bucket``; the new tokens are attended to as they are."""
        start = self.kept + self.question - question + self.steps
        self.settle(start)
        every_key = self.keys.append(keys, self.storage.unpack_keys)
        every_value = self.values.append(values, self.storage.unpack_values)
        return attention(queries, every_key, every_value, self.softmax(scaling))

    def select(self, rows: Sequence[int]) -> None:
        """See ``Bucket``."""
        self.keys.select(rows)
        self.values.select(rows)
