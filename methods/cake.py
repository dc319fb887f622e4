"""CAKE: layers share the entries by how widely and how changeably their last queries attend, seen layer after layer.

Claim: layers whose attention spreads over many tokens, or shifts from query to query, need more entries than others
    (Qin et al., arXiv:2503.12491).
Source: antgroup/cakekv at c4675ce, the part that runs at the end of the prefill.
Differs:
    - from the authors' code: nothing is cut again while decoding.
    - a prompt of up to budget + window tokens is kept whole, as there; there it is then cut at the first new token.
    - the thinning of earlier layers as later ones come is counted and not done: the full cache of the prompt is held to
      its last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Literal

from msgspec import Meta
from torch import Tensor

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.attention_weights import attention_rows
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
        candidates, total = shape.tokens - shape.window, (budget - shape.window) * shape.layers
        preferences = [layer.summary for layer in seen]
        held = [candidates] * shape.layers
        for layers, together in enumerate(accumulate(preferences), start=1):
            if self.cascading or layers == shape.layers:
                # Without any preference, as where all attention is on the window, layers share evenly.
                shares = [(one / together if together else 1 / layers) * total for one in preferences[:layers]]
                numbers = adjusted(shares, total, candidates)
                held = [*map(min, held[:layers], numbers), *held[layers:]]
        return [entries + shape.window for entries in held]


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
