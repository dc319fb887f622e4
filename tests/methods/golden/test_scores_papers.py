"""TOVA, L2Norm, Scissorhands and NACL keep of a prompt what the code of their goldens keeps."""

from __future__ import annotations

import pytest
import torch

from harness.compression.method import LayerState, Method
from harness.compression.score_parts import LastQuery
from harness.compression.selection import Selection
from methods.l2norm import L2Norm, SmallestKeys, WholeFirstLayers
from methods.nacl import NACL, ProxyAttention
from methods.scissorhands import RecentAttention, Scissorhands
from methods.tova import Tova
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

# Cases that nothing here can be: the file has them for the library's sake.
NOT_OF_A_PROMPT = {
    "update": "importance that decays from call to call while decoding, where nothing is evicted here",
    "Q12": "fewer queries than keys, with a protected position in the middle: no prompt is like that",
}
PER_HEAD = Selection("query_head", "mean", "stable", "float32")


def attended(case: Case) -> LayerState:
    """A layer whose attention is the recorded one: each key is a unit vector, each query the logarithms of its row."""
    attention = case.input("attn")[0]
    heads, rows, columns = attention.shape
    assert rows == columns
    keys = torch.eye(columns).expand(heads, -1, -1)
    return LayerState(attention.clamp(min=1e-30).log(), keys, keys, 0, 1, 1.0, torch.float32)


# --- TOVA: the first cut of the authors' cache


def compare_tova(case: Case) -> None:
    found = kept(Tova("m", False), case.params["cache_size"], states(case), PER_HEAD)
    positions = [int(position) for position in case.array("kept_pos")[0] if position >= 0]
    assert_kept(case, found, [[positions] * case.params["H"]])


@over("tova")
def test_tova_keeps_what_the_authors_cache_keeps_of_the_prompt(case: Case) -> None:
    compare_tova(case)


# --- L2Norm


def compare_l2norm(case: Case) -> None:
    spared = case.params["skip_layers"]
    assert spared == list(range(len(spared)))
    index = case.params["layer_idx"]
    layer = states(case)[0]
    # The layer's own place among the layers, each of which is this one.
    layers = [
        LayerState(layer.queries, layer.keys, layer.values, i, index + 1, 1.0, torch.float32) for i in range(index + 1)
    ]
    found = kept(L2Norm("m", len(spared)), case.params["max_capacity_prompt"], layers, selection_of(case))[-1:]
    assert_kept(case, found, [case.expect["kept_stored_order"]])


@over("scissor_nacl_l2norm", lambda case: case.id.startswith("l2norm"))
def test_l2norm_keeps_the_smallest_keys_and_all_of_the_first_layers(case: Case) -> None:
    compare_l2norm(case)


# --- Scissorhands and NACL: functions of an attention matrix


def scissorhands(case: Case) -> Method:
    knobs = case.params
    return Scissorhands("m", knobs["recent_size"], knobs["sink_size"], knobs["history_window"])


def nacl(case: Case) -> Method:
    knobs = case.params
    return NACL("m", knobs["proxy_mode"], knobs["proxy_size"], knobs["sink_size"], 0.0, 1.0, 0)


def whole_prompt(case: Case) -> bool:
    return not any(part in case.id for part in NOT_OF_A_PROMPT)


def compare_scissorhands(case: Case) -> None:
    layer, method = attended(case), scissorhands(case)
    assert method.scorer is not None
    window = method.scorer.window
    assert_near(
        method.scorer.score(layer),
        case.array("scores")[..., : layer.keys.shape[1] - window].reshape(len(layer.keys), -1),
    )
    found = kept(method, case.params["token_budget"], [layer], PER_HEAD)
    if case.params["selection"] == "topk":
        assert_kept(case, found, [case.expect["kept_sorted"]])
        return
    # Sampled: the ends alone are certain.
    ends = set(range(case.params["sink_size"])) | set(range(layer.keys.shape[1] - window, layer.keys.shape[1]))
    for chosen, wanted in zip(found[0], case.expect["kept_sorted"], strict=True):
        assert ends <= set(chosen) & set(wanted)
        assert len(chosen) == len(wanted)


