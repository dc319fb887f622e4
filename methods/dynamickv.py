"""DynamicKV: SnapKV's scorer, with layers that share the entries by where the best scores of all layers lie.

Claim: which layers need many entries depends on the task, and the scores of all layers together tell (Zhou et al.,
    arXiv:2412.14838).
Source: DreamMr/DynamicKV at 8ab3c08, its cluster V11.
Differs:
    - from the authors' code: where a layer is given more entries than it still holds, their slice runs into the window
      and stores its tokens twice; here the layer keeps what it holds.
    - their first cut of each layer is counted and not done: the full cache of the prompt is held to its last layer.
    - where their shares divide by zero, layers share evenly.
    - ``radio_min`` is left out, since it only prints a warning there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.method import Method
from harness.compression.scorers import Kernel, Pooling, Window, WindowAttention
from harness.values import Refusal

Ratio = Annotated[float, Meta(ge=1), Refusal("is not a number of 1 or more", "the authors use ratio_max=10")]

GROUP = 4
"""Layers after which entries are shared again."""


@dataclass(frozen=True)
class Dynamic(Allocation):
    """Entries by the best scores of all layers so far, after every fourth layer.

    Attributes:
        ratio_max: a layer is first given at most this many times its even share.
    """

    ratio_max: Ratio

    @property
    def sees(self) -> Literal["layers"]:
        """All layers."""
        return "layers"

    def total(self, budget: int, shape: Shape) -> int:
        """The budget in every layer; layers after the last full group of four keep their first numbers on top."""
        base, first = budget - shape.window, self._first(budget, shape)
        late = shape.layers % GROUP
        shared = base * shape.layers if shape.layers >= GROUP else 0
        entries = min(shared + late * first, (shape.tokens - shape.window) * shape.layers)
        return (entries + shape.window * shape.layers) * shape.cache_heads

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[int]:
        """What each layer still holds after it was cut for the last time."""
        base, first = budget - shape.window, self._first(budget, shape)
        held = [first] * shape.layers
        for layers in range(GROUP, shape.layers + 1, GROUP):
            best = _best_in([layer.scores for layer in seen[:layers]], base * shape.cache_heads * layers)
            shares = [count // layers for count in best]
            candidates = seen[0].scores.numel()  # of all heads of a layer
            if layers == shape.layers and sum(shares) != candidates:
                shares[-1] += base * shape.cache_heads * layers // shape.layers - sum(shares)
            held = [*map(min, held[:layers], _numbers(shares, first, base * shape.layers)), *held[layers:]]
        return [entries + shape.window for entries in held]

    def _first(self, budget: int, shape: Shape) -> int:
        """Candidates that each layer is first given."""
        return min(int(self.ratio_max * (budget - shape.window)), shape.tokens - shape.window)


@dataclass(frozen=True)
class DynamicKV(Method):
    """Keep what SnapKV scores highest, with more entries in layers that hold more of the best scores.

    Attributes:
        window: trailing queries that vote; their tokens are always kept.
        kernel: width of the pooling over neighbouring positions.
        pooling: ``maxpool`` or ``avgpool``.
        ratio_max: a layer is first given at most this many times its even share.
    """

    window: Window
    kernel: Kernel
    pooling: Pooling
    ratio_max: Ratio

    @property
    def scorer(self) -> WindowAttention:
        """SnapKV's: attention received from the window, pooled over neighbouring positions."""
        return WindowAttention(self.window, self.kernel, self.pooling)

    @property
    def allocation(self) -> Dynamic:
        """Shares of layers."""
        return Dynamic(self.ratio_max)


def _best_in(scores: Sequence[Tensor], count: int) -> list[int]:
    """How many of the best ``count`` scores lie in each layer."""
    flat = torch.cat([layer.flatten() for layer in scores])
    best = flat.topk(min(count, len(flat)), sorted=False).indices
    return torch.bincount(best // scores[0].numel(), minlength=len(scores)).tolist()


def _numbers(shares: Sequence[int], first: int, total: int) -> list[int]:
    """Numbers of entries by shares, with the given total; what rounding leaves over goes to the last layer."""
    if sum(shares) == 0:
        shares = [1] * len(shares)
    # The authors' division is one of float32.
    parts = (first * torch.tensor(shares, dtype=torch.float32) / sum(shares)).int().tolist()
    ratio = sum(parts) / total
    numbers = [int(part // ratio) for part in parts] if ratio else parts
    numbers[-1] += total - sum(numbers)
    return numbers
