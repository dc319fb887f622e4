"""The Method and Ranking contracts, and the state of a layer that a ranking sees."""

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
    """One prompt in one layer, as attention sees it: after the rotary embedding, with keys not repeated.

    With ``model.tp_plan=auto`` the heads are those of one process: some of the kv heads, each with all of its query
    heads.

    Attributes:
        queries: [heads, tokens, head_dim].
        keys: [kv_heads, tokens, head_dim].
        values: [kv_heads, tokens, head_dim].
        index: index of this layer, 0 first.
        count: number of layers.
        scaling: factor by which the model multiplies query-key products.
        score_dtype: dtype in which scores are computed; the softmax itself is always float32.
        kernels: which kernels compute scores if there is a choice. A method need not look at it.
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
    """Which entries survive. A frozen dataclass: equal rankings are computed once per layer and shared."""

    @property
    def window(self) -> int:
        """Number of trailing tokens that are always kept and are no candidates."""
        ...

    def raw(self, layer: LayerState) -> Tensor:
        """Score the candidates, which are all tokens before the window; larger is better.

        Returns:
            [heads, tokens - window] in ``layer.score_dtype``; [1, tokens - window] if all heads score alike.
        """
        ...

    def finish(self, grouped: Tensor) -> Tensor:
        """Finish scores after their reduction to the cache's heads, for example by pooling.

        Args:
            grouped: [cache_heads, candidates].

        Returns:
            [cache_heads, candidates].
        """
        ...


class ScoreReader(WeightReader, Protocol):
    """Computes a ranking's scores from the attention weights of a layer, block by block."""

    def resume(self, earlier: Self) -> None:
        """Continue from a reader of the same ranking that read the beginning of the prompt."""
        ...

    def scores(self) -> Tensor:
        """The scores that ``Ranking.raw`` would return; call it when all weights have been read."""
        ...


@runtime_checkable
class ReadsWeights(Protocol):
    """A ranking that can also take its scores from the attention weights that the prefill computes anyway."""

    def reader(self, layer: LayerState) -> ScoreReader | None:
        """A new reader of ordinary causal attention weights; None if the ranking needs other weights."""
        ...


class Method(Protocol):
    """A compression method: how many entries are kept (``keep``), and which (``ranking``).

    Implementations are frozen dataclasses in ``methods/``; their fields are their YAML.
    """

    @property
    def label(self) -> str:
        """The name in tables: the stem of the YAML file."""
        ...

    @property
    def uses_budget(self) -> bool:
        """False for a method that keeps everything whatever the budget, and so has one cell, not one per budget."""
        ...

    @property
    def ranking(self) -> Ranking | None:
        """Which candidates survive; None for a method that never drops an entry."""
        ...

    def keep(self, budget: int, prompt_tokens: int, layers: int) -> Sequence[int]:
        """How many entries each layer keeps per head.

        Args:
            budget: entries per head and layer, 1 or more.
            prompt_tokens: length of the prompt, 1 or more.
            layers: number of layers, 1 or more.

        Returns:
            One number per layer, the trailing window included; at most ``prompt_tokens``.

        Raises:
            BudgetError: the budget leaves no room for any entry but those that are always kept.
        """
        ...


def require_above(budget: int, knob: str, value: int, label: str) -> None:
    """Refuse a budget that is not above a knob of the method.

    Args:
        budget: entries per head and layer.
        knob: name of the knob.
        value: value of the knob.
        label: the method's label.

    Raises:
        BudgetError: with the budget, the knob, and both remedies.
    """
    if budget <= value:
        raise BudgetError(
            f"budget={budget} is not above {knob}={value} (method={label}): use budget>={value + 1} or a smaller {knob}"
        )
