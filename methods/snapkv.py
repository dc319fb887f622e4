"""SnapKV: the tokens that the last few queries of the prompt attend to most, and these last tokens.

Claim: the attention of an observation window at the prompt's end predicts what decoding attends to (Li et al.,
    arXiv:2404.14469).
Source: Zefan-Cai/KVCache-Factory at c97f9d7, the code of the published comparisons.
Differs:
    - from the published code: scores are float32 and ties go to the lowest index; ``selection.ties=torch`` and
      ``selection.dtype=model`` do as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.compression.method import Ranking, require_above
from harness.compression.scorers import Kernel, Pooling, Window, WindowAttention
from harness.values import check


@dataclass(frozen=True)
class SnapKV:
    """Keep the tokens that the last queries attend to most, and these last tokens.

    Attributes:
        label: shown in tables.
        window: trailing queries that vote; their tokens are always kept.
        kernel: width of the pooling over neighbouring positions.
        pooling: ``maxpool`` or ``avgpool``.

    Raises:
        ConfigError: a knob out of range.
    """

    label: str
    window: Window
    kernel: Kernel
    pooling: Pooling

    def __post_init__(self) -> None:
        check(self)

    @property
    def uses_budget(self) -> bool:
        """True: there is one cell for each budget."""
        return True

    @property
    def ranking(self) -> Ranking:
        """Attention received from the window, pooled over neighbouring positions."""
        return WindowAttention(self.window, self.kernel, self.pooling)

    def keep(self, budget: int, prompt_tokens: int, layers: int) -> Sequence[int]:
        """The budget in every layer, or the whole prompt if that is shorter.

        Raises:
            BudgetError: the budget is not above the window.
        """
        require_above(budget, "window", self.window, self.label)
        return [min(budget, prompt_tokens)] * layers
