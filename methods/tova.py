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

from harness.compression.method import Method
from harness.compression.score_parts import LastQuery


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
