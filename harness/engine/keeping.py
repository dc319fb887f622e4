"""What plans keep of a prompt: entries of each layer as it comes, or of all layers once the last one has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

from torch import Tensor

from harness.compression.grid import Plan, counted
from harness.compression.method import LayerState, Scorer
from harness.compression.replay import Replays
from harness.compression.selection import Selection
from harness.engine import tensor_parallel
from harness.engine.prompt_sharing import choosing
from harness.engine.seen_layer import Growing, SeenLayer, failing_as, name_of
from harness.errors import ConfigError

_PROMPTS = count()  # these numbers grow, so that rows lie in the order in which their prompts were prefilled


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
        self._begun = False
        self._held: list[SeenLayer] = []
        self._late = [plan for plan in self.growing if plan.waiting and plan.waiting.allocation.sees == "layers"]

    def take(self, state: LayerState, scores: Mapping[Scorer, Tensor]) -> None:
        """Take a layer's entries for every plan that need not wait for further layers.

        Args:
            state: the state of the layer.
            scores: scores of some scorers, read from the attention's own weights.
        """
        if not self._begun:
            self._begun, number = True, next(_PROMPTS)
            for plan, shares in choosing(self.growing, state, self._selection).items():
                self.growing[plan].chosen, self.growing[plan].prompt = True, number if shares else None
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
                counts = counted(waiting.allocation, waiting.budget, waiting.shape, seen, name_of(waiting.allocation))
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


def _even(plan: Plan) -> bool:
    """Whether all heads of each layer keep equally many entries."""
    return all(isinstance(counts, int) for counts in plan.keep)
