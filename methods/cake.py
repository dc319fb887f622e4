"""CAKE: layers share the entries by how widely and how changeably their last queries attend, seen layer after layer.

Claim: layers whose attention spreads over many tokens, or shifts from query to query, need more entries than others
    (Qin et al., arXiv:2503.12491).
Source: antgroup/cakekv at c4675ce.
Differs:
    - ``method=cake`` is the part that runs at the end of the prefill: nothing is cut again while decoding, and a prompt
      of up to budget + window tokens is kept whole. ``method=cake_decode`` goes on as that code does.
    - the thinning of earlier layers as later ones come is counted and not done: the full cache of the prompt is held to
      its last layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.attention_weights import attention_rows
from harness.compression.eviction import Entries, Every, Evictor
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.scorers import Kernel, pool
from harness.values import Refusal

Rows = Annotated[
    int,
    Meta(ge=2),
    Refusal("is not a whole number of 2 or more, of which a variance can be", "the authors use window=32"),
]
Gamma = Annotated[float, Meta(ge=0), Refusal("is not a number of 0 or more", "the authors use gamma=200")]
Tau = Annotated[float, Meta(gt=0), Refusal("is not a number above 0", "the authors use 1 unless a model has its own")]


@dataclass(frozen=True)
class MeanAndVariance(Scorer):
    """Attention from the last ``window`` tokens: its mean and, times ``gamma``, its variance; pooled over neighbours.

    Attributes:
        window: number of trailing queries that vote, 2 or more; these tokens are always kept.
        gamma: weight of the variance.
        kernel: width of the average pooling.

    Raises:
        ConfigError: a knob out of range.
    """

    window: Rows
    gamma: Gamma
    kernel: Kernel

    def score(self, layer: LayerState) -> Tensor:
        """Mean over the window's queries plus ``gamma`` times the unbiased variance over them, pooled."""
        attention = last_rows(layer, self.window)
        return pool(attention.mean(1) + self.gamma * attention.var(1), self.kernel, "avgpool")


