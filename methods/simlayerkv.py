"""SimLayerKV: layers whose last query attends to first and recent tokens keep these alone, the others keep everything.

Claim: some layers are lazy: they look at little but first and recent tokens (Zhang et al., arXiv:2410.13846).
Source: NVIDIA/kvpress 0.5.5, whose defaults are those of the authors' SimLayerKV-decode.
Differs:
    - from kvpress: nothing. From the authors' code, which was not run here: it may also find lazy layers by the last
      queries of the prompt instead of one, and go on dropping while decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.method import LayerState, Method
from harness.compression.scorers import FirstTokens, Window, window_attention
from harness.errors import ConfigError
from harness.values import Refusal

Threshold = Annotated[
    float, Meta(ge=0, le=1), Refusal("is not a number from 0 to 1", "use a share of attention such as threshold=0.9")
]
First = Annotated[int, Meta(ge=1), Refusal("is not a whole number of 1 or more", "kvpress uses sinks=4")]


@dataclass(frozen=True)
class LazyLayers(Allocation):
    """Few entries in lazy layers, the whole prompt in the others.

    Attributes:
        threshold: see ``SimLayerKV``.
        sinks: see ``SimLayerKV``.
        recent: see ``SimLayerKV``.
        queries: see ``SimLayerKV``.
    """

    threshold: Threshold
    sinks: First
    recent: Window
    queries: Window

    @property
    def sees(self) -> Literal["layer"]:
        """The layer in question."""
        return "layer"

    def summary(self, layer: LayerState) -> float:
        """Share of attention, averaged over heads and queries, of first and recent tokens; 0 for short prompts."""
        if layer.keys.shape[1] <= self.sinks + self.recent + self.queries:
            return 0.0
        attention = window_attention(layer, self.queries).float().mean(0) / self.queries
        return float(attention[: self.sinks].sum() + attention[-self.recent :].sum())

    def total(self, budget: int, shape: Shape) -> int:
        """The whole prompt: no layer may be lazy."""
        return shape.tokens * shape.layers * shape.cache_heads

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[int]:
        """The number for this layer, whatever the budget."""
        (layer,) = seen
        short = shape.tokens <= self.sinks + self.recent + self.queries
        if short or self.threshold == 1 or layer.summary <= self.threshold:
            return [shape.tokens]
        return [self.sinks + self.recent - self.queries]


@dataclass(frozen=True)
class SimLayerKV(Method):
    """Keep the first and the last tokens in lazy layers, and everything in the others.

    Attributes:
        threshold: a layer is lazy if its first and recent tokens receive more than this share of attention; 1: none is.
        sinks: first tokens.
        recent: recent tokens, the last queries not among them; a lazy layer keeps as many, the queries among them.
        queries: last queries of the prompt whose attention is looked at.

    Raises:
        ConfigError: a knob out of range, or ``recent`` is not above ``queries``.
    """

    threshold: Threshold
    sinks: First
    recent: Window
    queries: Window

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recent <= self.queries:
            raise ConfigError(
                f"recent={self.recent} is not above queries={self.queries} (method={self.label}): "
                f"use recent>={self.queries + 1} or fewer queries"
            )

    @property
    def uses_budget(self) -> bool:
        """False: ``threshold`` says what is kept."""
        return False

    @property
    def scorer(self) -> FirstTokens:
        """Position alone: the first tokens, beside the last ones."""
        return FirstTokens(self.recent - self.queries)

    @property
    def allocation(self) -> LazyLayers:
        """A few entries or the whole prompt, layer by layer."""
        return LazyLayers(self.threshold, self.sinks, self.recent, self.queries)

    def check_budget(self, budget: int) -> None:
        """Nothing: there is no budget."""
