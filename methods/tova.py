"""TOVA: the tokens that the last token of the prompt attends to most, the same in all heads of a layer.

Claim: a bounded cache loses little if it drops what the newest query attends to least (Oren et al., arXiv:2401.06104).
Source: https://github.com/schwartz-lab-NLP/TOVA at 9c7d09b; kvpress 0.5.5, TOVAPress.
Differs:
    - from the paper: compressed once, after the prompt; the paper drops an entry at every step.
    - ``keep_last: true`` is kvpress's reading; in the paper's the last token is a candidate like the others.
    - with ``model.tp_plan=auto`` the mean is over the heads of one process, each of which keeps its own tokens.
    - from kvpress: a share of the prompt is rounded to a whole number, not cut down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from harness.compression.attention_weights import attention_rows
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import forced


@dataclass(frozen=True)
class LastQuery(Scorer):
    """Attention from the last token, averaged over all query heads of the layer.

    Attributes:
        keep_last: whether the last token itself comes before all others.
    """

    window: ClassVar[int] = 0
    keep_last: bool

    def score(self, layer: LayerState) -> Tensor:
        """[1, tokens] in the layer's score dtype; the sum is 1."""
        queries, keys = layer.queries[:, -1:].to(layer.score_dtype), layer.keys.to(layer.score_dtype)
        ((_, _, attention),) = attention_rows(queries, keys, layer.softmax, block_bytes=2**62)
        return attention[:, 0].mean(dim=0, keepdim=True)

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Force the last token, if it is to be kept."""
        return forced(scores, last=1) if self.keep_last else scores


@dataclass(frozen=True)
class Tova(Method):
    """Keep the tokens that the last token of the prompt attends to most.

    Attributes:
        keep_last: whether the last token itself is always kept.
    """

    keep_last: bool

    @property
    def scorer(self) -> LastQuery:
        """Attention from the last token, averaged over heads."""
        return LastQuery(self.keep_last)
