"""Compactor's weight of leverage is the share that is dropped."""

from __future__ import annotations

import pytest
import torch

from methods.compactor import Blended, Compactor
from tests.methods.golden.kvpress import kept, plan_of, states


def compactor(blending: float | None) -> Compactor:
    return Compactor("m", 8, 4, 256, 48, 5, blending)


@pytest.mark.parametrize("budget", [40, 75, 140])
def test_without_a_weight_leverage_has_that_of_what_is_dropped(budget: int) -> None:
    plans = [plan_of(compactor(blending), budget, "gqa", 150) for blending in (None, 1 - budget / 150)]
    found, fixed = kept(plans, "gqa", 150)
    assert (found == fixed).all()


def test_a_weight_of_zero_is_attention_alone() -> None:
    layer = states("gqa", 64)[1]
    scorer = Blended(8, 4, 256, 48, 5, 0.0)
    raw = scorer.score(layer)
    assert torch.equal(raw[:, :8], torch.zeros(8, 8)) and torch.equal(raw[:, 60:], torch.zeros(8, 4))
    assert torch.equal(scorer.rerank(raw, layer, torch.ones(8)), raw)


def test_the_first_and_last_tokens_of_a_short_prompt_are_all_there_is() -> None:
    found = kept([plan_of(compactor(None), 3, "gqa", 64)], "gqa", 64)[0]
    assert (found.sum(-1) == 3).all()
