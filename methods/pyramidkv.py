"""PyramidKV: SnapKV's ranking, with more entries in the lower layers and fewer in the upper ones.

Claim: attention spreads in lower layers and narrows in upper ones, so budgets should too (Cai et al.,
    arXiv:2406.02069).
Source: Zefan-Cai/KVCache-Factory at c97f9d7; its schedule is ``schedule: reference``.
Differs:
    - ``schedule: reference`` keeps the published floor division, whose total exceeds budget x layers: by 0-27 % at the
      published budgets (64-2048) and window, and anywhere by up to half the number of layers in entries per layer.
    - ``schedule: exact`` keeps the same endpoints and makes the total exactly budget x layers.
    - with one layer the published code divides by zero; here that layer gets the budget.
    - from the paper: its step divides by the number of layers, the code's, which is followed here, by one less; and in
      the code the window comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from harness.compression.method import Ranking, require_above
from harness.compression.scorers import Kernel, Pooling, Window, WindowAttention
from harness.values import Refusal, check


@dataclass(frozen=True)
class PyramidKV:
    """Keep what SnapKV ranks highest, with more entries in the lower layers and fewer in the upper ones.

    Attributes:
        label: shown in tables.
        window: trailing queries that vote; their tokens are always kept, in every layer.
        kernel: width of the pooling over neighbouring positions.
        pooling: ``maxpool`` or ``avgpool``.
        beta: the top layer gets 1 / beta of an even share; a whole number of 1 or more.
        schedule: ``reference`` or ``exact``.

    Raises:
        ConfigError: a knob out of range.
    """

    label: str
    window: Window
    kernel: Kernel
    pooling: Pooling
    beta: Annotated[int, Meta(ge=1), Refusal("is not a whole number of 1 or more", "the published tables use beta=20")]
    schedule: Literal["reference", "exact"]

    def __post_init__(self) -> None:
        check(self)

    @property
    def uses_budget(self) -> bool:
        """True: there is one cell for each budget."""
        return True

    @property
    def ranking(self) -> Ranking:
        """SnapKV's: attention received from the window, pooled over neighbouring positions."""
        return WindowAttention(self.window, self.kernel, self.pooling)

    def keep(self, budget: int, prompt_tokens: int, layers: int) -> Sequence[int]:
        """Numbers that fall from the first layer to the last by ``schedule``; the whole prompt if it fits the budget.

        Raises:
            BudgetError: the budget is not above the window.
        """
        require_above(budget, "window", self.window, self.label)
        if prompt_tokens <= budget:
            return [prompt_tokens] * layers
        share = budget - self.window  # entries chosen per layer if all layers were equal
        if prompt_tokens < 2 * share or layers == 1:
            return [budget] * layers
        lowest = share // self.beta
        highest = 2 * share - lowest
        if highest >= prompt_tokens - self.window:
            highest = prompt_tokens - self.window
            lowest = 2 * share - highest
        schedule = _floored if self.schedule == "reference" else _exact
        return [chosen + self.window for chosen in schedule(highest, lowest, layers)]


def _floored(highest: int, lowest: int, layers: int) -> Sequence[int]:
    """Numbers that fall from ``highest`` by equal steps, floored to whole ones, so the last is ``lowest`` or above."""
    step = (highest - lowest) // (layers - 1)
    return [highest - layer * step for layer in range(layers)]


def _exact(highest: int, lowest: int, layers: int) -> Sequence[int]:
    """Numbers that fall from ``highest`` to ``lowest``, with the total exactly (highest + lowest) * layers / 2.

    A layer and its mirror image together get ``highest + lowest``. This is even, being twice the equal share, so the
    middle layer gets a whole number.
    """
    drop = highest - lowest
    lower = [highest - drop * layer // (layers - 1) for layer in range(layers // 2)]
    middle = [(highest + lowest) // 2] if layers % 2 else []
    return [*lower, *middle, *(highest + lowest - chosen for chosen in reversed(lower))]
