"""DefensiveKV and its layer form equal their authors' code."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from harness.compression.selection import Selection
from methods.defensivekv import BestOfAll, DefensiveKV, WorstCase
from tests.methods.golden.papers import (
    Case,
    assert_kept,
    assert_near,
    cases,
    kept,
    over,
    shape_of,
    states,
    unequal,
    wrong_formulas,
)
from tests.methods.golden.wrong import Wrong

SELECTION = Selection("kv_head", "mean", "stable", "float32")


def is_defensive(case: Case) -> bool:
    """Whether it is one of DefensiveKV; those of CriticalKV are in the same file."""
    return "defensivekv" in case.id.partition("/")[0]


def compare(case: Case) -> None:
    params, layers = case.params, states(case)
    across = "layers" if case.id.startswith("layer") else "heads"
    method = DefensiveKV("defensivekv", params["window_size"], params["kernel_size"], 0.9, across)
    share = 1 - Fraction(str(params["compression_ratio"]))
    found = kept(method, share, layers, SELECTION)
    assert [[len(head) for head in heads] for heads in found] == case.expect["head_lens"]
    assert_kept(case, found, case.expect["kept_sorted"])
    scorer = method.scorer_for(replace(shape_of(layers, SELECTION), share=share))
    for index, layer in enumerate(layers):
        assert_near(scorer.score(layer), case.array(f"scores{index}")[:, : params["T"] - method.window])


@over("critical_defensive", is_defensive)
def test_entries_and_scores_equal_the_references(case: Case) -> None:
    compare(case)


@over("critical_defensive", is_defensive)
def test_the_layer_keeps_no_more_than_its_allocation_plans(case: Case) -> None:
    layers = states(case)
    method = DefensiveKV("defensivekv", 8, 5, 0.9, "layers" if case.id.startswith("layer") else "heads")
    for budget in (9, 20, 40):
        found = kept(method, budget, layers, SELECTION)
        shape = shape_of(layers, SELECTION)
        total = sum(len(head) for heads in found for head in heads)
        assert total == budget * shape.cache_heads * len(layers)


# --- formulas that are wrong on purpose

WRONG = {
    "mean of the group": Wrong(WorstCase, "score", ".amax(1)", ".mean(1)"),
    "pooled weights not rescaled": Wrong(
        WorstCase,
        "score",
        "pooled * (rows.sum(-1, keepdim=True) / _above_zero(pooled.sum(-1, keepdim=True)))",
        "pooled",
    ),
    "no prior": Wrong(WorstCase, "score", "torch.maximum(worst, worst.mean(-1, keepdim=True))", "worst"),
    "values compared over tokens": Wrong(
        WorstCase, "score", "norms.sum(0, keepdim=True)", "norms.sum(1, keepdim=True)"
    ),
    "Euclidean norms of values": Wrong(WorstCase, "_norms", ".abs_().sum(-1)", ".norm(dim=-1)"),
    "no bias of the window": Wrong(WorstCase, "_safe", "self.safe_share - bias", "self.safe_share"),
    "safe without a limit": Wrong(WorstCase, "_safe", "within[:, self.most_safe :] = False", ""),
    "layers apart": Wrong(BestOfAll, "sees", '"layer" if self.across == "heads" else "layers"', '"layer"'),
}


@pytest.mark.slow
@wrong_formulas
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WRONG[wrong].put(monkeypatch)
    assert unequal(compare, [case for case in cases("whole", "critical_defensive") if is_defensive(case)])
