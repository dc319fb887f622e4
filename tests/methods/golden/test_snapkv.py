"""SnapKV and PyramidKV keep what the authors' code, KVCache-Factory and AdaKV's fork keep."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from torch import Tensor

from harness.compression.attention_weights import attention_rows
from harness.compression.method import LayerState, Method
from harness.compression.scorers import WindowAttention
from harness.compression.selection import order_of
from methods.pyramidkv import PyramidKV
from methods.snapkv import SnapKV
from tests.methods.golden.papers import Case, assert_kept, assert_near, cases, kept, over, selection_of, states, unequal


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


def pooled_before_grouping(self: WindowAttention, layer: LayerState) -> Tensor:
    return WINDOW_SMOOTH(self, SCORERS.window_attention(layer, self.window), layer)


def without_window_columns(layer: LayerState, window: int) -> Tensor:
    candidates = layer.keys.shape[1] - window
    ((_, _, weights),) = attention_rows(layer.queries[:, -window:], layer.keys, layer.scaling, block_bytes=2**62)
    attention = weights[:, :, :candidates]
    return (attention / attention.sum(-1, keepdim=True)).sum(1)


SCORERS: Any = sys.modules[WindowAttention.__module__]
WINDOW_SMOOTH = WindowAttention.smooth
WRONG: dict[str, list[tuple[Any, str, Any]]] = {
    "pooled before the group is reduced": [
        (WindowAttention, "score", pooled_before_grouping),
        (WindowAttention, "smooth", lambda self, scores, layer: scores),
    ],
    "window columns left out of the softmax": [(SCORERS, "window_attention", without_window_columns)],
    "steps rounded up": [
        (
            sys.modules[PyramidKV.__module__],
            "_floored",
            lambda high, low, n: [high + i * ((low - high) // (n - 1)) for i in range(n)],
        )
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    among = [case for case in cases("part", "snapkv") if not case.raises]
    for where, name, replacement in WRONG[wrong]:
        monkeypatch.setattr(where, name, replacement)
    assert unequal(compare, among)
