"""KeyDiff: the tokens whose keys are least like the mean key.

Claim: keys that differ from the others carry what the cache would lose (Park et al., arXiv:2504.15364).
Source: kvpress 0.5.5, KeyDiffPress.
Differs:
    - from the paper: all keys of the prompt are compared at once; the paper goes on block by block.
    - from kvpress: a share of the prompt is rounded to a whole number, not cut down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from harness.compression.method import LayerState, Method, Scorer


@dataclass(frozen=True)
class UnlikeKeys(Scorer):
    """The negated cosine between each key and the mean of all normalised keys of its head."""

    window: ClassVar[int] = 0

    @property
    def last_queries(self) -> int:
        """None: it looks at keys alone."""
        return 0

    def score(self, layer: LayerState) -> Tensor:
        """[kv_heads, tokens] in the layer's score dtype, from -1 to 1."""
        keys = layer.keys.to(layer.score_dtype)
        anchor = functional.normalize(keys, dim=-1).mean(dim=1, keepdim=True)
        return -functional.cosine_similarity(keys, anchor, dim=-1)


@dataclass(frozen=True)
class KeyDiff(Method):
    """Keep the tokens whose keys are least like the mean key."""

    @property
    def scorer(self) -> UnlikeKeys:
        """The negated cosine between each key and the mean key."""
        return UnlikeKeys()
