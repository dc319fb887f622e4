"""Whether a task's prompts fit: long enough for budgets and storages, short enough for the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.compression.grid import Plan, Variant
from harness.compression.selection import Selection
from harness.engine.layer_forms import refuse_moved_keys
from harness.engine.model_spec import head_dim, shape_of
from harness.engine.positions import beyond_positions
from harness.engine.prompt import Prompt
from harness.errors import BudgetError, ConfigError
from harness.results import Cell, by_head

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
            plan = plans[variant.cell] = variant.plan(shape_of(config, longest, selection))
        except BudgetError as error:
            if variant.budget.share is None:
                raise
            raise BudgetError(f"no prompt of the task is long enough for {error}") from error
        refuse_moved_keys(config, plan)
    return plans


def check_storages(
    variants: Sequence[Variant],
    prompts: Sequence[Prompt],
    config: PretrainedConfig,
    selection: Selection,
    new_tokens: int,
) -> None:
    """Refuse storages that do not fit the model's heads, and those that pack nothing of any prompt.

    Args:
        variants: the grid; each can be planned.
        prompts: the prompts.
        config: the model's configuration.
        selection: how entries are selected.
        new_tokens: largest number of new tokens.

    Raises:
        ConfigError: with the first such storage.
    """
    longest = max(prompt.context_tokens for prompt in prompts)
    come = max(len(prompt.ids) - prompt.context_tokens for prompt in prompts) + new_tokens - 1
    goes_on = any(prompt.example.follows is not None for prompt in prompts)
    for variant in variants:
        storage = variant.storage
        if storage.packs and goes_on:
            raise ConfigError(
                f"storage={storage.label} packs entries, and a conversation on the model's own answers goes on with "
                "entries as they are: use storage=exact"
            )
        storage.check_model(head_dim(config))
        plan = variant.plan(shape_of(config, longest, selection))
        counts = {count for layer in plan.keep for count in by_head(layer)}
        if storage.packs and plan.waiting is None and not any(any(storage.borders(n, n + come)) for n in counts):
            raise ConfigError(
                f"storage={storage.label} packs nothing of method={variant.method.label} budget={variant.budget.text} "
                f"({max(counts)} entries and at most {come} new ones): use a larger budget, or a smaller "
                f"storage.{storage.label}.{storage.tail}"
            )


def check_positions(config: PretrainedConfig, prompts: Sequence[Prompt], new_tokens: int) -> None:
    """Refuse prompts none of which fits into the positions of a model that cannot go past them.

    If only some do not fit, these get an error record.

    Raises:
        ConfigError: no prompt fits.
    """
    by_length = sorted(prompts, key=lambda prompt: len(prompt.ids))
    why = [beyond_positions(config, len(prompt.ids), new_tokens, len(prompt.question)) for prompt in by_length]
    if None not in why:
        raise ConfigError(f"no prompt of the task fits into the model; even the shortest does not: {why[0]}")
