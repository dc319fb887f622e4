"""SimLayerKV keeps what kvpress keeps."""

from __future__ import annotations

import pytest

from methods.simlayerkv import LazyLayers, SimLayerKV
from tests.methods.golden import kvpress
from tests.methods.golden.papers import wrong_formulas
from tests.methods.golden.wrong import Wrong


def unequal(which: str, variant: str) -> dict[str, str]:
    def method(case: kvpress.Case) -> SimLayerKV:
        settings = case.settings
        return SimLayerKV("s", case.level, settings["n_initial"], settings["n_recent"], settings["n_last"])

    return kvpress.unequal(kvpress.cases(which, variant), method, lambda case: case.tokens)


@kvpress.over("simlayer")
def test_entries_equal_kvpress(which: str, variant: str) -> None:
    assert unequal(which, variant) == {}


def test_a_threshold_of_1_is_off() -> None:
    def method(case: kvpress.Case) -> SimLayerKV:
        return SimLayerKV("s", 1.0, 4, 32, 1)

    chosen = kvpress.cases("part", "simlayer")
    assert all(case.id for case in chosen)
    shape = kvpress.shape_of("gqa", 64)
    lazy = method(chosen[0]).allocation
    states = kvpress.states("gqa", 64)
    assert all(lazy.summary(state) <= 1 for state in states)
    (plan,) = [kvpress.plan_of(method(chosen[0]), 64, "gqa", 64)]
    assert kvpress.kept([plan], "gqa", 64)[0].all()
    assert lazy.total(64, shape) == 64 * shape.layers * shape.cache_heads


# --- formulas that are wrong on purpose

WRONG = {
    "the most attentive head decides": Wrong(LazyLayers, "summary", ".mean(0)", ".amax(0)"),
    "first tokens left out": Wrong(LazyLayers, "summary", "attention[: self.sinks].sum() + ", ""),
    "all recent tokens kept": Wrong(LazyLayers, "counts", "self.recent - self.queries]", "self.recent]"),
    "lazy below the threshold": Wrong(
        LazyLayers, "counts", "layer.summary <= self.threshold", "layer.summary > self.threshold"
    ),
}


@pytest.mark.slow
@wrong_formulas
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WRONG[wrong].put(monkeypatch)
    assert unequal("whole", "simlayer")
