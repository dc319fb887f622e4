"""CAKE's prefill equals its authors' code: scores, preferences, budgets and kept sets. Decoding is not compared."""

from __future__ import annotations

import pytest
import torch

from harness.compression.selection import Selection, order_of
from methods import cake
from methods.cake import CAKE, Cake, MeanAndVariance
from tests.methods.golden.papers import (
    Case,
    assert_kept,
    assert_near,
    cases,
    kept,
    over,
    states,
    unequal,
    wrong_formulas,
)
from tests.methods.golden.wrong import Wrong

SELECTION = Selection("kv_head", "mean", "stable", "float32")


def is_adjustment(case: Case) -> bool:
    return "budget_list" in case.params


def compare_adjusted(case: Case) -> None:
    params = case.params
    found = cake.adjusted(params["budget_list"], params["total_budget"], params["seq_len"])
    assert found == case.expect["out"]
    assert sum(found) == case.expect["sum"]


def compare_prefill(case: Case) -> None:
    params, layers = case.params, states(case)
    method = CAKE(
        "cake", params["window_size"], params["gamma"], 5, params["tau1"], params["tau2"], params["cascading"]
    )
    found = kept(method, params["cache_size"], layers, SELECTION)
    assert [len(heads[0]) for heads in found] == case.expect["len_after_prefill"]
    for index, layer in enumerate(layers):
        assert_near(order_of(method.scorer, layer, SELECTION).scores, case.array(f"scores{index}"))
    preferences = torch.tensor([method.allocation.summary(layer) for layer in layers])
    assert torch.allclose(preferences, torch.tensor(case.expect["pref_scores"]), rtol=1e-4)
    assert_kept(case, found, case.expect["kept_prefill_stored_order"])


@over("cake", is_adjustment)
def test_adjusted_numbers_equal_the_references(case: Case) -> None:
    compare_adjusted(case)


@over("cake", lambda case: not is_adjustment(case))
def test_entries_scores_and_preferences_after_the_prefill_equal_the_references(case: Case) -> None:
    compare_prefill(case)


# --- formulas that are wrong on purpose

WRONG = {
    "biased variance": Wrong(MeanAndVariance, "score", "attention.var(1)", "attention.var(1, unbiased=False)"),
    "biased variance of layers": Wrong(Cake, "summary", "attention.var(1)", "attention.var(1, unbiased=False)"),
    "weights of the window renormalised": Wrong(
        Cake,
        "last_rows",
        "[:, :, : tokens - window]",
        "[:, :, : tokens - window].div(attention[:, :, : tokens - window].sum(-1, keepdim=True))",
    ),
    "rounded shares": Wrong(Cake, "adjusted", "int(share)", "round(share)"),
    "receivers cut again": Wrong(
        Cake,
        "adjusted",
        "missing = total - sum(numbers)",
        "numbers = [min(n, most) for n in numbers]; missing = total - sum(numbers)",
    ),
    "window beside the budget": Wrong(
        Cake, "_rounds", "(budget - shape.window) * shape.layers", "budget * shape.layers"
    ),
    "whole prompts to the budget alone": Wrong(
        Cake, "counts", "shape.tokens <= budget + shape.window", "shape.tokens <= budget"
    ),
}


@pytest.mark.slow
@wrong_formulas
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WRONG[wrong].put(monkeypatch)
    every = cases("whole", "cake")
    assert unequal(lambda case: (compare_adjusted if is_adjustment(case) else compare_prefill)(case), every)
