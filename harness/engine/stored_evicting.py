"""Packed entries of rows that evict while they decode, of storages that pack every entry by itself.

What leaves the cache takes its codes, scales and zero points with it, and those of the last entries move into the gaps.
Nothing is rounded twice. In a step, and where entries are chosen to leave, a layer is unpacked and forgotten again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from harness.compression.packing import Parts
from harness.compression.storage import Storage
from harness.engine.buckets import Bucket, Joining, LayerKV
from harness.engine.evicting import EvictingBucket, EvictingKV

_SIDES = ("keys", "values")


@dataclass(frozen=True)
class StoredEvictingKV(EvictingKV):
    """The kept entries of one row in one layer, packed, with what their eviction goes on from.

    Attributes:
        keys: nothing; nor has ``values``.
        storage: how entries are packed.
        packed: parts of keys and of values, each [1, cache_heads, entries, ...].
        like: nothing, with the dtype and the head_dim of a key.
    """

    storage: Storage = field(kw_only=True)
    packed: tuple[Parts, Parts] = field(kw_only=True)
    like: Tensor = field(kw_only=True)

    @property
    def bytes(self) -> int:
        """Bytes of codes, scales and zero points."""
        return sum(part.nbytes for side in self.packed for part in side)

    @property
    def numbers(self) -> int:
        """See ``LayerKV``; in whatever form they are stored."""
        return 2 * self.positions.numel() * self.like.shape[-1]

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """See ``LayerKV``."""
        return ((self.positions.shape[0], self.positions.shape[1]),)

    @property
    def layout(self) -> tuple[Any, ...]:
        """See ``LayerKV``."""
        return (*super().layout, self.storage.form)

    def differs(self, entries: EvictingKV) -> bool:
        """Whether a number comes back otherwise than it was.

        Args:
            entries: the same entries as they were.
        """
        back = self.unpacked()
        return not (torch.equal(back.keys, entries.keys) and torch.equal(back.values, entries.values))

    def unpacked(self) -> EvictingKV:
        """The same entries as they come back."""
        keys = self.storage.unpack_keys(self.packed[0], self.like)[0]
        values = self.storage.unpack_values(self.packed[1], self.like)[0]
        return replace(self, keys=keys, values=values)

    def buckets(self, rows: Sequence[LayerKV], joining: Joining) -> Iterator[Bucket]:
        """One bucket of all heads; see ``LayerKV``."""
        yield StoredEvictingBucket([row for row in rows if isinstance(row, StoredEvictingKV)], joining)


def stored_evicting(entries: EvictingKV, storage: Storage) -> StoredEvictingKV:
    """The same entries, each packed by itself."""
    packed = storage.pack_keys(entries.keys[None]), storage.pack_values(entries.values[None])
    state = {each.name: getattr(entries, each.name) for each in fields(EvictingKV) if each.name not in _SIDES}
    nothing = entries.keys.new_empty(0, 0, entries.keys.shape[-1])
    return StoredEvictingKV(nothing, nothing, **state, storage=storage, packed=packed, like=nothing)


class StoredEvictingBucket(EvictingBucket):
    """Rows in the same storage that evict alike.

    Keys and values are there while they are needed: in ``attend``, and while entries are chosen to leave.
    """

    def __init__(self, rows: Sequence[StoredEvictingKV], joining: Joining) -> None:
        """Copy the state of rows with equal layouts that join together."""
        super().__init__([row.unpacked() for row in rows], joining)
        self._storage, self._like = rows[0].storage, rows[0].like
        entries, room = rows[0].positions.shape[1], self.positions.shape[2]
        self._names: dict[str, list[str]] = {}
        for side, name in enumerate(_SIDES):
            parts = [torch.cat(part) for part in zip(*(row.packed[side] for row in rows), strict=True)]
            self._names[name] = [f"{name}_part_{place}" for place in range(len(parts))]
            for attribute, part in zip(self._names[name], parts, strict=True):
                held = part.new_zeros(*part.shape[:2], room, *part.shape[3:])
                held[:, :, :entries] = part
                setattr(self, attribute, held)
                self._room_axes[attribute] = 2
        self._close()

    @property
    def shape(self) -> tuple[int, int]:
        """Number of its rows and of its heads."""
        return self.positions.shape[0], self.positions.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes of codes, scales and zero points, with the room for those to come."""
        return sum(part.nbytes for name in _SIDES for part in self._parts(name))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, question: int) -> Tensor:
        """See ``Bucket``; the new tokens are attended to as they are, and packed then."""
        if self._question and not question:
            self.end_call()
        start = self.schedule.held
        self._open()
        out = super().attend(queries, keys, values, scaling, question)
        self._close()
        for name, packed in (("keys", self._storage.pack_keys(keys)), ("values", self._storage.pack_values(values))):
            for part, new in zip(self._parts(name), packed, strict=True):
                part[:, :, start : start + keys.shape[2]] = new
        return out

    def _evict(self, stop: int, target: int) -> None:
        self._open()
        super()._evict(stop, target)
        self._close()

    def _parts(self, name: str) -> Parts:
        return tuple(getattr(self, attribute) for attribute in self._names[name])

    def _open(self) -> None:
        self.keys = self._storage.unpack_keys(self._parts("keys"), self._like)
        self.values = self._storage.unpack_values(self._parts("values"), self._like)

    def _close(self) -> None:
        nothing = self.positions.new_empty(self.positions.shape[0], 0)
        self.keys = self.values = nothing
