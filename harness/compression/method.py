"""The contracts of a method: its scorer, its allocation, and the state of a layer that they see."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from harness.compression.allocation import Allocation, Shape, Uniform
from harness.compression.attention_weights import Softmax, WeightReader
from harness.compression.eviction import Evictor
from harness.errors import BudgetError
from harness.kernels import Kernels
from harness.values import check

_BLOCK_TOKENS = 4096
"""Tokens whose projected values are in memory at once."""


class Parts(Protocol):
    """Parts of a model that some scorers need besides the queries, keys and values of a layer.

    Layers are those that are compressed, numbered as in ``LayerState.index``.
    """

    def output_projection(self, layer: int) -> Tensor:
        """The weight [heads, head_dim, hidden] by which a layer's attention output is multiplied, head by head.

        Raises:
            ModelError: the model's layers have no such weight.
        """
        ...

    def rotary(self, layer: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines c and sines s [positions, rotated dimensions] of a layer's rotary embedding, times its scale.

        It turns (a, b) to (a c - b s, b c + a s), a being the first half of a head's rotated dimensions. In a layer
        without positions all cosines are 1 and all sines are 0.

        Raises:
            ModelError: the model has no such embedding.
        """
        ...


@dataclass(frozen=True)
class LayerState:
    """One prompt in one layer, as attention sees it: after the rotary embedding, with keys not repeated.

    Layers that attend to a window of tokens alone are not compressed: they have no state, and are not counted.

    With ``model.tp_plan=auto`` the heads are those of one process: some of the kv heads, each with all of its query
    heads.

    Attributes:
        queries: [heads, tokens, head_dim].
        keys: [kv_heads, tokens, head_dim].
        values: [kv_heads, tokens, head_dim].
        index: index of this layer among those that attend to all earlier tokens, 0 first.
        count: number of these layers.
        scaling: factor by which the model multiplies query-key products.
        score_dtype: dtype in which scores are computed; the softmax itself is always float32.
        kernels: which kernels compute scores if there is a choice. A method need not look at it.
        parts: see ``Parts``; None where no model is at hand.
        softcap: see ``Softmax``.
        sinks: see ``Softmax``.
        log_sums: natural logarithm of each query's sum of exponentials over the keys that it sees, [heads, tokens] in
            float32, where the prefill's attention gives it and its queries see all earlier keys; None elsewhere.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    index: int
    count: int
    scaling: float
    score_dtype: torch.dtype
    kernels: Kernels = "torch"
    parts: Parts | None = field(default=None, compare=False)
    softcap: float | None = None
    sinks: Tensor | None = None
    log_sums: Tensor | None = field(default=None, compare=False, repr=False)
    _derived: dict[Hashable, Tensor] = field(default_factory=dict, init=False, compare=False, repr=False)

    def once(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """What a scorer derives from the layer alone, computed once for all budgets.

        Args:
            key: what it is, with all knobs that it depends on.
            compute: computes it; the result must not be changed in place.
        """
        if key not in self._derived:
            self._derived[key] = compute()
        return self._derived[key]

    @property
    def softmax(self) -> Softmax:
        """How the layer turns query-key products into weights."""
        return Softmax(self.scaling, self.softcap, self.sinks)

    @property
    def output_projection(self) -> Tensor:
        """The layer's output projection, [heads, head_dim, hidden]; see ``Parts``."""
        assert self.parts is not None
        return self.parts.output_projection(self.index)

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [positions, head_dim] of the layer's rotary embedding; see ``Parts``."""
        assert self.parts is not None
        return self.parts.rotary(self.index, positions)

    @cached_property
    def projected_norms(self) -> Tensor:
        """L1 norms [heads, tokens] of what each token's value becomes in each query head's output projection, float32.

        They are computed once for all methods and budgets, by blocks of tokens.
        """
        weights = self.output_projection.float()
        copies = len(weights) // len(self.values)
        return torch.stack(
            [
                torch.cat([(block @ weight).abs_().sum(-1) for block in values.float().split(_BLOCK_TOKENS)])
                for weight, values in zip(weights, self.values.repeat_interleave(copies, dim=0), strict=True)
            ]
        )

    def unrotated(self, states: Tensor) -> Tensor:
        """Queries or keys [..., tokens, head_dim] of the whole prompt as they were before the rotary embedding."""
        cosines, sines = self.rotary(torch.arange(states.shape[-2], device=states.device))
        scale = cosines**2 + sines**2
        return rotated(states, cosines / scale, -sines / scale)

    @property
    def emptied(self) -> LayerState:
        """The layer without its tokens, whose memory it does not hold."""
        # New tensors, as views of no tokens would hold the memory of all.
        states = (self.queries, self.keys, self.values)
        queries, keys, values = (state.new_empty(state.shape[0], 0, state.shape[2]) for state in states)
        return replace(self, queries=queries, keys=keys, values=values)

    def moved(self, states: Tensor, steps: Tensor) -> Tensor:
        """Queries or keys turned to other positions.

        Args:
            states: [..., tokens, head_dim], after the rotary embedding.
            steps: new position minus old one, [..., tokens], of as many dimensions.
        """
        cosines, sines = self.rotary(steps.flatten())
        scale = (cosines**2 + sines**2).sqrt()
        cosines, sines = (angles.view(*steps.shape, -1) for angles in (cosines / scale, sines / scale))
        return rotated(states, cosines, sines).to(states.dtype)


