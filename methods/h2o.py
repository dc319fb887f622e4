"""H2O: the heavy hitters, which are the tokens that receive most attention, and a recent window.

Claim: a small set of tokens carries most of the attention (Zhang et al., arXiv:2306.14048).
Source: the prefill variant that the published comparisons run (Zefan-Cai/KVCache-Factory at c97f9d7).
Differs:
    - from the paper: scored once, over the prompt; nothing is evicted or re-scored while decoding.
    - from the published code: the sums are exact and computed in row blocks, so that memory grows with the number of
      tokens, not with its square.
    - ``causal: false`` does as the code behind the published tables, where earlier queries also saw later tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.compression.method import Ranking, require_above
from harness.compression.scorers import ColumnSums, Window
from harness.values import check


@dataclass(frozen=True)
class H2O:
    """Keep the tokens that receive most attention from the whole prompt, and the most recent ones.

    Attributes:
        label: shown in tables.
        window: recent tokens always kept.
        causal: whether a query sees earlier tokens alone.

    Raises:
        ConfigError: a knob out of range.
    """

    label: str
    window: Window
    causal: bool

    def __post_init__(self) -> None:
        check(self)

    @property
    def uses_budget(self) -> bool:
        """True: there is one cell for each budget."""
        return True

    @property
    def ranking(self) -> Ranking:
        """Attention received from the whole prompt."""
        return ColumnSums(self.window, self.causal)

    def keep(self, budget: int, prompt_tokens: int, layers: int) -> Sequence[int]:
        """The budget in every layer, or the whole prompt if that is shorter.

        Raises:
            BudgetError: the budget is not above the window.
        """
        require_above(budget, "window", self.window, self.label)
        return [min(budget, prompt_tokens)] * layers
