"""Whether a task's prompts fit: long enough for the budgets, short enough for the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.compression.grid import Variant
from harness.engine.positions import beyond_positions
from harness.engine.prompt import Prompt
from harness.errors import BudgetError, ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def check_shares(variants: Sequence[Variant], prompts: Sequence[Prompt], layers: int) -> None:
    """Refuse a budget in percent that no prompt is long enough for.

    If only some prompts are too short for it, these get an error record.

    Raises:
        BudgetError: with the first such budget.
    """
    longest = max(len(prompt.ids) for prompt in prompts)
    for variant in variants:
        if variant.budget.share is not None:
            try:
                variant.plan(longest, layers)
            except BudgetError as error:
                raise BudgetError(f"no prompt of the task is long enough for {error}") from error


def check_positions(config: PretrainedConfig, prompts: Sequence[Prompt], new_tokens: int) -> None:
    """Refuse prompts none of which fits into the positions of a model that cannot go past them.

    If only some do not fit, these get an error record.

    Raises:
        ConfigError: no prompt fits.
    """
    shortest = min(len(prompt.ids) for prompt in prompts)
    if (beyond := beyond_positions(config, shortest, new_tokens)) is not None:
        raise ConfigError(f"no prompt of the task fits into the model; even the shortest does not: {beyond}")
