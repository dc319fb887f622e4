"""Methods whose score alone is new keep what kvpress keeps, and wrong formulas do not."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import harness.compression.leverage
import methods.compactor
import methods.leverage
import methods.non_causal
from harness.compression.budget import Budget
from harness.compression.leverage import chunk_attention, leverage_scores, sketch
from harness.compression.method import Method
from harness.compression.score_parts import LastQuery, WindowInBudget
from methods.cap import Cap, WeightedLeverage
from methods.compactor import Blended, Compactor
from methods.curdkv import CurDKV, SquaredNorms
from methods.expected_attention import ExpectedAttention, ExpectedWeights
from methods.keydiff import KeyDiff, UnlikeKeys
from methods.knorm import Knorm, SmallKeys
from methods.lagkv import LagDeviation, LagKV
from methods.leverage import KeyLeverage, Leverage
from methods.non_causal import ChunkAttention, NonCausal
from methods.observed_attention import ColumnMeans, ObservedAttention
from methods.pyramidkv_kvpress import PyramidKVKvpress, Slope
from methods.q_filters import QFilters
from methods.random import Drawn, Random
from methods.snapkv_kvpress import SnapKVKvpress
from methods.streamingllm import StreamingLLM
from methods.tova import Tova
from tests.methods.golden.kvpress import ROOTS, Case, arrays, cases, over, unequal
from tests.methods.golden.wrong import Wrong


def expected_attention(case: Case) -> Method:
    knobs = case.settings
    return ExpectedAttention(
        "m",
        knobs["n_sink"],
        knobs["n_future_positions"],
        knobs["use_covariance"],
        knobs["use_vnorm"],
        float(knobs["epsilon"]),
    )


def curdkv(case: Case) -> Method:
    knobs = case.settings
    block = knobs["local_window_size"] if knobs["use_local_approximation"] else None
    return CurDKV("m", knobs["num_sinks"], knobs["leverage_type"], block)


def compactor(case: Case) -> Method:
    knobs = case.settings
    return Compactor(
        "m",
        knobs["sink_size_start"],
        knobs["sink_size_end"],
        knobs["chunk_size"],
        knobs["sketch_dimension"],
        knobs["torch_manual_seed"],
        case.level,
    )


# The method of each press, by its settings.
METHODS: dict[str, Callable[[Case], Method]] = {
    "RandomPress": lambda case: Random("m", case.settings["seed"]),
    "KnormPress": lambda case: Knorm("m"),
    "KeyDiffPress": lambda case: KeyDiff("m"),
    "LagKVPress": lambda case: LagKV(
        "m", case.settings["n_sink"], case.settings["lag_size"], case.settings["cross_scoring"]
    ),
    "SnapKVPress": lambda case: SnapKVKvpress(
        "m", case.settings["window_size"], case.settings["kernel_size"], "avgpool"
    ),
    "TOVAPress": lambda case: Tova("m", True),
    "ExpectedAttentionPress": expected_attention,
    "CURPress": curdkv,
    "StreamingLLMPress": lambda case: StreamingLLM("m", case.settings["n_sink"], None),
    "ObservedAttentionPress": lambda case: ObservedAttention("m"),
    "PyramidKVPress": lambda case: PyramidKVKvpress(
        "m", case.settings["window_size"], case.settings["kernel_size"], "avgpool", case.settings["beta"]
    ),
    "NonCausalAttnPress": lambda case: NonCausal("m", case.settings["chunk_size"]),
    "LeverageScorePress": lambda case: Leverage(
        "m", case.settings["sketch_dimension"], case.settings["torch_manual_seed"]
    ),
    "CompactorPress": compactor,
    "CapPress": lambda case: Cap(
        "m",
        case.settings["n_sink"],
        case.settings["tau"],
        case.settings["n_future_positions"],
        case.settings["epsilon"],
    ),
}
VARIANTS = (
    *("random_s0", "random_s7", "knorm", "keydiff", "lagkv_128", "lagkv_32", "lagkv_16", "lagkv_32_cross"),
    *("snapkv", "snapkv_w8k7", "tova", "ea_e0", "ea_e1e-2", "ea_nocov", "ea_novnorm", "ea_nocov_novnorm"),
    *("cur", "cur_key", "cur_kvavg", "cur_global", "streaming_llm", "observed", "pyramid_w16", "pyramid_w8k7b4"),
    *("noncausal", "leverage", "compactor", "cap"),
)


def method_of(case: Case) -> Method:
    return METHODS[case.settings["press"]](case)


def budget_of(case: Case) -> int | Budget:
    """An absolute number; PyramidKV starts from the share itself."""
    if case.settings["press"] == "PyramidKVPress":
        return Budget("share", share=Fraction(1 - case.level))
    return case.budget


@over(*VARIANTS)
def test_kept_sets_are_those_of_kvpress(which: str, variant: str) -> None:
    assert unequal(cases(which, variant), method_of, budget_of) == {}


# --- a method with a file


@over("qfilter")
def test_q_filters_are_read_from_a_file(which: str, variant: str, tmp_path: Path) -> None:
    given = arrays(which, "given.npz")
    for model in ("gqa", "mha"):
        save_file({"q_filters": torch.from_numpy(given[f"qfilters_{model}"])}, tmp_path / f"{model}.safetensors")

    def filtered(case: Case) -> Method:
        return QFilters("m", str(tmp_path / f"{case.model}.safetensors"))

    assert unequal(cases(which, variant), filtered) == {}


def test_sketches_are_drawn_as_kvpress_draws_them() -> None:
    given = arrays("whole", "given.npz") if ROOTS["whole"].is_dir() else {}
    for name in [key for key in given if key.startswith("sketch")]:
        layers, kv_heads, head_dim, size = given[name].shape
        for layer in range(layers):
            drawn = sketch(5, layer, kv_heads, head_dim, size) * size**0.5
            torch.testing.assert_close(drawn, torch.from_numpy(given[name][layer]))


# --- formulas that are wrong on purpose

WRONG = {
    "other draws in each layer": (
        Wrong(Drawn, "score", "seed(self.seed)", "seed(self.seed + layer.index)"),
        "random_s7",
    ),
    "large keys": (Wrong(SmallKeys, "score", "-norms", "norms"), "knorm"),
    "anchor of keys that are not normalised": (
        Wrong(UnlikeKeys, "score", "functional.normalize(keys, dim=-1)", "keys"),
        "keydiff",
    ),
    "spans of the same partition": (Wrong(LagDeviation, "_deviations", "parts[:, 1:]", "parts[:, :-1]"), "lagkv_32"),
    "positions for ranks": (Wrong(LagDeviation, "score", ".argsort(dim=-1).argsort(", ".argsort("), "lagkv_128"),
    "window not forced": (
        Wrong(WindowInBudget, "smooth", "forced(scores, last=self.queries)", "scores"),
        "snapkv_w8k7",
    ),
    "pooled after the window was added": (
        Wrong(
            WindowInBudget,
            "score",
            "window_attention(layer, self.queries) / self.queries",
            "window_attention(layer, self.queries).sqrt()",
        ),
        "snapkv",
    ),
    "the largest head for the mean": (Wrong(LastQuery, "score", "mean(dim=0, keepdim=True)", "amax(0, True)"), "tova"),
    "sinks among the queries": (
        Wrong(ExpectedWeights, "score", "unrotated_queries(layer, self.sinks)", "unrotated_queries(layer, 0)"),
        "ea_nocov",
    ),
    "covariance not halved": (Wrong(ExpectedWeights, "score", "scaling**2 / 2", "scaling**2"), "ea_novnorm"),
    "covariance not turned": (
        Wrong(ExpectedWeights, "score", "rotation @ covariance @ rotation.T", "covariance"),
        "ea_e0",
    ),
    "epsilon after the product": (
        Wrong(
            ExpectedWeights,
            "smooth",
            "(scores + self.epsilon) * value_norms(layer, len(scores))",
            "scores * value_norms(layer, len(scores)) + self.epsilon",
        ),
        "ea_e1e-2",
    ),
    "sinks not forced": (
        Wrong(ExpectedWeights, "smooth", "forced(scores, first=self.sinks)", "scores"),
        "ea_nocov_novnorm",
    ),
    "norms for their squares": (Wrong(SquaredNorms, "_shares", "** 2", ""), "cur_key"),
    "no blocks": (Wrong(SquaredNorms, "_shares", "self.block is None", "True"), "cur"),
    "last block filled up with ones": (
        Wrong(
            SquaredNorms,
            "_shares",
            "(0, -tokens % self.block)",
            "(0, -tokens % self.block), value=float(squares.max())",
        ),
        "cur_key",
    ),
    "product for mean": (Wrong(SquaredNorms, "score", "(keys + values) / 2", "keys * values"), "cur_kvavg"),
    "sums for means": (
        Wrong(ColumnMeans, "score", "_means(column_sums(layer, 0, causal=True))", "column_sums(layer, 0, causal=True)"),
        "observed",
    ),
    "rounded down": (Wrong(Slope, "counts", "[round(", "[int("), "pyramid_w8k7b4"),
    "steps by the number of layers": (Wrong(Slope, "counts", "(layers - 1)", "layers"), "pyramid_w8k7b4"),
    "scaled logits": (
        Wrong(ChunkAttention, "score", "layer.queries.to", "(layer.queries * layer.scaling).to"),
        "noncausal",
    ),
    "filling masked out": (Wrong(chunk_attention, "chunk_attention", "-1e-9", "-1e9"), "noncausal"),
    "no value norms": (Wrong(ChunkAttention, "smooth", " * value_norms(layer, len(scores))", ""), "noncausal"),
    "keys after the rotary embedding": (
        Wrong(KeyLeverage, "score", "layer.unrotated(layer.keys.to(layer.score_dtype))", "layer.keys"),
        "leverage",
    ),
    "keys not centred": (
        Wrong(leverage_scores, "leverage_scores", "keys - keys.mean(dim=1, keepdim=True)", "keys"),
        "leverage",
    ),
    "leverage not standardised": (
        Wrong(
            Blended,
            "_leverage",
            "standardised(leverage_scores(keys, projection))",
            "leverage_scores(keys, projection)",
        ),
        "compactor",
    ),
    "leverage of the whole weight": (
        Wrong(Blended, "_with_leverage", "weight * for_heads", "1.0 * for_heads"),
        "compactor",
    ),
    "products for cosines": (
        Wrong(WeightedLeverage, "score", "functional.cosine_similarity(keys, mean, dim=-1)", "(keys * mean).sum(-1)"),
        "cap",
    ),
    "values not weighted in the sum": (
        Wrong(WeightedLeverage, "score", "(weights + self.epsilon)", "torch.ones_like(weights)"),
        "cap",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_formula_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, variant = WRONG[name]
    assert unequal(cases("part", variant), method_of, budget_of) == {}
    wrong.put(monkeypatch)
    for module in (methods.non_causal, methods.compactor, methods.leverage):  # the functions are imported there
        if wrong.name in vars(module):
            monkeypatch.setattr(module, wrong.name, getattr(harness.compression.leverage, wrong.name))
    found = unequal(cases("part", variant), method_of, budget_of)
    if not found and ROOTS["whole"].is_dir():
        found = unequal(cases("whole", variant), method_of, budget_of)
    assert found
