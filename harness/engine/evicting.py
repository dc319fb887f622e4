"""Entries of rows that evict while they decode: the rows' own state, and buckets in which new entries replace old ones.

What leaves the cache makes room for what comes: the last entries move into the gaps, so that the entries of all heads
stay the first ones of a tensor. At one eviction per token this moves one entry per head and step; the cache is never
copied. Memory is bounded by the budget and the tokens from one eviction to the next.

Numbers of entries and the calls that evict are decided on the host, from numbers alone, and change from step to step.
So steps that can evict are computed by torch, whatever the kernels are, and are not captured in CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.compression.eviction import Entries, Eviction, Evictor, Schedule, attended, victims, without
from harness.compression.method import LayerState
from harness.compression.selection import Order, Selection
from harness.engine.attention import masked_attention
from harness.engine.buckets import Bucket, Joining, LayerKV
from harness.engine.chosen import ChosenKV, SharedBucket
from harness.engine.prompt_sharing import can_share

_LONG_BYTES = 16 * 2**20
"""Of a prompt's keys and values in one layer: where copies of fewer are made, one bucket of all rows is faster."""


@dataclass(frozen=True)
class EvictingKV(LayerKV):
    """The kept entries of one row in one layer, with what its eviction goes on from.

    Attributes:
        evictor: what is dropped.
        budget: entries per head.
        total: tokens of which these entries were kept; the position of the next token.
        layer: the layer, without tokens.
        selection: how entries are selected.
        positions: [cache_heads, entries], those of the entries' tokens, ascending.
        statistic: [heads, entries] in float32; None if the evictor reads no weights.
        queries: the last queries, [heads, queries, head_dim]; None if the evictor needs none.
        order: indices of the entries in the cache's order, [cache_heads, entries]; None if it is that of positions.
    """

    stays: ClassVar[bool] = False
    in_pieces: ClassVar[bool] = False
    evictor: Evictor = field(kw_only=True)
    budget: int = field(kw_only=True)
    total: int = field(kw_only=True)
    layer: LayerState = field(kw_only=True)
    selection: Selection = field(kw_only=True)
    positions: Tensor = field(kw_only=True)
    statistic: Tensor | None = field(kw_only=True, default=None)
    queries: Tensor | None = field(kw_only=True, default=None)
    order: Tensor | None = field(kw_only=True, default=None)

    @property
    def layout(self) -> tuple[Any, ...]:
        """Rows that evict alike, at the same calls."""
        queries = 0 if self.queries is None else self.queries.shape[1]
        return (*super().layout, repr(self.evictor), self.budget, self.evictor.phase(self.total), queries)

    def buckets(self, rows: Sequence[LayerKV], joining: Joining) -> Iterator[Bucket]:
        """See ``LayerKV``. One bucket of all heads; rows that keep a long prompt whole while they stay copy nothing."""
        evicting = [row for row in rows if isinstance(row, EvictingKV)]
        if not self._stays_whole(joining):
            yield EvictingBucket(evicting, joining)
            return
        copies = self.layer.queries.shape[0] // len(self.keys)
        for place, row in enumerate(evicting):
            whole = ChosenKV(row.keys, row.values, copies=copies, kernels=self.layer.kernels)
            yield _WholeBucket.of([whole], replace(joining, first_row=joining.first_row + place))

    def _stays_whole(self, joining: Joining) -> bool:
        """Whether it keeps all of a long prompt, and evicts nothing and reads nothing of its steps while it stays."""
        evictor, entries = self.evictor, self.positions.shape[1]
        looks = evictor.reads or evictor.rerotated or evictor.ordered
        short = self.bytes < _LONG_BYTES or entries < self.total
        if short or looks or not joining.spare or not can_share(self.layer):
            return False
        before, after = attended(evictor, self.budget, entries, self.total, joining.question, joining.spare)
        return before == after


