"""A prompt that is prefilled in pieces, or goes on from another's beginning, keeps and generates what it does alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.decode import Row, decode
from harness.prefill import Prefilled, extend, prefill
from harness.schema import Selection
from tests.harness.tiny import NAME, Cell, methods, prompt_of, selections, tiny

METHODS = methods()
EXACT = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def check_equal(model: torch.nn.Module, prompt: tuple[int, ...], whole: Prefilled, pieces: Prefilled) -> None:
    torch.testing.assert_close(whole.logits, pieces.logits, rtol=1e-5, atol=1e-6)
    assert whole.full_bytes == pieces.full_bytes
    assert [kept.sha256 for kept in whole.kept] == [kept.sha256 for kept in pieces.kept]
    found = []
    for done in (whole, pieces):
        rows = {kept.sha256: Row(len(prompt), done.logits, kept.layers) for kept in done.kept}
        found.append([outcome.tokens for outcome in decode(model, NAME, list(rows.values()), frozenset(), 5)])  # type: ignore[arg-type]
    assert found[0] == found[1]


@given(
    kv_heads=st.sampled_from([1, 2, 4]),
    tokens=st.integers(2, 60),
    window=st.integers(1, 8),
    selection=selections(),
    data=st.data(),
)
@EXACT
def test_prompt_in_pieces_keeps_and_generates_what_it_does_in_one(
    kv_heads: int, tokens: int, window: int, selection: Selection, data: st.DataObject
) -> None:
    model, prompt = tiny(kv_heads), prompt_of(tokens)
    budget = data.draw(st.integers(window + 1, tokens + 10))
    plans = [Cell(prompt, method, budget).plan(3) for method in methods(window).values()]
    stops = data.draw(st.lists(st.integers(1, tokens - 1), min_size=1, max_size=4, unique=True))
    past = None
    for stop in sorted(stops):
        past = extend(model, NAME, prompt[:stop], plans, selection, past)
    check_equal(model, prompt, prefill(model, NAME, prompt, plans, selection), prefill(model, NAME, prompt, plans, selection, past))


@pytest.mark.parametrize("shared", [1, 7, 40, 63])
def test_several_prompts_go_on_from_one_beginning(shared: int) -> None:
    model, selection = tiny(), Selection("query_head", "mean", "stable", "float32")
    first = prompt_of(64)
    beginning = first[:shared]
    past = None
    for prompt in (first, (*beginning, *prompt_of(30, seed=3)), (*beginning, 5)):
        plans = [Cell(prompt, method, 9).plan(3) for method in METHODS.values()]
        past = past or extend(model, NAME, beginning, plans, selection)
        check_equal(model, prompt, prefill(model, NAME, prompt, plans, selection), prefill(model, NAME, prompt, plans, selection, past))


def test_plan_that_the_beginning_was_not_made_for_is_served_too() -> None:
    model, prompt, selection = tiny(), prompt_of(50), Selection("kv_head", "mean", "stable", "float32")
    past = extend(model, NAME, prompt[:30], [Cell(prompt, METHODS["snapkv"], 9).plan(3)], selection)
    plans = [Cell(prompt, METHODS["h2o"], 9).plan(3)]
    check_equal(model, prompt, prefill(model, NAME, prompt, plans, selection), prefill(model, NAME, prompt, plans, selection, past))
