"""HeadKV's numbers of entries and kept sets equal those of its authors' code and of KVCache-Factory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.compression.allocation import Shape
from harness.compression.selection import order_of
from methods.headkv import HeadKV, HeadScores
from tests.methods.golden.papers import (
    Case,
    assert_kept,
    assert_near,
    cases,
    kept,
    over,
    score_sets,
    selection_of,
    states,
    unequal,
    wrong_formulas,
)
from tests.methods.golden.wrong import Wrong


def method_of(case: Case, folder: Path) -> HeadKV:
    file = folder / f"{case.which}-{case.params['score_set']}.json"
    file.write_text(json.dumps(score_sets(case)[case.params["score_set"]]))
    params = case.params
    knobs = (params.get("window_size", 8), params.get("kernel_size", 7), params.get("pooling", "maxpool"))
    on_top = case.reference == "Zefan-Cai/KVCache-Factory"
    return HeadKV("headkv", str(file), *knobs, params["beta"], params.get("temp", 1.0), on_top)


def numbers(case: Case, folder: Path) -> list[list[int]]:
    """Numbers of entries without the window, of a prompt that is longer than any of them."""
    params, method = case.params, method_of(case, folder)
    budget = params.get("base_capacity", params.get("max_capacity_prompts"))
    heads = params["num_attention_heads"]
    shape = Shape(10**9, params["num_hidden_layers"], heads, heads, heads, method.window)
    return [[count - method.window for count in layer] for layer in method.allocation.counts(budget, shape, ())]


def compare_numbers(case: Case, folder: Path) -> None:
    found = numbers(case, folder)
    assert found == case.expect["budgets"]
    assert sum(map(sum, found)) == case.expect["total"]


def compare_kept(case: Case, folder: Path) -> None:
    method, selection, layers = method_of(case, folder), selection_of(case), states(case)
    assert numbers(case, folder)[case.params["layer_idx"]] == case.expect["budgets_layer"]
    found = kept(method, case.params["base_capacity"], layers, selection)
    assert [len(head) for head in found[0]] == case.expect["head_lens"]
    assert_kept(case, found, [case.expect["kept_sorted"]])
    order = order_of(method.scorer, layers[0], selection)
    assert_near(order.scores / method.window, case.array("scores").reshape(order.scores.shape))  # theirs are means


def synthetic(case: Case) -> bool:
    """Whether its scores are in the golden data; else they are a file of KVCache-Factory, which is not there."""
    return "score_set" in case.params


@over("headkv", lambda case: synthetic(case) and "T" not in case.params)
def test_numbers_of_entries_equal_the_references(case: Case, tmp_path: Path) -> None:
    compare_numbers(case, tmp_path)


@over("headkv", lambda case: "T" in case.params)
def test_entries_and_scores_equal_the_references(case: Case, tmp_path: Path) -> None:
    compare_kept(case, tmp_path)


# --- formulas that are wrong on purpose

WRONG = {
    "rounded up": Wrong(HeadScores, "counts", "np.rint(np.array(shares)", "np.ceil(np.array(shares)"),
    "true division by beta": Wrong(HeadScores, "counts", "base // self.beta", "base / self.beta"),
    "window on top": Wrong(HeadScores, "counts", "if self.window_on_top", "if not self.window_on_top"),
    "shares of layers": Wrong(HeadScores, "counts", "shape.layers * shape.heads", "shape.heads"),
}


@pytest.mark.slow
@wrong_formulas
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    WRONG[wrong].put(monkeypatch)
    among = [case for case in cases("whole", "headkv") if synthetic(case)]
    assert unequal(lambda case: (compare_kept if "T" in case.params else compare_numbers)(case, tmp_path), among)
