"""LagKV: in each partition of the prompt the tokens that deviate most from what the next partition spans.

Claim: the tokens that follow show what is unusual before them, without any attention weight (Liang et al.,
    arXiv:2504.04704).
Source: kvpress 0.5.5, LagKVPress.
Differs:
    - ranks of different partitions are equal by design: which partitions get the remainder is left to
      ``selection.ties``, as in kvpress to ``torch.topk``; where the last tokens do not all fit, the newest are kept.
    - from the paper: one cut over the prompt, not one in each partition.
    - from kvpress: a share of the prompt is rounded to a whole number, not cut down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import First

Lag = Annotated[int, Meta(ge=2)]


@dataclass(frozen=True)
class LagDeviation(Scorer):
    """Deviation of keys and values over their channels, after they are scaled by the span of the next partition.

    Attributes:
        sinks: number of first tokens that are always kept, 0 or more.
        lag: tokens in a partition, 2 or more.
        cross_scoring: whether partitions are compared by the deviations themselves, or by ranks inside each.

    Raises:
        ConfigError: a knob out of range.
    """

    window: ClassVar[int] = 0
    sinks: First
    lag: Lag
    cross_scoring: bool

    def score(self, layer: LayerState) -> Tensor:
        """[kv_heads, tokens] in float32, up to 1; 1 and a little more for what comes first."""
        kv_heads, tokens, _ = layer.keys.shape
        device, dtype = layer.keys.device, layer.score_dtype
        partitions = (tokens - self.sinks) // self.lag
        # What is kept first of all: the sinks, then the newest tokens.
        eps = torch.finfo(torch.float32).eps
        scores = 1 + torch.arange(tokens, device=device) * eps
        scores[: self.sinks] = 1 + tokens * eps
        if tokens < self.sinks + 2 * self.lag:  # one partition alone: sinks and the newest
            first = min(self.sinks, tokens)
            scores[first:] = torch.arange(tokens - first, device=device) / max(1, tokens - first)
            return scores[None]
        scored = (partitions - 1) * self.lag
        scores = scores.repeat(kv_heads, 1)
        deviations = self._deviations(layer.keys.to(dtype), partitions) + self._deviations(
            layer.values.to(dtype), partitions
        )
        deviations = deviations / 2
        if not self.cross_scoring:
            deviations = deviations.argsort(dim=-1).argsort(dim=-1) / self.lag
        scores[:, self.sinks : self.sinks + scored] = deviations.reshape(kv_heads, scored)
        return scores

    def _deviations(self, states: Tensor, partitions: int) -> Tensor:
        """Softmax of deviations in each partition but the last, [kv_heads, partitions - 1, lag]."""
        kv_heads, _, size = states.shape
        parts = states[:, self.sinks : self.sinks + partitions * self.lag].reshape(kv_heads, partitions, self.lag, size)
        following = parts[:, 1:]
        least, most = following.amin(dim=2, keepdim=True), following.amax(dim=2, keepdim=True)
        deviations = ((parts[:, :-1] - least) / (most - least)).std(dim=-1)
        return deviations.nan_to_num(nan=0.0).softmax(dim=-1)  # a channel that does not vary has no span


@dataclass(frozen=True)
class LagKV(Method):
    """Keep the first tokens, the last ones, and those before that deviate most from what follows them.

    Attributes:
        sinks: first tokens, always kept.
        lag: tokens in a partition.
        cross_scoring: whether partitions are compared by the deviations themselves, or by ranks inside each.
    """

    sinks: First
    lag: Lag
    cross_scoring: bool

    @property
    def scorer(self) -> LagDeviation:
        """Deviations from the next partition."""
        return LagDeviation(self.sinks, self.lag, self.cross_scoring)
