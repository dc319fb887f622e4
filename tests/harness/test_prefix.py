"""A prompt that is prefilled in pieces, or goes on from another's beginning, keeps and generates what it does alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.decode import Row, decode
from harness.engine import EngineSettings, shared_tokens
from harness.prefill import Prefilled, extend, prefill
from harness.schema import Selection
from tests.conftest import Command
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


@pytest.mark.parametrize(
    ("settings_", "done", "tokens", "shared", "stops"),
    [
        ({}, 0, 20_000, 500, ()),
        ({"prefill_chunk": "auto"}, 0, 20_000, 500, (8192, 16384)),
        ({"prefill_chunk": 100}, 150, 400, 0, (250, 350)),
        ({"prefill_chunk": 100}, 0, 100, 0, ()),
        ({"reuse_prefix": True}, 0, 400, 300, (300,)),
        ({"reuse_prefix": True}, 250, 400, 300, ()),
        ({"reuse_prefix": True}, 0, 300, 300, ()),
        ({"reuse_prefix": True, "prefill_chunk": 128}, 0, 400, 300, (128, 256, 300, 384)),
    ],
)
def test_prefill_pauses_where_a_piece_or_a_shared_beginning_ends(
    settings_: dict[str, object], done: int, tokens: int, shared: int, stops: tuple[int, ...]
) -> None:
    engine = EngineSettings(**{"width": 1, "exact": False, "prefill_chunk": None, "reuse_prefix": False, **settings_})  # type: ignore[arg-type]
    assert engine.stops(done, tokens, shared) == stops


def test_shared_tokens_are_the_common_beginnings_of_neighbours() -> None:
    prompts = [np.array(ids, dtype="<i4") for ids in ([1, 2, 3], [1, 2, 4, 5], [1, 2, 4], [9])]
    assert shared_tokens(prompts) == [2, 3, 0, 0]
    assert shared_tokens([]) == []


def records(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    return {
        cell.parent.name: [
            (r["example_id"], r["tokens"], r["kept_sha256"], r["scores"]) for r in map(json.loads, cell.read_text().splitlines())
        ]
        for cell in sorted(folder.glob("tiny/*/*/records.0.jsonl"))
    }


def test_needle_grid_prefills_its_haystack_once_and_changes_no_record(kvgauge: Command, tmp_path: Path) -> None:
    words = ("method=[fullkv,h2o,snapkv]", "budget=32", "task.lengths=[1000]", "task.depths=[0,50,75,100]", "engine.width=8")
    for name, setting in (("plain", "engine.exact=true"), ("reused", "engine.reuse_prefix=true"), ("pieces", "engine.prefill_chunk=100")):
        done = kvgauge(*words, setting, f"results_dir={tmp_path / name}")
        assert done.code == 0, done.err
        found = re.search(r"prefilled tokens: ([\d,]+) of ([\d,]+), the others shared", done.out)
        assert (found is not None) == (name == "reused")
        if found is not None:
            assert 1.2 * int(found[1].replace(",", "")) < int(found[2].replace(",", ""))
    assert len(records(tmp_path / "plain")) == 3
    assert records(tmp_path / "plain") == records(tmp_path / "reused") == records(tmp_path / "pieces")
