"""Kept keys that are turned to positions without gaps are kvpress's, and what follows stands right behind them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.compression.budget import parse_budgets
from harness.compression.grid import make_grid
from harness.compression.method import Method
from harness.compression.selection import Selection
from harness.engine.engine import Engine
from harness.engine.keeping import Keeping
from harness.engine.model_spec import shape_of
from harness.engine.rows import Limits
from harness.errors import ConfigError
from methods.adakv_kvpress import AdaKVKvpress
from methods.knorm import Knorm
from methods.rerotated import Rerotated
from methods.streamingllm import StreamingLLM
from tests.harness.tiny import NAME, Ragged, prompt_of, tiny
from tests.methods.golden import kvpress, test_wrappers
from tests.methods.golden.kvpress import SELECTION, Case, cases, over, plan_of, states, unequal


class Turned(Ragged):
    """Budgets per head, and keys turned to new positions."""

    @property
    def rerotates(self) -> bool:
        return True


def method_of(case: Case) -> Method:
    base = case.settings["base"]
    if base["press"] == "StreamingLLMPress":
        return Rerotated("m", StreamingLLM("streamingllm", base["n_sink"], None))
    return Rerotated("m", test_wrappers.base(base))


def keys_of(case: Case) -> torch.Tensor:
    """The first keys of the last head in the last layer."""
    plan = plan_of(method_of(case), case.budget, case.model, case.tokens)
    keeping = Keeping([plan], SELECTION)
    for state in states(case.model, case.tokens):
        keeping.take(state, {})
    assert plan.positions == case.budget
    return keeping.growing[plan].layers[-1].keys[-1]


@over("rerot_snapkv", "rerot_snapkv8", "rerot_streaming")
def test_kept_sets_and_turned_keys_are_those_of_kvpress(which: str, variant: str) -> None:
    chosen = cases(which, variant)
    assert unequal(chosen, method_of) == {}
    for case in chosen:
        assert case.rekeys is not None
        keys, count = keys_of(case).numpy(), min(len(case.rekeys), case.budget)
        # Where an arbitrary part of a window is kept, the keys are others, too.
        if kvpress.check([case], method_of)[case.id] == "equal":
            np.testing.assert_allclose(keys[:count], case.rekeys[:count], atol=2e-5)


def test_rows_that_are_turned_are_no_aliases_and_stand_right_behind_what_was_kept() -> None:
    methods = [Knorm("knorm"), Rerotated("rerotated", Knorm("knorm"))]
    grid, prompt = make_grid(methods, parse_budgets([20])), prompt_of(60)
    engine = Engine(tiny(), NAME)
    selection = Selection("kv_head", "mean", "stable", "float32", "context")
    plans = [variant.plan(shape_of(engine.model.config, 60, selection)) for variant in grid]
    plain, turned = engine.prefill(prompt, plans, selection).kept
    assert plain.sha256 != turned.sha256 and plain.entries == turned.entries
    assert (plain.first_new(60, 5), turned.first_new(60, 5)) == (65, 25)
    for one, other in zip(plain.layers, turned.layers, strict=True):
        assert one.values.equal(other.values) and not one.keys.equal(other.keys)
        torch.testing.assert_close(one.keys.norm(dim=-1), other.keys.norm(dim=-1))
    rows = engine.generate(prompt, plans, selection, Limits(frozenset(), 6), (1, 2, 3))
    assert rows[0].tokens != rows[1].tokens


def test_budgets_that_differ_by_head_have_no_position_for_what_follows() -> None:
    with pytest.raises(ConfigError, match="has budgets of its own"):
        Rerotated("m", AdaKVKvpress("a", Knorm("knorm"), 0.2))
    (variant,) = make_grid([Turned("m", 4, "layer")], parse_budgets([20]))
    with pytest.raises(ConfigError, match="turns kept keys to new positions") as error:
        variant.plan(shape_of(tiny().config, 60, SELECTION))
    assert "\n" not in str(error.value)
