"""SnapKV and PyramidKV keep what the authors' code, KVCache-Factory and AdaKV's fork keep."""

from __future__ import annotations

from typing import Any

import pytest

from harness.compression.method import Method
from harness.compression.scorers import WindowAttention
from harness.compression.selection import order_of
from methods.pyramidkv import Pyramid, PyramidKV
from methods.snapkv import SnapKV
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


def method_of(case: Case) -> Method:
    params = case.params
    knobs = (case.file, params["window_size"], params["kernel_size"], params["pooling"])
    if "beta" not in params:
        return SnapKV(*knobs)
    schedule: Any = "sloped" if case.reference == "FFY0/AdaKV" else "reference"
    return PyramidKV(*knobs, params["beta"], schedule)


def compare(case: Case) -> None:
    method, selection, layers = method_of(case), selection_of(case), states(case)
    found = kept(method, case.params["max_capacity_prompt"], layers, selection)
    assert [len(head) for head in found[0]] == [case.expect["kept_per_head"]] * len(found[0])
    assert_kept(case, found, [case.expect["kept_sorted"]])
    if "scores_sum" in case.data["arrays"]:
        assert method.scorer is not None
        order = order_of(method.scorer, layers[0], selection)
        assert_near(order.scores, case.array("scores_sum").reshape(order.scores.shape))


@over("snapkv", lambda case: not case.raises)
def test_entries_and_scores_equal_the_references(case: Case) -> None:
    compare(case)


@over("snapkv", lambda case: case.raises)
def test_what_the_references_cannot_do_is_named(case: Case) -> None:
    assert case.params["num_hidden_layers"] == 1, "one layer divides by zero there; here it is given the budget"
    (found,) = kept(method_of(case), case.params["max_capacity_prompt"], states(case), selection_of(case))
    assert {len(head) for head in found} == {case.params["max_capacity_prompt"]}


# --- formulas that are wrong on purpose


WRONG = {
    "pooled before the group is reduced": [
        Wrong(
            WindowAttention,
            "score",
            "window_attention(layer, self.window)",
            "pool(window_attention(layer, self.window), self.kernel, self.pooling)",
        ),
        Wrong(WindowAttention, "smooth", "pool(scores, self.kernel, self.pooling)", "scores"),
    ],
    "window left out of the softmax": [
        Wrong(
            WindowAttention,
            "window_attention",
            "[:, :, : tokens - window].sum(dim=1)",
            "[:, :, : tokens - window].div(attention[:, :, : tokens - window].sum(-1, keepdim=True)).sum(1)",
        )
    ],
    "steps rounded up": [
        Wrong(PyramidKV, "_floored", "(highest - lowest) // (layers - 1)", "-((lowest - highest) // (layers - 1))")
    ],
    "flat for short prompts": [Wrong(Pyramid, "counts", 'and self.schedule != "sloped"', "")],
}


@pytest.mark.slow
@wrong_formulas
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for formula in WRONG[wrong]:
        formula.put(monkeypatch)
    assert unequal(compare, [case for case in cases("whole", "snapkv") if not case.raises])
