"""What plans keep of a prompt: entries of each layer as it comes, or of all layers once the last one has come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harness.compression.allocation import Allocation, Seen
from harness.compression.eviction import Eviction
from harness.compression.grid import Plan, Waiting, counted
from harness.compression.method import LayerState, Reranks, Scorer
from harness.compression.replay import Replays
from harness.compression.selection import Order, Selection, kept_indices, order_of, reranked, rescored
from harness.compression.storage import Entries, Storage
from harness.compression.wrappers import Rescorer
from harness.engine import tensor_parallel
from harness.engine.buckets import LayerKV
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
        differs: whether a packed entry of a layer comes back otherwise than it was; None as long as nothing is packed.
    """

    layers: list[LayerKV] = field(default_factory=list)
    entries: list[_Kept] = field(default_factory=list)
    indices: list[Tensor | None] = field(default_factory=list)
    ties: list[Tensor] = field(default_factory=list)
    eviction: Eviction | None = None
    differs: bool | None = None


class Keeping:
    """Selects the entries of every plan. Plans share the orders of equal scorers and what equal allocations saw.

    Attributes:
        growing: what each plan has kept so far.
    """

    def __init__(self, plans: Sequence[Plan], selection: Selection) -> None:
        """Start before the first layer.

        Args:
            plans: what to keep; equal plans are computed once.
            selection: how entries are selected.

        Raises:
            ConfigError: budgets depend on all heads, and another process has some of them.
        """
        if tensor_parallel.count() > 1 and any(plan.waiting or not _even(plan) for plan in plans):
            raise ConfigError("budgets per head or by scores need all heads in one process: model.tp_plan=null")
        if tensor_parallel.count() > 1 and any(plan.eviction for plan in plans):
            raise ConfigError("eviction while decoding needs all heads in one process: model.tp_plan=null")
        self.growing = {plan: Growing(eviction=plan.eviction) for plan in plans}
        self._selection = selection
        self._held: list[SeenLayer] = []
        self._late = [plan for plan in self.growing if plan.waiting and plan.waiting.allocation.sees == "layers"]

    def take(self, state: LayerState, scores: Mapping[Scorer, Tensor]) -> None:
        """Take a layer's entries for every plan that need not wait for further layers.

        Args:
            state: the state of the layer.
            scores: scores of some scorers, read from the attention's own weights.
        """
        layer = SeenLayer(state, self._selection, dict(scores))
        for plan, growing in self.growing.items():
            if plan.waiting is None:
                layer.keep(plan, plan.keep[state.index], growing)
            elif plan.waiting.allocation.sees == "layer":
                layer.keep(plan, layer.counts(plan.waiting, plan.scorer), growing)
            elif not isinstance(plan.scorer, Replays):
                layer.see(plan.waiting.allocation, plan.scorer)
        if self._late:
            self._held.append(layer.settled(self._late))

    @property
    def replaying(self) -> list[Scorer]:
        """The scorers that are waiting for their replays."""
        scorers = [plan.scorer for plan in self._late if plan.scorer is not None]
        return list(dict.fromkeys(scorer for scorer in scorers if isinstance(scorer, Replays)))

    @property
    def held_states(self) -> list[LayerState]:
        """The states of the layers that are held for plans that wait, without their queries."""
        return [layer.state for layer in self._held]

    def score(self, scorer: Scorer, scores: Sequence[Tensor]) -> None:
        """Take a scorer's scores of all layers, before ``end``."""
        for layer, known in zip(self._held, scores, strict=True):
            layer.scores[scorer] = known

    def end(self) -> None:
        """After the last layer, take the entries of the plans that had to see all layers, and check storages.

        Raises:
            SelectionFailed: a scorer, an allocation or a storage failed, or what a storage packed comes back as it was.
        """
        for plan in self._late:
            waiting, scorer = plan.waiting, plan.scorer
            assert waiting is not None
            with failing_as(waiting):
                seen = [layer.see(waiting.allocation, scorer) for layer in self._held]
                counts = counted(waiting.allocation, waiting.budget, waiting.shape, seen, _name(waiting.allocation))
                if plan.eviction is not None:
                    targets = waiting.allocation.targets(waiting.budget, waiting.shape, seen)
                    self.growing[plan].eviction = replace(plan.eviction, budgets=tuple(targets))
            for layer, kept in zip(self._held, counts, strict=True):
                layer.keep(plan, kept, self.growing[plan])
        self._held.clear()
        for plan, growing in self.growing.items():
            if growing.differs is False:
                with failing_as(plan.storage):
                    raise ConfigError(
                        f"storage={plan.storage.label} gives back all keys and values exactly, so nothing was "
                        "compressed: check the storage, or use storage=exact"
                    )


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
            return counted(waiting.allocation, waiting.budget, waiting.shape, [seen], _name(waiting.allocation))[0]

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
            self._store(LayerKV(state.keys, state.values), plan, growing)
            growing.indices.append(None)
            self._evicting(plan, growing)
            return
        window = min(scorer.window, self._tokens)
        order = self.order(scorer) if kept != window else None
        if order is not None and isinstance(scorer, Reranks):
            each = [kept] * self._heads if isinstance(kept, int) else list(kept)
            with failing_as(scorer):
                counts = torch.tensor(each, device=state.keys.device) - window
                order = reranked(scorer, order, state, counts)
        if isinstance(kept, int):
            indices = kept_indices(order, kept, window, self._tokens, self._heads, state.keys.device)
            if order is not None:
                growing.ties.append(order.tied_heads(kept - window))
            heads = torch.arange(self._heads, device=indices.device)[:, None] // self._copies
            keys, values = (_taken(states, heads, indices) for states in (state.keys, state.values))
            if plan.storage.merges:
                keys, values = map(torch.stack, zip(*self._merged(list(indices), plan.storage, growing), strict=True))
            if plan.rerotates:
                keys = state.moved(keys, torch.arange(kept, device=indices.device) - indices)
            self._store(LayerKV(keys, values), plan, growing)
            growing.indices.append(tensor_parallel.all_heads(indices.to(torch.int32)))
            self._evicting(plan, growing)
            return
        assert order is not None
        self._keep_ragged(order, kept, window, growing, plan)

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
        state, device = self.state, self.state.keys.device
        heads = []
        for head, count in enumerate(kept):
            mine = order.of(head)
            growing.ties.append(mine.tied_heads(count - window))
            heads.append(kept_indices(mine, count, window, self._tokens, 1, device)[0])
        source = torch.arange(self._heads, device=device) // self._copies
        source = torch.repeat_interleave(source, torch.tensor(kept, device=device))
        joined = torch.cat(heads)
        keys, values = (_taken(states, source, joined) for states in (state.keys, state.values))
        if plan.storage.merges:
            keys, values = map(torch.cat, zip(*self._merged(heads, plan.storage, growing), strict=True))
        entries = LayerKV(keys, values, kept)
        self._store(entries, plan, growing)
        growing.indices.append(torch.cat([torch.tensor(kept, device=device), joined]).to(torch.int32))


def _even(plan: Plan) -> bool:
    """Whether all heads of each layer keep equally many entries."""
    return all(isinstance(counts, int) for counts in plan.keep)


def _taken(states: Tensor, heads: Tensor, indices: Tensor) -> Tensor:
    """Keys or values of some tokens, [..., head_dim].

    Whole rows of memory are copied, in a third of the time that ``states[heads, indices]`` takes.

    Args:
        states: [kv_heads, tokens, head_dim].
        heads: heads of the tokens, [...] or of a shape that fits it.
        indices: indices of the tokens, [...].
    """
    kv_heads, tokens, dim = states.shape
    if states.is_contiguous():
        rows, at = states.view(-1, dim), indices + heads * tokens
    else:  # a view of projections, which lie token after token
        rows, at = states.transpose(0, 1).reshape(-1, dim), indices * kv_heads + heads
    return rows.index_select(0, at.flatten()).view(*at.shape, dim)


def _name(allocation: Allocation) -> str:
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
