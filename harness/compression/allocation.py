"""Allocations: how many entries each layer and head keeps, from the budget alone or from what the layers showed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from torch import Tensor

if TYPE_CHECKING:
    from harness.compression.method import LayerState

Counts: TypeAlias = int | Sequence[int]
"""Entries of one layer: one number for all heads of the cache, or one for each."""


@dataclass(frozen=True)
class Shape:
    """What is known of a prompt before any weight is read.

    Layers that attend to a window of tokens alone keep what the window needs, whatever the method. They are not among
    the layers here, and do not count for the budget.

    Attributes:
        tokens: length of the prompt, 1 or more.
        layers: number of layers that attend to all earlier tokens, 1 or more.
        heads: number of query heads.
        kv_heads: number of kv heads.
        cache_heads: number of heads that a compressed cache stores: the query heads with ``granularity=query_head``,
            else the kv heads.
        window: trailing tokens that the scorer always keeps; at most ``tokens``.
        share: the budget as a share of the prompt: as written, or entries / tokens.
    """

    tokens: int
    layers: int
    heads: int = 1
    kv_heads: int = 1
    cache_heads: int = 1
    window: int = 0
    share: Fraction = Fraction(1)


@dataclass(frozen=True)
class Seen:
    """What an allocation saw of one layer.

    Attributes:
        layer: index of the layer among those that attend to all earlier tokens, 0 first.
        scores: the scorer's finished scores [cache_heads, candidates].
        summary: what ``Allocation.summary`` returned.
    """

    layer: int
    scores: Tensor
    summary: Any = None


@dataclass(frozen=True)
class Allocation:
    """How many entries each layer and head keeps. Equal allocations are computed once and shared.

    Subclasses are frozen dataclasses. They say in ``sees`` what they must have seen:

    - ``shape``: nothing of the prompt but its length. ``counts`` is called before any weight is read, with no layer.
    - ``layer``: the scores of the layer in question. ``counts`` is called once per layer, with that layer.
    - ``layers``: the scores of all layers. ``counts`` is called once, with all of them; until then the full cache of
      the prompt is held, uncopied.
    """

    @property
    def sees(self) -> Literal["shape", "layer", "layers"]:
        """What ``counts`` is called with."""
        return "shape"

    def summary(self, layer: LayerState) -> Any:
        """What to remember of a layer besides its scores; for allocations that see layers."""
        return None

    def total(self, budget: int, shape: Shape) -> int:
        """The most entries that all layers and heads keep together, from which memory is planned."""
        return min(budget, shape.tokens) * shape.layers * shape.cache_heads

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Counts]:
        """Entries to keep, the trailing window included.

        Args:
            budget: entries per head and layer on average, 1 or more.
            shape: the prompt and the model.
            seen: nothing, one layer or all layers, in order, as ``sees`` says.

        Returns:
            For each layer, or for the one layer that was seen: a number for all heads or a number for each head of the
            cache, 1 or more and at least the window. What is above the prompt's tokens keeps the whole prompt.

        Raises:
            BudgetError: the budget leaves a head without an entry.
        """
        raise NotImplementedError

    def targets(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[int]:
        """Entries per head of each layer after an eviction while decoding, for allocations that see all layers.

        Args:
            budget: see ``counts``.
            shape: see ``counts``.
            seen: see ``counts``.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Uniform(Allocation):
    """The budget in every layer and head."""

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Counts]:
        """The budget in every layer, or the whole prompt if that is shorter."""
        return [min(budget, shape.tokens)] * shape.layers


@dataclass(frozen=True)
class Everything(Allocation):
    """The whole prompt in every layer and head, whatever the budget."""

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Counts]:
        """All tokens of the prompt."""
        return [shape.tokens] * shape.layers