def rotated(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """States [..., tokens, head_dim] turned by angles with these cosines and sines [tokens, head_dim].

    Dimensions beyond those of the angles stay as they are.
    """
    size = cosines.shape[-1]
    turned, rest = states[..., :size], states[..., size:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cosines + torch.cat([-second, first], dim=-1) * sines
    return torch.cat([turned, rest], dim=-1)


class Scorer:
    """Which entries survive.

    Subclasses are frozen dataclasses, checked against the types of their fields; equal scorers are computed once per
    layer and shared. They have a ``window``: the number of trailing tokens that are always kept and are no candidates,
    0 or more; a field, or ``window: ClassVar[int] = 0``.

    Raises:
        ConfigError: a knob does not fit its type or range.
    """

    if TYPE_CHECKING:

        @property
        def window(self) -> int:
            """See the class."""
            ...

    def __post_init__(self) -> None:
        check(self)

    @property
    def last_queries(self) -> int | None:
        """Number of last queries that its scores need, 0 or more; None if they need queries of all tokens.

        Scorers that need no more than the last ones can score entries while decoding.
        """
        return None

    def score(self, layer: LayerState) -> Tensor:
        """Score the candidates, which are all tokens before the window; larger is better.

        Returns:
            [heads, tokens - window]; [kv_heads, tokens - window] if query heads of one kv head score alike;
            [1, tokens - window] if all heads do.
        """
        raise NotImplementedError

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Finish scores after their reduction to the cache's heads, for example by pooling.

        Args:
            scores: [cache_heads, candidates].
            layer: the state of the layer.

        Returns:
            [cache_heads, candidates]; the scores as they are unless a scorer says otherwise.
        """
        return scores


class Accumulator(WeightReader, Protocol):
    """Computes a scorer's scores from the attention weights of a layer, block by block."""

    def resume(self, earlier: Self) -> None:
        """Continue from an accumulator of the same scorer that read the beginning of the prompt."""
        ...

    def scores(self) -> Tensor:
        """The scores that ``Scorer.score`` would return; call it when all weights have been read."""
        ...


@runtime_checkable
class Accumulates(Protocol):
    """A scorer that can also take its scores from the attention weights that the prefill computes anyway."""

    def accumulator(self, layer: LayerState) -> Accumulator | None:
        """A new reader of ordinary causal attention weights; None if the scorer needs other weights."""
        ...


@runtime_checkable
class Reranks(Protocol):
    """A scorer whose scores depend on how many entries are kept."""

    def rerank(self, scores: Tensor, layer: LayerState, counts: Tensor) -> Tensor:
        """Score the candidates again.

        Args:
            scores: finished scores [cache_heads, candidates].
            layer: the state of the layer. Its queries are gone where the allocation sees all layers.
            counts: number of candidates that each head keeps, [cache_heads].

        Returns:
            [cache_heads, candidates]; each head keeps its best ones.
        """
        ...


@dataclass(frozen=True)
class Method:
    """A compression method: which entries survive (``scorer``), and how many (``allocation``).

    Implementations are frozen dataclasses in ``methods/``; their fields are their YAML, checked against their types.

    Attributes:
        label: the name in tables: the stem of the YAML file.

    Raises:
        ConfigError: a knob does not fit its type or range.
    """

    label: str

    def __post_init__(self) -> None:
        check(self)

    @property
    def uses_budget(self) -> bool:
        """False for a method that keeps the same whatever the budget, and so has one cell, not one per budget.

        The cell is called ``full``, or ``own`` if the method drops entries.
        """
        return True

    @property
    def scorer(self) -> Scorer | None:
        """Which candidates survive; None for a method that never drops an entry."""
        raise NotImplementedError

    def scorer_for(self, shape: Shape) -> Scorer | None:
        """The scorer for a prompt and a budget: ``scorer``, unless its scores depend on the budget.

        Args:
            shape: the prompt, the model, and the budget as a share of the prompt.
        """
        return self.scorer

    @property
    def rerotates(self) -> bool:
        """Whether kept keys are turned to the positions 0, 1, …, and what follows stands right behind them.

        It needs equally many entries in every layer and head, known before any weight is read.
        """
        return False

    @property
    def allocation(self) -> Allocation:
        """How many entries each layer and head keeps; the budget unless a method says otherwise."""
        return Uniform()

    @property
    def evictor(self) -> Evictor | None:
        """What is dropped while decoding; None for a method that drops nothing after the prompt."""
        return None

    def check_budget(self, budget: int) -> None:
        """Refuse a number of entries that leaves nothing to choose.

        Raises:
            BudgetError: the budget is not above the scorer's window.
        """
        if self.scorer is not None and self.scorer.window:
            require_above(budget, "window", self.scorer.window, self.label)


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
