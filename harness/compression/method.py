"""The Method and Ranking contracts, and what a method is shown of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from harness.compression.attention_weights import WeightReader
from harness.errors import BudgetError
from harness.kernels import Kernels


@dataclass(frozen=True)
class LayerState:
    """One prompt in one layer, as attention sees it: after the rotary embedding, keys not repeated.

    With ``model.tp_plan=auto`` the heads are those of one process: some of the kv heads, and all query heads of each.

    Attributes:
        queries: [heads, tokens, head_dim].
        keys: [kv_heads, tokens, head_dim].
        values: [kv_heads, tokens, head_dim].
        index: this layer, 0 first.
        count: number of layers.
        scaling: what the model multiplies query-key products by.
        score_dtype: dtype in which scores are computed (softmax itself is always float32).
        kernels: what computes where there is a choice; of no other concern to a method.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    index: int
    count: int
    scaling: float
    score_dtype: torch.dtype
    kernels: Kernels = "torch"


class Ranking(Protocol):
    """Which entries survive. A frozen dataclass: equal rankings are computed once per layer and shared.

    Attributes:
        window: trailing tokens that are not candidates; they are always kept.
    """

    @property
    def window(self) -> int: ...

    def raw(self, layer: LayerState) -> Tensor:
        """Scores [heads, candidates] in ``layer.score_dtype``, candidates = tokens - window, larger is better.

        A ranking that does not depend on the heads may return [1, candidates].
        """
        ...

    def finish(self, grouped: Tensor) -> Tensor:
        """What is done after the reduction to the cache's heads, [cache_heads, candidates] to the same: pooling, or nothing."""
        ...


class ScoreReader(WeightReader, Protocol):
    """A ranking's scores, made of the attention weights of a layer as they come by."""

    def resume(self, earlier: Self) -> None:
        """Go on from what a reader of the same ranking read of the prompt's beginning."""
        ...

    def scores(self) -> Tensor:
        """What ``Ranking.raw`` would have returned, after all weights have been read."""
        ...


@runtime_checkable
class ReadsWeights(Protocol):
    """What a ranking may do beside ``raw``: take its scores from the weights that the prefill's own attention has anyway."""

    def reader(self, layer: LayerState) -> ScoreReader | None:
        """A new reader of ordinary causal attention; None where the ranking needs other weights."""
        ...


class Method(Protocol):
    """A compression method: how many entries (``keep``) and which (``ranking``).

    Implementations are frozen dataclasses in ``methods/``; their fields are their YAML.

    Attributes:
        label: the YAML file's stem, shown in tables.
        uses_budget: False for a method that keeps everything whatever the budget; it then has one cell, not one per
            budget.
        ranking: which of the candidates survive; None for a method that never drops an entry.
    """

    @property
    def label(self) -> str: ...
    @property
    def uses_budget(self) -> bool: ...
    @property
    def ranking(self) -> Ranking | None: ...

    def keep(self, budget: int, prompt_tokens: int, layers: int) -> Sequence[int]:
        """Entries kept per head in each layer, the trailing window included; at most ``prompt_tokens``.

        Args:
            budget: entries per head and layer, 1 or more.
            prompt_tokens: length of the prompt, 1 or more.
            layers: number of layers, 1 or more.

        Raises:
            BudgetError: the budget leaves nothing beside the entries that are always kept.
        """
        ...


def require_above(budget: int, knob: str, value: int, label: str) -> None:
    """Refuse a budget that is not above a knob of the method.

    Raises:
        BudgetError: with the budget, the knob, and both remedies.
    """
    if budget <= value:
        raise BudgetError(
            f"budget={budget} is not above {knob}={value} (method={label}): use budget>={value + 1} or a smaller method.{label}.{knob}"
        )
