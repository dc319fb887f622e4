"""FINCH keeps what kvpress keeps, in chunks and without, and wrong formulas do not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from harness.compression.budget import Budget
from harness.compression.method import Method
from harness.engine.keeping import Keeping
from methods.chunk import Chunk
from methods.finch import Finch, QuestionAttention
from tests.methods.golden import kvpress
from tests.methods.golden.kvpress import SELECTION, Case, cases, over, plan_of, states, unequal
from tests.methods.golden.wrong import Wrong


def method_of(case: Case) -> Method:
    knobs = case.settings
    chunk = knobs["chunk_length"]
    turned = knobs["rerotate_keys"] and chunk is None
    finch = Finch("m", knobs["window_from_delimiter"], knobs["normalize_scores"], turned)
    return finch if chunk is None else Chunk("c", finch, chunk)


def budget_of(case: Case) -> int | Budget:
    """A share for chunks, each of which has its own number of it."""
    return case.budget if case.settings["chunk_length"] is None else Budget("share", share=Fraction(1 - case.level))


@over("finch", "finch_nonorm", "finch_norerot", "finch_chunk200")
def test_finch_keeps_what_kvpress_keeps_and_turns_its_keys_alike(which: str, variant: str) -> None:
    chosen = cases(which, variant)
    assert unequal(chosen, method_of, budget_of) == {}
    for case in chosen:
        plan = plan_of(method_of(case), budget_of(case), case.model, case.tokens)
        if plan.positions is None or kvpress.check([case], method_of, budget_of)[case.id] != "equal":
            continue
        keeping = Keeping([plan], SELECTION)
        for state in states(case.model, case.tokens):
            keeping.take(state, {})
        keys, count = keeping.growing[plan].layers[-1].keys[-1].numpy(), min(6, case.budget)
        assert case.rekeys is not None
        np.testing.assert_allclose(keys[:count], case.rekeys[:count], atol=2e-5)


WRONG = {
    "not weighed by the position": (Wrong(QuestionAttention, "score", "if self.normalise", "if False"), "finch"),
    "weighed by the position": (Wrong(QuestionAttention, "score", "if self.normalise", "if True"), "finch_nonorm"),
    "the largest row for the mean": (Wrong(QuestionAttention, "score", "weights.mean(1)", "weights.amax(1)"), "finch"),
    "window not forced": (Wrong(QuestionAttention, "smooth", "forced(scores, last=self.queries)", "scores"), "finch"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_formula_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, variant = WRONG[name]
    wrong.put(monkeypatch)
    assert unequal(cases("part", variant), method_of, budget_of) != {}
