"""Random: tokens drawn at random, a control that every method should beat.

Claim: none; it is the floor that a table can show.
Source: kvpress 0.5.5, RandomPress.
Differs:
    - from kvpress: a share of the prompt is rounded to a whole number, not cut down.
    - with ``model.tp_plan=auto`` each process draws for its own heads alone, so that heads of different processes keep
      the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.method import LayerState, Method, Scorer
from harness.values import LARGEST

Seed = Annotated[int, Meta(ge=0, le=LARGEST)]


@dataclass(frozen=True)
class Drawn(Scorer):
    """Uniform numbers from a seed: other ones in each kv head, the same in all layers and for prompts of equal length.

    They are drawn on the CPU, so that a device keeps what another does.

    Attributes:
        seed: a whole number, 0 or more.
    """

    window: ClassVar[int] = 0
    seed: Seed

    def score(self, layer: LayerState) -> Tensor:
        """[kv_heads, tokens] in float32, from 0 to 1."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(layer.keys.shape[:2], generator=generator).to(layer.keys.device)


@dataclass(frozen=True)
class Random(Method):
    """Keep tokens drawn at random.

    Attributes:
        seed: what they are drawn from. Several seeds, as in ``method.random.seed=[0,1,2]``, show the spread.
    """

    seed: Seed

    @property
    def scorer(self) -> Drawn:
        """Uniform numbers."""
        return Drawn(self.seed)