@over("scissor_nacl_l2norm", lambda case: case.id.startswith("scissorhands") and whole_prompt(case))
def test_scissorhands_keeps_its_ends_and_what_recent_queries_attend_to(case: Case) -> None:
    compare_scissorhands(case)


def compare_nacl(case: Case) -> None:
    layer, method = attended(case), nacl(case)
    assert method.scorer is not None
    assert_near(method.scorer.score(layer), case.array("scores").reshape(len(layer.keys), -1))
    found = kept(method, case.params["token_budget"], [layer], PER_HEAD)
    if case.params["random_budget"] == 0:
        assert_kept(case, found, [case.expect["kept_sorted"]])
        return
    proxies = set(case.expect["proxy_indices"])
    sure = case.params["token_budget"] - case.params["random_budget"]
    best = kept(method, max(sure, 1), [layer], PER_HEAD)
    for chosen, wanted in zip(best[0], case.expect["kept_sorted"], strict=True):
        assert proxies <= set(wanted)
        if sure >= len(proxies):
            assert set(chosen) <= set(wanted), "what chance leaves certain"


@over("scissor_nacl_l2norm", lambda case: case.id.startswith("nacl") and whole_prompt(case))
def test_nacl_keeps_its_proxies_and_what_they_attend_to(case: Case) -> None:
    compare_nacl(case)


def test_a_part_of_nacl_is_drawn_by_its_scores() -> None:
    layer = LayerState(
        *(torch.randn(2, 200, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)),
        0,
        1,
        1.0,
        torch.float32,
    )
    none, half, other = (
        kept(NACL("m", "suffix", 4, 0, drawn, 1.0, seed), 60, [layer], PER_HEAD)[0]
        for drawn, seed in ((0.0, 0), (0.5, 0), (0.5, 1))
    )
    for sure, drawn, again in zip(none, half, other, strict=True):
        assert len(sure) == len(drawn) == len(again) == 60
        assert set(range(196, 200)) <= set(drawn) & set(again)
        assert 30 <= len(set(sure) & set(drawn)) < 60
        assert drawn != again


# --- formulas that are wrong on purpose

WRONG = {
    "the last token forced": (Wrong(LastQuery, "smooth", "if self.keep_last", "if True"), compare_tova, "tova"),
    "the largest head": (Wrong(LastQuery, "score", "mean(dim=0, keepdim=True)", "amax(0, True)"), compare_tova, "tova"),
    "the largest keys": (Wrong(SmallestKeys, "score", "-norms", "norms"), compare_l2norm, "l2norm"),
    "no layer spared": (Wrong(WholeFirstLayers, "counts", "layer < self.layers", "False"), compare_l2norm, "l2norm"),
    "all queries vote": (
        Wrong(RecentAttention, "score", "self.history is None", "True"),
        compare_scissorhands,
        "scissorhands",
    ),
    "first tokens not forced": (
        Wrong(RecentAttention, "smooth", "forced(scores, first=self.sinks)", "scores"),
        compare_scissorhands,
        "scissorhands",
    ),
    "proxies not forced": (
        Wrong(ProxyAttention, "smooth", "forced(scores, *self._ends(scores.shape[1]))", "scores"),
        compare_nacl,
        "nacl",
    ),
    "the last tokens alone vote": (Wrong(ProxyAttention, "score", "(0, first), ", "(0, 0), "), compare_nacl, "nacl"),
}


@wrong_formulas
@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_formula_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, compare, method = WRONG[name]
    file = "tova" if method == "tova" else "scissor_nacl_l2norm"
    among = [case for case in cases("whole", file) if case.id.startswith(method) and whole_prompt(case)]
    assert unequal(compare, among) == 0
    wrong.put(monkeypatch)
    assert unequal(compare, among) > 0
