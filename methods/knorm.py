"""Knorm: the tokens whose keys have the smallest norms.

Claim: a key of small norm receives much attention later on (Devoto et al., arXiv:2406.11430).
Source: kvpress 0.5.5, KnormPress.
Differs:
    - from the paper: every layer is compressed; ``method=l2norm`` spares the first ones.
    - from kvpress: a share of the prompt is rounded to a whole number, not cut down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.compression.method import LayerState, Method, Scorer


@dataclass(frozen=True)
class SmallKeys(Scorer):
    """The negated norm of each key."""

    window: ClassVar[int] = 0

    @property
    def last_queries(self) -> int:
        """None: it looks at keys alone."""
        return 0

    def score(self, layer: LayerState) -> Tensor:
        """-||k||, [kv_heads, tokens] in float32."""
        norms: Tensor = torch.linalg.vector_norm(layer.keys.float(), dim=-1)
        return -norms


@dataclass(frozen=True)
class Knorm(Method):
    """Keep the tokens whose keys have the smallest norms."""

    @property
    def scorer(self) -> SmallKeys:
        """The negated norm of each key."""
        return SmallKeys()
