"""The models of the goldens compute what they computed under kvpress, and the comparison can tell sets apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.methods.golden import kvpress

TOLERANCE = 2e-5


@pytest.mark.parametrize("model", ["gqa", "mha"])
@pytest.mark.parametrize("tokens", [64, 150, 420])
def test_keys_and_values_of_every_layer_are_those_of_kvpress(model: str, tokens: int) -> None:
    anchor = kvpress.anchors("part")[f"{model}/{tokens}"]
    for state in kvpress.states(model, tokens):
        assert state.parts is not None
        for what, states in (("keys", state.keys), ("values", state.values)):
            wanted = anchor[f"{what}_last_head_last_token_first8"][state.index]
            np.testing.assert_allclose(states[-1, -1, :8].numpy(), wanted, atol=TOLERANCE)


def test_a_set_is_equal_or_a_tie_or_wrong() -> None:
    case = kvpress.cases("part", "knorm")[0]
    first, last = np.flatnonzero(case.kept[0, 0])[[0, -1]]
    dropped = np.flatnonzero(~case.kept[0, 0])[0]
    swapped = case.kept.copy()
    swapped[0, 0, [last, dropped]] = False, True
    tied = np.zeros_like(case.kept)
    tied[0, 0, [last, dropped]] = True
    assert kvpress.verdict(case, case.kept.copy()) == "equal"
    assert kvpress.verdict(case, swapped).startswith("1 of ")
    assert kvpress.verdict(replace(case, tie="near", tied=tied), swapped) == "tie"
    tied[0, 0, last] = False
    assert "not all of them in the tie" in kvpress.verdict(replace(case, tie="near", tied=tied), swapped)
    fewer = case.kept.copy()
    fewer[0, 0, first] = False
    assert "other numbers" in kvpress.verdict(replace(case, tie="near", tied=None), fewer)