def evicting(
    kept: LayerKV,
    eviction: Eviction,
    indices: Tensor,
    state: LayerState,
    selection: Selection,
    raw: Tensor | None = None,
    order: Order | None = None,
) -> EvictingKV:
    """What a plan kept of a layer, with what its eviction goes on from.

    Args:
        kept: the kept entries; of a whole layer those of the kv heads.
        eviction: how the plan goes on.
        indices: [cache_heads, entries] of the kept entries, ascending.
        state: the layer.
        selection: how entries are selected.
        raw: raw scores [heads, tokens] of all tokens, if the statistic begins with them.
        order: the order of the candidates, if the evictor is ordered and they were scored.
    """
    heads, entries = indices.shape
    evictor, copies = eviction.evictor, state.queries.shape[0] // heads
    keys, values = kept.keys, kept.values
    if len(keys) < heads:  # A whole layer is kept for the kv heads.
        keys, values = (part.repeat_interleave(heads // len(part), dim=0) for part in (keys, values))
    statistic = None if raw is None else raw.float().gather(1, indices.repeat_interleave(copies, dim=0))
    places = None
    if order is not None:
        window = state.keys.shape[1] - order.scores.shape[1]
        best = order.scores.gather(1, indices[:, : entries - window]).argsort(dim=-1, descending=True, stable=True)
        places = torch.cat([best, torch.arange(entries - window, entries, device=best.device).expand(heads, -1)], 1)
    return EvictingKV(
        keys,
        values,
        evictor=evictor,
        budget=eviction.budgets[state.index],
        total=state.keys.shape[1],
        layer=state.emptied,
        selection=selection,
        positions=indices,
        statistic=statistic,
        queries=state.queries[:, -evictor.queries :].clone() if evictor.queries else None,
        order=places,
    )


class _WholeBucket(SharedBucket):
    """A row that would evict if it stayed longer; it does not go on with the entries that it has when it leaves."""

    taken = Bucket.taken


class EvictingBucket(Bucket):
    """Rows that evict alike, at the same calls, each by a state of its own per layer and head.

    A call ends, and may evict, when the next one begins, so that until then it can be repeated.

    Attributes:
        schedule: numbers of entries now, those of a call that has not ended left out.
        keys: [rows, heads, room, head_dim], after the rotary embedding; the first ``schedule.held`` are entries.
        values: the same shape.
        positions: [rows, heads, room].
        next: [rows, 1, 1], the position of the next token.
        statistic: [rows, heads, query heads of each, room]; None if the evictor reads no weights.
        queries: [rows, heads, query heads of each, queries, head_dim]; None if the evictor needs none.
        order: [rows, heads, room]; None if the evictor is not ordered.
    """

    def __init__(self, rows: Sequence[EvictingKV], joining: Joining) -> None:
        """Copy the state of rows with equal layouts that join together."""
        kv, device = rows[0], rows[0].keys.device
        heads, entries, _ = kv.keys.shape
        super().__init__(joining.first_row, 0, heads)
        self._evictor, self._layer, self._selection = kv.evictor, kv.layer, kv.selection
        self._copies = kv.layer.queries.shape[0] // heads
        self.schedule = Schedule(kv.evictor, kv.budget, entries, kv.total)
        before, after = attended(kv.evictor, kv.budget, entries, kv.total, joining.question, joining.spare)
        shrinks = (call for call, (most, least) in enumerate(zip(before, after, strict=True)) if least < most)
        first = next(shrinks, len(before))
        room, later = max(before[: first + 1], default=entries), max(before[first + 1 :], default=0)
        # A prompt that is kept whole until the first eviction needs much more room than what follows.
        self._later_room = later if 0 < 2 * later <= room else None
        room = max(room, later)
        self._room_axes = {"keys": 2, "values": 2, "positions": 2, "statistic": 3, "order": 2}

        def with_room(tensors: Sequence[Tensor], axis: int) -> Tensor:
            shape = [len(tensors), *tensors[0].shape]
            shape[axis] = room
            made = tensors[0].new_zeros(shape)
            for row, tensor in zip(made, tensors, strict=True):
                row.narrow(axis - 1, 0, entries).copy_(tensor)
            return made

        self.keys = with_room([row.keys for row in rows], 2)
        self.values = with_room([row.values for row in rows], 2)
        self.positions = with_room([row.positions for row in rows], 2)
        self.next = torch.tensor([row.total for row in rows], device=device)[:, None, None]
        self.statistic = self.queries = self.order = None
        if kv.evictor.reads:
            nothing = kv.keys.new_zeros(heads * self._copies, entries, dtype=torch.float32)
            read = [nothing if row.statistic is None else row.statistic for row in rows]
            self.statistic = with_room([each.view(heads, self._copies, entries) for each in read], 3)
        if kv.queries is not None:
            held = torch.stack([row.queries for row in rows if row.queries is not None])
            self.queries = held.view(len(rows), heads, self._copies, *held.shape[2:])
        if kv.evictor.ordered:
            places = torch.arange(entries, device=device).expand(heads, -1)
            self.order = with_room([places if row.order is None else row.order for row in rows], 2)
        self._new = 0  # tokens of a call that has not ended
        self._question = False  # whether that is a question
        self._reading: Tensor | None = None
        self._asking: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of its rows and of its heads."""
        return self.keys.shape[0], self.keys.shape[1]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, question: int) -> Tensor:
        """See ``Bucket``."""
        if self._question and not question:
            self.end_call()
        rows, heads, dim = *self.shape, self.keys.shape[-1]
        start, tokens = self.schedule.held, keys.shape[2]
        stop = start + tokens
        self._new, self._question = tokens, question > 0
        self.keys[:, :, start:stop] = keys
        self.values[:, :, start:stop] = values
        self.positions[:, :, start:stop] = self.next + torch.arange(tokens, device=keys.device)
        split = queries.view(rows, heads, self._copies, tokens, dim)
        if self.queries is not None:
            self._asking = split[..., -self._evictor.queries :, :].clone()
        mask = None if tokens == 1 else queries.new_ones(tokens, stop, dtype=torch.bool).tril(start)
        seen, softmax = self.values[:, :, :stop], self.softmax(scaling)
        if not (self._evictor.reads or self._evictor.rerotated):
            return masked_attention(queries, self.keys[:, :, :stop], seen, softmax, mask)
        logits = self._products(queries.reshape(rows, heads, -1, dim), stop) * scaling
        logits = softmax.capped_(logits.reshape(rows, -1, tokens, stop))
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf)
        weights = softmax.weights(logits).reshape(rows, heads, -1, stop)
        if self._evictor.reads:
            self._reading = self._evictor.reading(weights.view(rows, heads, self._copies, tokens, stop))
        return (weights @ seen).reshape(queries.shape)

    def advance(self) -> None:
        """See ``Bucket``."""
        super().advance()
        self.end_call()

    def end_call(self) -> None:
        """Take what was read of a call into the state, and evict if it is time."""
        start, tokens = self.schedule.held, self._new
        stop = start + tokens
        self._new, self._question = 0, False
        self.next = self.next + tokens
        if self.statistic is not None and self._reading is not None:
            statistic = self.statistic[..., :stop]
            statistic[..., start:] = 0
            statistic.copy_(self._evictor.updated(statistic, self._reading))
        if self.queries is not None and self._asking is not None:
            self.queries = torch.cat([self.queries, self._asking], 3)[..., -self._evictor.queries :, :]
        if self.order is not None:
            self.order[:, :, start:stop] = torch.arange(start, stop, device=self.order.device)
        self._reading = self._asking = None
        target = self.schedule.call(tokens)
        if target is not None:
            self._evict(stop, target)

    def select(self, rows: Sequence[int]) -> None:
        """See ``Bucket``."""
        index = list(rows)
        for name in (*self._room_axes, "next", "queries", "_reading", "_asking"):
            tensor = getattr(self, name)
            if tensor is not None:
                setattr(self, name, tensor[index])

    def _products(self, grouped: Tensor, stop: int) -> Tensor:
        """Products of queries [rows, heads, n, head_dim] with all keys, at their distances within the cache."""
        turned = min(self._evictor.rerotated, stop)
        products = grouped @ self.keys[:, :, turned:stop].transpose(-1, -2)
        if not turned:
            return products
        positions = self.positions[:, :, :stop]
        if turned == stop:
            index = positions.argsort(-1).argsort(-1)
        else:  # the oldest ones, which are in their places and the same in all heads
            positions, index = positions[:, :1], torch.arange(turned, device=positions.device)
        # How many tokens that came later are gone.
        gone = positions[:, :, stop - 1 :] - positions[:, :, :turned] - (stop - 1 - index)
        keys = self._layer.moved(self.keys[:, :, :turned], gone)
        return torch.cat([grouped @ keys.transpose(-1, -2), products], -1)

    def _entries(self, stop: int) -> Entries:
        """The state as an evictor sees it."""
        parts = [self.keys, self.values, self.positions, None if self.statistic is None else self.statistic]
        keys, values, positions, statistic = (
            None if part is None else part.narrow(self._room_axes[name], 0, stop)
            for name, part in zip(("keys", "values", "positions", "statistic"), parts, strict=True)
        )
        assert keys is not None and values is not None and positions is not None
        if self.order is not None:
            order = self.order[:, :, :stop]
            keys, values, positions = (_gathered(part, order, 2) for part in (keys, values, positions))
            statistic = None if statistic is None else _gathered(statistic, order, 3)
        newest = self.next - 1
        return Entries(keys, values, positions, newest, statistic, self.queries, self._layer, self._selection)

    def _evict(self, stop: int, target: int) -> None:
        """Keep ``target`` of the first ``stop`` entries."""
        entries, count = self._entries(stop), stop - target
        if self.order is not None:
            order = self.order[:, :, :stop].gather(-1, self._evictor.kept(entries, target))
            dropped = torch.ones(order.shape[0], order.shape[1], stop, dtype=torch.bool, device=order.device)
            dropped = dropped.scatter(-1, order, False).nonzero()[:, -1].view(*order.shape[:2], count)
            self.order[:, :, :target] = order
        else:
            dropped = victims(self._evictor.scores(entries), entries.positions, count)
        if count:
            source, place = without(dropped, stop)
            for name, axis in self._room_axes.items():
                tensor = getattr(self, name)
                if tensor is not None and name != "order":
                    _scatter(tensor, place, _gathered(tensor, source, axis), axis)
            if self.order is not None:
                moved = torch.arange(stop, device=place.device).expand(*place.shape[:2], -1).contiguous()
                moved = moved.scatter(-1, source, place)
                self.order[:, :, :target] = moved.gather(-1, self.order[:, :, :target])
        if count:
            self._give_back()

    def _give_back(self) -> None:
        """After the first eviction, give back memory that is not needed any more."""
        room, self._later_room = self._later_room, None
        for name, axis in self._room_axes.items():
            tensor = getattr(self, name)
            if room is not None and tensor is not None:
                setattr(self, name, tensor.narrow(axis, 0, room).clone())


def _index(tensor: Tensor, index: Tensor, axis: int) -> Tensor:
    """An index [rows, heads, count] for an axis of a tensor [rows, heads, …]."""
    for place in range(2, tensor.ndim):
        if place != axis:
            index = index.unsqueeze(place)
    return index.expand(*(index.shape[place] if place == axis else size for place, size in enumerate(tensor.shape)))


def _gathered(tensor: Tensor, index: Tensor, axis: int) -> Tensor:
    """The elements of a tensor [rows, heads, …] at indices [rows, heads, count] of an axis."""
    return tensor.gather(axis, _index(tensor, index, axis))


def _scatter(tensor: Tensor, index: Tensor, source: Tensor, axis: int) -> None:
    """Write elements to indices [rows, heads, count] of an axis of a tensor [rows, heads, …]."""
    tensor.scatter_(axis, _index(tensor, index, axis), source)
