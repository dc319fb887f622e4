"""Settings of methods that evict while decoding: what cannot be is one line, and what was recorded is built again."""

from __future__ import annotations

from typing import Any

import pytest

from harness.compression.budget import parse_budget
from harness.compression.eviction import Evictor
from harness.compression.grid import make_grid
from harness.config.build import build, method_node
from harness.config.methods import build_methods
from harness.config.recorded import recorded_method
from harness.errors import ConfigError, KvgaugeError
from harness.run.prepare import method_settings

BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no interval": ("h2o_decode", {"evict_every": 0}, "evict_every=0 is not a whole number of 1 or more"),
    "half a token": ("tova_decode", {"evict_every": 1.5}, "evict_every=1.5 is not a whole number of 1 or more"),
    "never by null": ("streaming_llm_decode", {"evict_every": None}, "evict_every=None is not a whole number"),
    "no window": ("h2o_decode", {"window": 0}, "window=0 is not a whole number of 1 or more"),
    "a number for yes": ("h2o_decode", {"rolling": 1}, "rolling=1 is neither true nor false"),
    "sums that grow": ("scissorhands_decode", {"decay": 1.5}, "decay=1.5 is not a number"),
    "a share above 1": ("r_kv", {"mix": 2.0}, "mix=2.0 is not a number"),
    "an unknown end": ("r_kv", {"spared": "middle"}, "spared=middle is unknown: use last or first"),
    "queries that are gone": ("decoding", {"scorer": "h2o"}, "needs queries of all tokens, which are gone while"),
    "nothing to score": ("decoding", {"scorer": "fullkv"}, "scores no entry"),
    "twice": ("decoding", {"scorer": "tova_decode"}, "goes on while decoding, which would be lost"),
    "all is dropped": ("decoding", {"ratio": 1.0}, "ratio=1.0 is not a share from 0 to below 1"),
    "no prompt": ("decoding", {"prompt_share": 0.0}, "prompt_share=0.0 is not a share above 0, up to 1"),
    "nothing to choose": ("decoding", {"prompt": "knorm"}, "prompt_share=null keeps the whole prompt"),
    "a prompt that goes on": ("decoding", {"prompt": "r_kv", "prompt_share": 0.5}, "goes on while decoding"),
    "budgets of its own": ("decoding", {"prompt": "pyramidkv", "prompt_share": 0.5}, "has budgets or scores that"),
    "no such method": ("decoding", {"prompt": "snapvk", "prompt_share": 0.5}, "snapvk"),
    "no name": ("decoding", {"prompt": 5, "prompt_share": 0.5}, "prompt=5 names no method"),
    "an unknown reading": ("decoding", {"reading": "paper"}, "reading=paper is unknown: use positions or kvpress"),
    "lost around it": ("rerotated", {"scorer": "h2o_decode"}, "goes on while decoding, which would be lost"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_setting_that_cannot_be_is_one_line(name: str) -> None:
    method, knobs, says = BAD[name]
    with pytest.raises(KvgaugeError) as refused:
        build_methods({method: {**method_node(method, "method"), **knobs}})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "budget"), [("h2o_decode", 8), ("streaming_llm_decode", 4), ("scissorhands_decode", 12), ("r_kv", 8)]
)
def test_a_budget_that_leaves_nothing_to_evict_is_refused(name: str, budget: int) -> None:
    method = build(method_node(name, "method"))
    with pytest.raises(KvgaugeError, match=rf"^budget={budget} is not above .*: use budget>={budget + 1} or"):
        make_grid([method], [parse_budget(budget)])
    assert make_grid([method], [parse_budget(budget + 1)])


@pytest.mark.parametrize("prompt", [None, "knorm", {"snapkv": {"window": 16}}])
def test_a_method_with_two_inside_is_built_again_from_what_is_recorded(prompt: Any) -> None:
    node = {**method_node("decoding", "method"), "prompt": prompt, "prompt_share": None if prompt is None else 0.5}
    (method,) = build_methods({"decoding": node})
    known = {f"methods.{name}" for name in ("decoding.Decoding", "keydiff.KeyDiff", "knorm.Knorm", "snapkv.SnapKV")}
    assert recorded_method(method_settings(method), "decoding", known) == method
    if prompt is not None:
        assert isinstance(recorded_method(method_settings(method), "decoding", {"methods.decoding.Decoding"}), str)


def test_several_prompts_are_several_methods() -> None:
    node = {**method_node("decoding", "method"), "prompt": ["knorm", "keydiff"], "prompt_share": 0.5}
    assert [method.label for method in build_methods({"decoding": node})] == ["decoding_knorm", "decoding_keydiff"]


def test_an_evictor_checks_itself() -> None:
    with pytest.raises(ConfigError, match="evict_every=0"):
        Evictor(0)
