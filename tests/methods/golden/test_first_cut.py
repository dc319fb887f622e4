"""H2O and StreamingLLM cut a prompt as the authors' caches do when it has been read; what follows is decoding.

Compared is the first of the recorded states of each case: that after the prompt. The later ones belong to caches that
are cut again at every token.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from harness.compression.method import LayerState, rotated
from harness.compression.scorers import ColumnSums
from harness.errors import BudgetError
from methods.h2o import H2O
from methods.streamingllm import StreamingLLM
from tests.methods.golden.papers import (
    Case,
    assert_kept,
    cases,
    kept,
    over,
    selection_of,
    states,
    unequal,
    wrong_formulas,
)
from tests.methods.golden.wrong import Wrong


def positions(row: Tensor) -> list[int]:
    """Recorded positions without their padding."""
    return [int(position) for position in row.flatten() if position >= 0]


def turned(layer: LayerState, theta: float = 1e4) -> LayerState:
    """A layer whose recorded queries and keys are those before the rotary embedding."""
    tokens, size = layer.queries.shape[1:]
    angles = torch.outer(torch.arange(tokens).float(), theta ** -(torch.arange(0, size, 2) / size)).repeat(1, 2)
    cosines, sines = angles.cos(), angles.sin()
    return replace(layer, queries=rotated(layer.queries, cosines, sines), keys=rotated(layer.keys, cosines, sines))


def compare_h2o(case: Case) -> None:
    params, layers = case.params, states(case)
    if params["variant"] == "streaming":
        layers = [turned(layer) for layer in layers]
    found = kept(
        H2O("h2o", params["recent_size"], True), params["hh_size"] + params["recent_size"], layers, selection_of(case)
    )
    assert_kept(case, found, [[positions(row) for row in case.array("kept_pos")[0]]])


@over("h2o", lambda case: case.params["variant"] != "utils_hh mask" and case.params["hh_size"] > 0)
def test_h2o_keeps_what_the_authors_cache_keeps_of_the_prompt(case: Case) -> None:
    compare_h2o(case)


@over("h2o", lambda case: case.params.get("hh_size") == 0)
def test_h2o_without_heavy_hitters_is_refused_and_is_streamingllm_without_sinks(case: Case) -> None:
    recent, layers = case.params["recent_size"], states(case)
    with pytest.raises(BudgetError):
        kept(H2O("h2o", recent, True), recent, layers, selection_of(case))
    found = kept(StreamingLLM("streamingllm", 0, None), recent, layers, selection_of(case))
    assert_kept(case, found, [[positions(row) for row in case.array("kept_pos")[0]]])


@over("h2o", lambda case: case.params["variant"] == "utils_hh mask")
def test_h2o_as_a_mask_is_another_method(case: Case) -> None:
    # Its cache stays full. Budgets are shares of the prompt, and the token exactly `recent` back is in neither part.
    assert "kept_pos" not in case.data["arrays"]


def compare_streamingllm(case: Case) -> None:
    params, recorded = case.params, case.array("kept_pos")
    budget, selection = params["start_size"] + params["recent_size"], selection_of(case)
    method = StreamingLLM("streamingllm", params["start_size"], None)
    layers = states(case)
    expected = recorded[0]
    if params["flow"] == "token_by_token":
        expected = recorded[params["T"] - 1]  # the cut forgets nothing that a cut of the whole prompt would keep
    if params["flow"] == "evict_for_space":
        budget = params["T"]  # the first cut comes before the second call
    found = kept(method, budget, layers, selection)
    assert_kept(case, found, [[positions(expected)] * params["H"]])


@over("streamingllm")
def test_streamingllm_keeps_what_the_authors_cache_keeps_of_the_prompt(case: Case) -> None:
    compare_streamingllm(case)


@over(
    "streamingllm",
    lambda case: case.params["flow"] == "evict_for_space" and case.params["T"] > case.params["start_size"],
)
def test_streamingllm_keeps_what_is_left_before_a_second_call(case: Case) -> None:
    params, recorded = case.params, case.array("kept_pos")
    start, recent, coming = params["start_size"], params["recent_size"], params["num_coming"]
    if params["T"] + coming <= start + recent:
        return
    before_call = [position for position in positions(recorded[1]) if position < params["T"]]
    if coming >= recent:  # sinks alone are left, and a budget must be above them
        assert before_call == list(range(start))
        return
    method = StreamingLLM("streamingllm", start, None)
    found = kept(method, start + recent - coming, states(case), selection_of(case))
    assert_kept(case, found, [[before_call] * params["H"]])


# --- formulas that are wrong on purpose


@pytest.mark.slow
@wrong_formulas
def test_a_wrong_formula_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    Wrong(
        ColumnSums,
        "score",
        "column_sums(layer, self.window, self.causal)",
        "column_sums(layer, self.window, self.causal) / torch.arange(layer.keys.shape[1], self.window, -1)",
    ).put(monkeypatch)
    assert unequal(compare_h2o, [case for case in cases("whole", "h2o") if case.params["variant"] != "utils_hh mask"])
