"""Methods whose score alone is new keep what kvpress keeps, and wrong formulas do not."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from harness.compression.budget import Budget
from harness.compression.method import Method
from methods.cap import Cap
from methods.compactor import Compactor
from methods.curdkv import CurDKV
from methods.expected_attention import ExpectedAttention
from methods.keydiff import KeyDiff
from methods.knorm import Knorm
from methods.lagkv import LagKV
from methods.leverage import Leverage
from methods.non_causal import NonCausal
from methods.observed_attention import ObservedAttention
from methods.pyramidkv_kvpress import PyramidKVKvpress
from methods.random import Random
from methods.snapkv_kvpress import SnapKVKvpress
from methods.streamingllm import StreamingLLM
from methods.tova import Tova
from tests.methods.golden.kvpress import Case, cases, over, unequal


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
