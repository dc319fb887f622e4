"""Leverage: the tokens whose keys, before the rotary embedding, weigh most in the span of all keys.

Claim: leverage scores find the keys that others cannot stand in for (Chari et al., arXiv:2507.08143).
Source: kvpress 0.5.5, LeverageScorePress.
Differs:
    - the projection is drawn from ``seed`` alone; kvpress draws it from torch's global generator, layer after layer.
    - keys before the rotary embedding are got by turning the rotated ones back, which rounds once more.
    - from kvpress: a share of the prompt is rounded to a whole number, not cut down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from msgspec import Meta
from torch import Tensor

from harness.compression.leverage import leverage_scores, sketch
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import standardised
from harness.values import LARGEST

Seed = Annotated[int, Meta(ge=0, le=LARGEST)]
Size = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class KeyLeverage(Scorer):
    """Leverage of keys after a random projection.

    Attributes:
        sketch: dimensions of the projection, 1 or more.
        seed: what it is drawn from.

    Raises:
        ConfigError: a knob out of range.
    """

    window: ClassVar[int] = 0
    sketch: Size
    seed: Seed

    def score(self, layer: LayerState) -> Tensor:
        """[kv_heads, tokens] in float32, standardised over the layer."""
        keys = layer.unrotated(layer.keys.to(layer.score_dtype))
        kv_heads, _, size = keys.shape
        return standardised(leverage_scores(keys, sketch(self.seed, layer.index, kv_heads, size, self.sketch)))


@dataclass(frozen=True)
class Leverage(Method):
    """Keep the tokens whose keys have the largest leverage.

    Attributes:
        sketch: dimensions of the random projection.
        seed: what it is drawn from.
    """

    sketch: Size
    seed: Seed

    @property
    def scorer(self) -> KeyLeverage:
        """Leverage of keys."""
        return KeyLeverage(self.sketch, self.seed)