@dataclass(frozen=True)
class Cake(Allocation):
    """Shares by entropy and variance of each layer's attention.

    Attributes:
        window: see ``CAKE``.
        tau1: see ``CAKE``.
        tau2: see ``CAKE``.
        cascading: see ``CAKE``.
    """

    window: Rows
    tau1: Tau
    tau2: Tau
    cascading: bool

    @property
    def sees(self) -> Literal["layers"]:
        """All layers."""
        return "layers"

    def summary(self, layer: LayerState) -> float:
        """The layer's preference: entropy to the power 1 / tau1, times variance to the power 1 / tau2."""
        attention = last_rows(layer, self.window).float()
        entropy = -(attention * (attention + 1e-10).log()).sum()
        variance = attention.var(1).sum()
        return float(entropy ** (1 / self.tau1) * variance ** (1 / self.tau2))

    def total(self, budget: int, shape: Shape) -> int:
        """The budget in every layer; the whole prompt if it is at most a window longer."""
        entries = shape.tokens if shape.tokens <= budget + shape.window else budget
        return entries * shape.layers * shape.cache_heads

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[int]:
        """Shares of all layers' entries; in a cascade a layer never has more than it had after an earlier layer."""
        if shape.tokens <= budget + shape.window:
            return [shape.tokens] * shape.layers
        held = [shape.tokens - shape.window] * shape.layers
        for numbers in self._rounds(budget, shape, seen):
            held = [*map(min, held, numbers), *held[len(numbers) :]]
        return [entries + shape.window for entries in held]

    def targets(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[int]:
        """The shares of all layers, even of those that lost more as later layers came; the budget of whole prompts."""
        if shape.tokens <= budget + shape.window:
            return [budget] * shape.layers
        *_, last = self._rounds(budget, shape, seen)
        return [entries + shape.window for entries in last]

    def _rounds(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Iterator[list[int]]:
        """Entries beside the window of the layers so far, whenever they are shared out anew."""
        candidates, total = shape.tokens - shape.window, (budget - shape.window) * shape.layers
        preferences = [layer.summary for layer in seen]
        for layers, together in enumerate(accumulate(preferences), start=1):
            if self.cascading or layers == shape.layers:
                # Without any preference, as where all attention is on the window, layers share evenly.
                shares = [(one / together if together else 1 / layers) * total for one in preferences[:layers]]
                yield adjusted(shares, total, candidates)


@dataclass(frozen=True)
class CAKE(Method):
    """Keep the tokens that the last queries attend to most and most changeably, more of them in layers that spread.

    Attributes:
        window: trailing queries that vote; their tokens are always kept.
        gamma: weight of the variance of attention beside its mean.
        kernel: width of the average pooling over neighbouring positions.
        tau1: the entropy of a layer counts to the power 1 / tau1.
        tau2: the variance of a layer counts to the power 1 / tau2.
        cascading: whether layers are thinned as later ones come, and so never regain entries.
    """

    window: Rows
    gamma: Gamma
    kernel: Kernel
    tau1: Tau
    tau2: Tau
    cascading: bool

    @property
    def scorer(self) -> MeanAndVariance:
        """Mean and variance of attention from the window."""
        return MeanAndVariance(self.window, self.gamma, self.kernel)

    @property
    def allocation(self) -> Cake:
        """Shares of layers."""
        return Cake(self.window, self.tau1, self.tau2, self.cascading)


@dataclass(frozen=True)
class NewestAttention(Evictor):
    """Attention from the newest token, pooled over neighbours in the cache, which is in the order of earlier scores.

    Attributes:
        window: number of newest entries that are never dropped.
        kernel: width of the average pooling.
    """

    reads: ClassVar[bool] = True
    window: Rows
    kernel: Kernel

    @property
    def ordered(self) -> bool:
        """True: neighbours are those in the cache."""
        return True

    def reading(self, weights: Tensor) -> Tensor:
        """The weights of the last query alone."""
        return weights[..., -1, :].float()

    def updated(self, statistic: Tensor, reading: Tensor) -> Tensor:
        """The newest weights; earlier ones are forgotten."""
        return reading

    def kept(self, entries: Entries, target: int) -> Tensor:
        """The best ones by falling scores, then the window."""
        assert entries.statistic is not None
        rows, heads, _, count = entries.statistic.shape
        earlier = entries.statistic[..., : count - self.window]
        scores = pool(earlier.flatten(0, 2), self.kernel, "avgpool").view(rows, heads, -1, count - self.window).mean(2)
        best = scores.argsort(dim=-1, descending=True, stable=True)[..., : target - self.window]
        last = torch.arange(count - self.window, count, device=best.device).expand(rows, heads, -1)
        return torch.cat([best, last], -1)


@dataclass(frozen=True)
class CAKEDecode(CAKE):
    """Go on while decoding: each layer keeps its share by what the newest token attends to.

    Attributes:
        evict_every: new tokens from one eviction to the next.
    """

    evict_every: Every

    @property
    def evictor(self) -> NewestAttention:
        """Attention from the newest token."""
        return NewestAttention(self.evict_every, self.window, self.kernel)


def last_rows(layer: LayerState, window: int) -> Tensor:
    """Attention [H, window, T - window] that the last queries pay to each earlier token."""
    tokens = layer.keys.shape[1]
    queries = layer.queries[:, tokens - window :].to(layer.score_dtype)
    ((_, _, attention),) = attention_rows(queries, layer.keys.to(layer.score_dtype), layer.softmax, block_bytes=2**62)
    return attention[:, :, : tokens - window]


def adjusted(shares: Sequence[float], total: int, most: int) -> list[int]:
    """Whole numbers near some shares that are at most ``most`` and have a total of ``total``, or nearly.

    As in the authors' code a number that takes over what others are cut by is not cut itself.

    Args:
        shares: one share per layer.
        total: what they are to have together.
        most: the largest number.
    """
    numbers = [int(share) for share in shares]
    if excess := sum(max(0, number - most) for number in numbers):
        numbers = [min(number, most) for number in numbers]
        numbers = _spread(numbers, excess, [number < most for number in numbers])
    missing = total - sum(numbers)
    if missing > 0:
        return _spread(numbers, missing, [number < most for number in numbers])
    return _spread(numbers, missing, [number > 1 for number in numbers])


def _spread(numbers: list[int], amount: int, among: Sequence[bool]) -> list[int]:
    """Add an amount, which may be negative, in equal parts to some numbers; the remainder to the first of them."""
    places = [place for place, chosen in enumerate(among) if chosen]
    if not places:
        return numbers
    each, rest = divmod(abs(amount), len(places))
    sign = 1 if amount > 0 else -1
    for order, place in enumerate(places):
        numbers[place] += sign * (each + (order < rest))
    return numbers
