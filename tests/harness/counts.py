"""How many entries a method keeps, without a model."""

from __future__ import annotations

from fractions import Fraction

from harness.compression.allocation import Shape
from harness.compression.method import Method


def keep_of(method: Method, budget: int, tokens: int, layers: int) -> list[int]:
    """Entries per layer of a method that knows them beforehand, equal in all heads.

    Raises:
        BudgetError: the method refuses the budget.
    """
    method.check_budget(budget)
    if method.scorer is None:
        return [tokens] * layers
    shape = Shape(tokens, layers, window=min(method.scorer.window, tokens), share=Fraction(budget, tokens))
    counts = method.allocation.counts(budget, shape, ())
    assert all(isinstance(count, int) for count in counts)
    return [count for count in counts if isinstance(count, int)]
