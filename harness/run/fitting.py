"""Whether a task's prompts fit: long enough for the budgets, short enough for the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.compression.grid import Plan, Variant
from harness.compression.selection import Selection
from harness.engine.model_spec import shape_of
from harness.engine.positions import beyond_positions
from harness.engine.prompt import Prompt
from harness.errors import BudgetError, ConfigError
from harness.results import Cell

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def check_plans(
    variants: Sequence[Variant], prompts: Sequence[Prompt], config: PretrainedConfig, selection: Selection
) -> dict[Cell, Plan]:
    """Refuse variants that cannot be planned for any prompt: a share that is too small, a method that does not fit.

    If only some prompts are too short for a budget, these get an error record.

    Returns:
        What each keeps of the longest prompt.

    Raises:
        BudgetError: with the first such budget.
        ConfigError: with the first such method.
    """
    longest = max(prompt.context_tokens for prompt in prompts)
    plans = {}
    for variant in variants:
        try:
            plans[variant.cell] = variant.plan(shape_of(config, longest, selection))
        except BudgetError as error:
            if variant.budget.share is None:
                raise
            raise BudgetError(f"no prompt of the task is long enough for {error}") from error
    return plans


def check_positions(config: PretrainedConfig, prompts: Sequence[Prompt], new_tokens: int) -> None:
    """Refuse prompts none of which fits into the positions of a model that cannot go past them.

    If only some do not fit, these get an error record.

    Raises:
        ConfigError: no prompt fits.
    """
    shortest = min(len(prompt.ids) for prompt in prompts)
    if (beyond := beyond_positions(config, shortest, new_tokens)) is not None:
        raise ConfigError(f"no prompt of the task fits into the model; even the shortest does not: {beyond}")
