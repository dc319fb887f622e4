"""One layer as plans see it: its orders and what allocations and storages look at, computed once for all plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harness.compression.allocation import Allocation, Seen
from harness.compression.eviction import Eviction
from harness.compression.grid import Plan, Waiting, counted
from harness.compression.method import LayerState, Scorer
from harness.compression.selection import Order, Selection, kept_indices, order_of, reranked, rescored
from harness.compression.storage import Entries, Storage
from harness.compression.wrappers import Rescorer
from harness.engine import tensor_parallel
from harness.engine.buckets import LayerKV
from harness.engine.chosen import ChosenKV
from harness.engine.evicting import evicting
from harness.engine.failures import SelectionFailed, is_of_the_prompt
from harness.engine.stored import stored
from harness.engine.stored_evicting import stored_evicting
from harness.engine.time_limit import TimeLimit
from harness.errors import ConfigError

_Kept = int | tuple[int, ...]


@dataclass
class Growing:
    """What a plan has kept of the layers so far.

    Attributes:
        layers: kept entries, one ``LayerKV`` per layer.
        entries: number of kept entries per layer: one number for all heads or one for each.
        indices: indices of kept entries, of all heads, one tensor per layer: [heads, entries], or where heads keep
            different numbers, these numbers and then the indices head by head; None for a layer that keeps everything.
        ties: numbers of heads with ties, as 0-d tensors, for layers in which candidates were scored.
        eviction: how rows of it go on while decoding; None if they drop nothing.
        chosen: whether its entries are a choice from the prompt's until rows of it decode.
        prompt: number of the prompt whose entries these rows share then; None if they have entries of their own.
        differs: whether a packed entry of a layer comes back otherwise than it was; None as long as nothing is packed.
    """

    layers: list[LayerKV] = field(default_factory=list)
    entries: list[_Kept] = field(default_factory=list)
    indices: list[Tensor | None] = field(default_factory=list)
    ties: list[Tensor] = field(default_factory=list)
    eviction: Eviction | None = None
    chosen: bool = False
    prompt: int | None = None
    differs: bool | None = None


class SeenLayer:
    """One layer: its state, and what plans share of it.

    Attributes:
        state: the state of the layer.
        scores: scores of some scorers that are known without computing them.
    """

    def __init__(self, state: LayerState, selection: Selection, scores: dict[Scorer, Tensor]) -> None:
        """Take the state of the layer, and the scores that are known."""
        self.state, self.scores, self._selection = state, scores, selection
        self._orders: dict[Scorer, Order] = {}
        self._seen: dict[tuple[Allocation, Scorer], Seen] = {}
        self._looked: dict[Storage, Tensor | None] = {}
        kv_heads, self._tokens, _ = state.keys.shape
        self._copies = state.queries.shape[0] // kv_heads if selection.granularity == "query_head" else 1
        self._heads = kv_heads * self._copies

    def settled(self, late: Sequence[Plan]) -> SeenLayer:
        """The layer with what is still needed of it: keys, values, and the orders of the plans that wait."""
        for plan in late:
            self.looked(plan.storage)
        heads, _, dim = self.state.queries.shape
        # A new tensor, as a view of no tokens would hold the memory of all.
        self.state = replace(self.state, queries=self.state.queries.new_empty(heads, 0, dim), log_sums=None)
        scorers, storages = {plan.scorer for plan in late}, {plan.storage for plan in late}
        self._orders = {scorer: order for scorer, order in self._orders.items() if scorer in scorers}
        self._looked = {storage: seen for storage, seen in self._looked.items() if storage in storages}
        self.scores = {}
        return self

    def order(self, scorer: Scorer) -> Order:
        """The order of the candidates by a scorer, computed once."""
        if scorer not in self._orders:
            with failing_as(scorer):
                self._orders[scorer] = (
                    rescored(scorer, self.order(scorer.base), self.state)
                    if isinstance(scorer, Rescorer)
                    else order_of(scorer, self.state, self._selection, self.scores.get(scorer))
                )
        return self._orders[scorer]

    def see(self, allocation: Allocation, scorer: Scorer | None) -> Seen:
        """What an allocation sees of this layer, computed once."""
        assert scorer is not None  # without one there is nothing to wait for
        if (allocation, scorer) not in self._seen:
            order = self.order(scorer)
            with failing_as(scorer):
                summary = allocation.summary(self.state)
            self._seen[allocation, scorer] = Seen(self.state.index, order.scores, summary)
        return self._seen[allocation, scorer]

    def looked(self, storage: Storage) -> Tensor | None:
        """What a storage sees of this layer, computed once."""
        if storage not in self._looked:
            self._looked[storage] = storage.look(self.state)
        return self._looked[storage]

    def counts(self, waiting: Waiting, scorer: Scorer | None) -> _Kept:
        """How many entries are kept by an allocation that sees this layer alone."""
        seen = self.see(waiting.allocation, scorer)
        with failing_as(waiting):
            return counted(waiting.allocation, waiting.budget, waiting.shape, [seen], name_of(waiting.allocation))[0]

    def keep(self, plan: Plan, kept: _Kept, growing: Growing) -> None:
        """Add what a plan keeps of this layer.

        Args:
            plan: the plan.
            kept: number of entries to keep: one for all heads of the cache or one for each.
            growing: where the entries are added.
        """
        state, scorer, window = self.state, plan.scorer, 0
        growing.entries.append(kept)
        if scorer is None or kept == self._tokens:
            self._store(self._chosen(None, growing), plan, growing)
            growing.indices.append(None)
            self._evicting(plan, growing)
            return
        window = min(scorer.window, self._tokens)
        order = self.order(scorer) if kept != window else None
        if order is not None and plan.reranking is not None:
            each = [kept] * self._heads if isinstance(kept, int) else list(kept)
            with failing_as(scorer):
                counts = torch.tensor(each, device=state.keys.device) - window
                order = reranked(plan.reranking, order, state, counts)
        if isinstance(kept, int):
            indices = kept_indices(order, kept, window, self._tokens, self._heads, state.keys.device)
            if order is not None:
                growing.ties.append(order.tied_heads(kept - window))
            entries = self._chosen(indices, growing)
            if plan.storage.merges:
                keys, values = zip(*self._merged(list(indices), plan.storage, growing), strict=True)
                entries = LayerKV(torch.stack(keys), torch.stack(values))
            if plan.rerotates:
                moves = torch.arange(kept, device=indices.device) - indices
                entries = replace(entries, keys=state.moved(entries.keys, moves))
            self._store(entries, plan, growing)
            growing.indices.append(tensor_parallel.all_heads(indices.to(torch.int32)))
            self._evicting(plan, growing)
            return
        assert order is not None
        self._keep_ragged(order, kept, window, growing, plan)

    def _chosen(self, indices: Tensor | None, growing: Growing, counts: tuple[int, ...] | None = None) -> LayerKV:
        """Entries of this layer; see ``ChosenKV``."""
        state, of = self.state, None if indices is None else indices.to(torch.int32)
        copies = state.queries.shape[0] // state.keys.shape[0]
        chosen = ChosenKV(state.keys, state.values, counts, of, growing.prompt, copies, state.kernels)
        return chosen if growing.chosen else chosen.gathered()

    def _evicting(self, plan: Plan, growing: Growing) -> None:
        """Add to the entries of this layer what their eviction goes on from, if the plan evicts while decoding."""
        eviction, scorer, indices, state = growing.eviction, plan.scorer, growing.indices[-1], self.state
        if eviction is None:
            return
        raw = self._raw(scorer) if scorer is not None and eviction.evictor.carries else None
        # A layer that waited for all others and then kept everything is as it was.
        ordered = eviction.evictor.ordered and (indices is not None or plan.waiting is None)
        order = self.order(scorer) if scorer is not None and ordered else None
        if indices is None:  # evicted per head of the cache, which a whole prompt is not stored for
            indices = torch.arange(self._tokens, device=state.keys.device).expand(self._heads, -1)
        kept = growing.layers[-1]
        entries = evicting(kept, eviction, indices.long(), state, self._selection, raw, order)
        growing.layers[-1] = entries
        if plan.storage.packs:
            with failing_as(plan.storage):
                growing.layers[-1] = layer = stored_evicting(entries, plan.storage)
                growing.differs = growing.differs or layer.differs(entries)

    def _raw(self, scorer: Scorer) -> Tensor:
        """The scores of a scorer as they are before heads are grouped, computed once."""
        if scorer not in self.scores:
            with failing_as(scorer):
                self.scores[scorer] = scorer.score(self.state)
        return self.scores[scorer]

    def _store(self, entries: LayerKV, plan: Plan, growing: Growing) -> None:
        """Add entries in the form of a plan's storage; if the plan evicts while decoding, ``_evicting`` packs them."""
        storage = plan.storage
        if not storage.packs or plan.eviction is not None:
            growing.layers.append(entries)
            return
        with failing_as(storage):
            layer = stored(entries, storage, self.looked(storage))
            growing.layers.append(layer)
            growing.differs = growing.differs or layer.differs(entries)

    def _merged(self, kept: Sequence[Tensor], storage: Storage, growing: Growing) -> list[Entries]:
        """Keys and values of each head, with what it dropped merged into them.

        Args:
            kept: per head of the cache, the indices of its kept entries.
            storage: merges.
            growing: told whether anything changed.
        """
        found = []
        for head, indices in enumerate(kept):
            keys, values = self.state.keys[head // self._copies], self.state.values[head // self._copies]
            others = torch.ones(self._tokens, dtype=torch.bool, device=keys.device).index_fill(0, indices, False)
            mine = keys[indices], values[indices]
            with failing_as(storage):
                found.append(storage.merged(mine, (keys[others], values[others])) if others.any() else mine)
            if not growing.differs and others.any():
                growing.differs = not torch.equal(found[-1][0], mine[0])
        return found

    def _keep_ragged(self, order: Order, kept: tuple[int, ...], window: int, growing: Growing, plan: Plan) -> None:
        """Add entries of heads that keep different numbers."""
        device, heads = self.state.keys.device, []
        for head, count in enumerate(kept):
            mine = order.of(head)
            growing.ties.append(mine.tied_heads(count - window))
            heads.append(kept_indices(mine, count, window, self._tokens, 1, device)[0])
        joined = torch.cat(heads)
        entries = self._chosen(joined, growing, kept)
        if plan.storage.merges:
            keys, values = zip(*self._merged(heads, plan.storage, growing), strict=True)
            entries = LayerKV(torch.cat(keys), torch.cat(values), kept)
        self._store(entries, plan, growing)
        growing.indices.append(torch.cat([torch.tensor(kept, device=device), joined]).to(torch.int32))


def name_of(allocation: Allocation) -> str:
    """The name of an allocation, for errors."""
    return type(allocation).__name__


@contextmanager
def failing_as(at: Scorer | Waiting | Storage) -> Iterator[None]:
    """Raise what concerns the prompt alone as a failure of a scorer, allocation or storage, which ends its variants."""
    try:
        yield
    except TimeLimit as expired:
        expired.at = at
        raise
    except SelectionFailed:
        raise
    except Exception as error:
        if isinstance(error, ConfigError) or is_of_the_prompt(error):
            raise SelectionFailed(at) from error
        raise
