"""AdaKV and Ada-PyramidKV against the code of their authors and of KVCache-Factory."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from harness.compression import head_budgets
from harness.compression.head_budgets import AdaptiveHeads, AdaptivePyramid, shares_of_best
from harness.compression.wrappers import Wrapper
from harness.errors import BudgetError
from methods.ada_pyramidkv import AdaPyramidKV
from methods.adakv import AdaKV
from methods.snapkv import SnapKV
from tests.methods.golden.papers import ROOTS, Case, assert_kept, cases, kept, over, selection_of, states


def method_of(case: Case) -> Wrapper:
    params = case.params
    base = SnapKV("snapkv", params["window_size"], params["kernel_size"], params["pooling"])
    mix = (float(params["floor"]), bool(params["normalize"]), params["skip"])
    if params["pyram"]:
        return AdaPyramidKV("ada_pyramidkv", base, *mix, params["pyram_beta"])
    return AdaKV("adakv", base, *mix)


def hold(case: Case) -> None:
    """Hold what each head keeps against a case."""
    params, method = case.params, method_of(case)
    if params["base_capacity"] <= params["window_size"]:
        # The published code keeps the window alone, and nothing is chosen: a budget that kvgauge refuses.
        with pytest.raises(BudgetError):
            method.check_budget(params["base_capacity"])
        return
    (heads,) = kept(method, params["base_capacity"], states(case), selection_of(case))
    if case.raises:
        # With one layer the published code divides by zero; here that layer gets the budget.
        assert params["pyram"] and params["num_hidden_layers"] == 1
        assert abs(sum(map(len, heads)) - params["base_capacity"] * len(heads)) <= len(heads)
    elif case.expect.get("counts_certain", True):
        assert [len(positions) for positions in heads] == case.expect["head_lens"]
        assert_kept(case, [heads], [case.expect["kept_sorted"]])
    else:  # a tie decides in which head an entry lies, and each head rounds its number
        assert abs(sum(map(len, heads)) - case.expect["total"]) <= len(heads)


@over("adakv")
def test_what_each_head_keeps_is_what_the_authors_code_keeps(case: Case) -> None:
    hold(case)


def _minimum(scores: Tensor, chosen: int, floor: float, normalise: bool) -> list[int]:
    """The floor as a minimum, not as a part of a mix."""
    return [max(count, int(chosen * floor)) for count in shares_of_best(scores, len(scores) * chosen).tolist()]


def _half_up(scores: Tensor, chosen: int, floor: float, normalise: bool) -> list[int]:
    shares = shares_of_best(_normalised(scores, chosen) if normalise else scores, len(scores) * chosen)
    return [int(count * (1 - floor) + int(chosen * floor) + 0.5) for count in shares.tolist()]


def _normalised(scores: Tensor, chosen: int) -> Tensor:
    return scores * (scores.topk(chosen).values.sum(-1, keepdim=True) / scores.sum(-1, keepdim=True))


def _without_normalising(scores: Tensor, chosen: int, floor: float, normalise: bool) -> list[int]:
    return MIXED(scores, chosen, floor, False)


def _floor_not_cut(scores: Tensor, chosen: int, floor: float, normalise: bool) -> list[int]:
    shares = shares_of_best(_normalised(scores, chosen) if normalise else scores, len(scores) * chosen)
    counts: list[int] = (shares.float() * (1 - floor) + chosen * floor).round().int().tolist()
    return counts


def _with_the_window(self: AdaptiveHeads, budget: int, shape: Any) -> list[int]:
    return [budget + shape.window] * shape.layers


def _from_the_first_layer_on(self: AdaptivePyramid, budget: int, shape: Any) -> list[int]:
    return list(reversed(PYRAMID(self, budget, shape)))


MIXED, PYRAMID = head_budgets.mixed_counts, AdaptivePyramid.layer_budgets
WRONG: dict[str, tuple[Any, str, Any]] = {
    "floor as a minimum": (head_budgets, "mixed_counts", _minimum),
    "half rounded up": (head_budgets, "mixed_counts", _half_up),
    "not normalised": (head_budgets, "mixed_counts", _without_normalising),
    "floor not cut down": (head_budgets, "mixed_counts", _floor_not_cut),
    "window on top": (AdaptiveHeads, "layer_budgets", _with_the_window),
    "pyramid upside down": (AdaptivePyramid, "layer_budgets", _from_the_first_layer_on),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_fails_a_case(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*WRONG[wrong])
    which = "whole" if ROOTS["whole"].is_dir() else "part"
    assert failing(cases(which, "adakv"))


def failing(chosen: list[Case]) -> int:
    """How many of these cases are not held."""
    count = 0
    for case in chosen:
        try:
            hold(case)
        except AssertionError:
            count += 1
    return count
