"""The grid: every (method, budget) of a run, and the plan of what each keeps of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index

from harness.compression.budget import FULL, Budget
from harness.compression.method import Method, Ranking
from harness.errors import BudgetError, ConfigError, KvgaugeError
from harness.results import Cell
from harness.text import check_name, plain

_LONG_PROMPT_TOKENS = 2**31


@dataclass(frozen=True)
class Variant:
    """One (method, budget): a cell of the grid with its method and its parsed budget."""

    cell: Cell
    method: Method
    budget: Budget

    def plan(self, prompt_tokens: int, layers: int) -> Plan:
        """What this variant keeps of a prompt.

        ``full`` and shares that come to the whole prompt keep it whole under every method, however short it is.

        Args:
            prompt_tokens: length of the prompt, 1 or more.
            layers: number of layers, 1 or more.

        Raises:
            BudgetError: the budget leaves nothing to choose for this prompt.
            ConfigError: the method's ``keep`` failed, or the numbers that it returned are wrong in count or range.
        """
        budget = self.budget.entries(prompt_tokens)
        if self.method.uses_budget and self.budget.tokens is None and budget >= prompt_tokens:
            return Plan((prompt_tokens,) * layers, None)
        try:
            given = self.method.keep(budget, prompt_tokens, layers)
        except BudgetError as error:
            if self.budget.share is None:
                raise
            raise BudgetError(f"{self.budget.text} of a prompt of {prompt_tokens} tokens: {error}") from error
        except KvgaugeError:
            raise
        except Exception as error:  # a user's own class may raise anything
            raise ConfigError(
                f"method={self.cell.label}: keep(budget={budget}, prompt_tokens={prompt_tokens}, layers={layers}) "
                f"failed with {type(error).__name__} ({plain(str(error))[:200]}): mend it"
            ) from error
        try:
            keep = tuple(index(entries) for entries in given)
        except TypeError as error:
            raise ConfigError(
                f"method={self.cell.label}: keep gave {plain(repr(given))[:100]}: give a list of {layers} whole "
                "numbers, one per layer, as all heads of a layer keep equally many"
            ) from error
        if len(keep) != layers:
            raise ConfigError(
                f"method={self.cell.label} gives {len(keep)} numbers of entries for {layers} layers: give one per layer"
            )
        ranking = self.method.ranking
        if ranking is None or all(entries >= prompt_tokens for entries in keep):
            return Plan((prompt_tokens,) * layers, None)
        window = min(ranking.window, prompt_tokens)
        if wrong := [entries for entries in keep if not window <= entries <= prompt_tokens]:
            raise ConfigError(
                f"method={self.cell.label} keeps {wrong[0]} entries in a layer: "
                f"keep {window} (its window) to {prompt_tokens} (the prompt)"
            )
        return Plan(keep, ranking)


def make_grid(methods: Sequence[Method], budgets: Sequence[Budget]) -> tuple[Variant, ...]:
    """Every method at every budget; a method that does not use budgets comes once, as ``full``.

    Raises:
        BudgetError: a method cannot obey an absolute budget for any prompt.
        ConfigError: there is no method, two methods share a label, or a label cannot name a folder.
    """
    if not methods:
        raise ConfigError("method=[] names no method: use method=all or, for example, method=[snapkv,pyramidkv]")
    labels = [check_name(method.label, "method label") for method in methods]
    if doubled := {label for label in labels if labels.count(label) > 1}:
        raise ConfigError(f"label={doubled.pop()} stands for two methods: give each its own label in the results")
    variants = [
        Variant(Cell(method.label, budget.text), method, budget)
        for method in methods
        for budget in (budgets if method.uses_budget else (FULL,))
    ]
    for variant in variants:
        if variant.budget.tokens is not None:
            variant.plan(_LONG_PROMPT_TOKENS, layers=2)
    return tuple(variants)


@dataclass(frozen=True)
class Plan:
    """What a variant keeps of one prompt. Equal plans keep the same entries.

    Attributes:
        keep: number of entries per head for each layer, window included; at most the prompt's tokens.
        ranking: which candidates survive; None if every layer keeps everything.
    """

    keep: tuple[int, ...]
    ranking: Ranking | None
