"""DynamicKV equals its authors' code: scores, kept sets, and the numbers that layers keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.compression.selection import order_of
from harness.errors import BudgetError
from methods.dynamickv import Dynamic, DynamicKV
from tests.methods.golden.papers import (
    Case,
    assert_kept,
    assert_near,
    cases,
    kept,
    over,
    selection_of,
    states,
    unequal,
    wrong_formulas,
)
from tests.methods.golden.wrong import Wrong

TWICE = "the reference stores tokens of the window twice, because a layer holds fewer entries than it was given"


def method_of(case: Case) -> DynamicKV:
    params = case.params
    return DynamicKV("dynamickv", params["window_size"], params["kernel_size"], params["pooling"], params["radio_max"])


def compare(case: Case) -> None:
    method, selection, layers = method_of(case), selection_of(case), states(case)
    found = kept(method, case.params["max_capacity_prompt"], layers, selection)
    expected = case.expect["kept_sorted"]
    if case.expect["window_tokens_duplicated"]:  # see TWICE: the same tokens, once
        expected = [[sorted(set(head)) for head in heads] for heads in expected]
    else:
        assert [len(heads[0]) for heads in found] == case.expect["final_len_per_layer"]
    assert_kept(case, found, expected)
    for index, layer in enumerate(layers):
        if f"scores{index}" in case.data["arrays"]:
            order = order_of(method.scorer, layer, selection)
            assert_near(order.scores, case.array(f"scores{index}").reshape(order.scores.shape))


@over("dynamickv", lambda case: not case.raises)
def test_entries_and_scores_equal_the_references(case: Case) -> None:
    compare(case)


@over("dynamickv", lambda case: not case.raises and case.expect["window_tokens_duplicated"])
def test_tokens_that_the_reference_stores_twice_are_kept_once(case: Case) -> None:
    found = kept(method_of(case), case.params["max_capacity_prompt"], states(case), selection_of(case))
    lengths = [len(heads[0]) for heads in found]
    assert all(len(set(head)) == len(head) for heads in found for head in heads)
    assert lengths != case.expect["final_len_per_layer"], TWICE


@over("dynamickv", lambda case: case.raises)
def test_what_the_reference_cannot_do_keeps_the_prompt_or_is_refused(case: Case, tmp_path: Path) -> None:
    params = case.params
    if params["max_capacity_prompt"] == params["window_size"]:
        with pytest.raises(BudgetError):
            kept(method_of(case), params["max_capacity_prompt"], states(case), selection_of(case))
        return
    assert params["T"] <= params["window_size"]
    found = kept(method_of(case), params["max_capacity_prompt"], states(case), selection_of(case))
    assert found == [[list(range(params["T"]))] * params["H"]] * len(found)


# --- formulas that are wrong on purpose

WRONG = {
    "no first cut": Wrong(
        Dynamic,
        "_first",
        "min(int(self.ratio_max * (budget - shape.window)), shape.tokens - shape.window)",
        "shape.tokens - shape.window",
    ),
    "all layers at once": Wrong(Dynamic, "counts", "range(GROUP, shape.layers + 1, GROUP)", "[shape.layers]"),
    "true division by the number of layers": Wrong(Dynamic, "counts", "count // layers", "count / layers"),
    "nothing for the last layer": Wrong(Dynamic, "_numbers", "numbers[-1] += total - sum(numbers)", ""),
    "rounded parts": Wrong(Dynamic, "_numbers", ".int().tolist()", ".round().int().tolist()"),
    "layers regain entries": Wrong(
        Dynamic, "counts", "map(min, held[:layers], _numbers(", "map(max, held[:layers], _numbers("
    ),
}


@pytest.mark.slow
@wrong_formulas
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WRONG[wrong].put(monkeypatch)
    assert unequal(compare, [case for case in cases("whole", "dynamickv") if not case.raises])
