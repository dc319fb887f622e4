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

from harness.compression.scorers import ColumnAccumulator
from harness.compression.selection import Selection
from harness.engine import prefix
from harness.engine.decode import decode
from harness.engine.prefill import Prefilled, extend, prefill
from harness.engine.prefix import pauses
from harness.engine.rows import Limits, Row
from methods.h2o import H2O
from methods.observed_attention import ObservedAttention
from methods.vatp import VATP
from tests.conftest import Command
from tests.harness.tiny import HEADS, NAME, Cell, methods, prompt_of, selections, tiny

METHODS = methods()
EXACT = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def check_equal(model: torch.nn.Module, prompt: tuple[int, ...], whole: Prefilled, pieces: Prefilled) -> None:
    torch.testing.assert_close(whole.logits, pieces.logits, rtol=1e-5, atol=1e-6)
    assert whole.full_bytes == pieces.full_bytes
    assert [kept.sha256 for kept in whole.kept] == [kept.sha256 for kept in pieces.kept]
    found = []
    for done in (whole, pieces):
        rows = {kept.sha256: Row(len(prompt), done.logits, kept.layers) for kept in done.kept}
        found.append([outcome.tokens for outcome in decode(model, NAME, list(rows.values()), Limits(frozenset(), 5))])  # type: ignore[arg-type]
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
    cached = HEADS if selection.granularity == "query_head" else kv_heads
    plans = [Cell(prompt, method, budget).plan(3, cached) for method in methods(window).values()]
    stops = data.draw(st.lists(st.integers(1, tokens - 1), min_size=1, max_size=4, unique=True))
    past = None
    for stop in sorted(stops):
        past = extend(model, NAME, prompt[:stop], plans, selection, past)
    check_equal(
        model,
        prompt,
        prefill(model, NAME, prompt, plans, selection),
        prefill(model, NAME, prompt, plans, selection, past),
    )


def test_a_beginning_is_held_for_all_that_go_on_from_it_also_where_some_share_a_few_tokens_more() -> None:
    beginning = (1,) * 100
    prompts = [np.asarray((*beginning, *rest), dtype="<i4") for rest in ((5, 6), (7, 8), (7, 9))]
    order = prefix.prefix_order(prompts)
    assert sorted(index for index, _ in order) == [0, 1, 2]
    assert [hold for _, hold in order] == [(100,), (100,), ()]


@pytest.mark.parametrize("shared", [1, 7, 40, 63])
def test_several_prompts_go_on_from_one_beginning(shared: int) -> None:
    model, selection = tiny(), Selection("query_head", "mean", "stable", "float32")
    first = prompt_of(64)
    beginning = first[:shared]
    past = None
    for prompt in (first, (*beginning, *prompt_of(30, seed=3)), (*beginning, 5)):
        plans = [Cell(prompt, method, 9).plan(3) for method in METHODS.values()]
        past = past or extend(model, NAME, beginning, plans, selection)
        check_equal(
            model,
            prompt,
            prefill(model, NAME, prompt, plans, selection),
            prefill(model, NAME, prompt, plans, selection, past),
        )


def test_plan_that_the_beginning_was_not_made_for_is_served_too() -> None:
    model, prompt, selection = tiny(), prompt_of(50), Selection("kv_head", "mean", "stable", "float32")
    past = extend(model, NAME, prompt[:30], [Cell(prompt, METHODS["snapkv"], 9).plan(3)], selection)
    plans = [Cell(prompt, METHODS["h2o"], 9).plan(3)]
    check_equal(
        model,
        prompt,
        prefill(model, NAME, prompt, plans, selection),
        prefill(model, NAME, prompt, plans, selection, past),
    )


@pytest.mark.parametrize(
    ("done", "tokens", "chunk", "held", "stops"),
    [
        (0, 20_000, None, (), ()),
        (0, 20_000, 8192, (), (8192, 16384)),
        (150, 400, 100, (), (250, 350)),
        (0, 100, 100, (), ()),
        (0, 400, None, (100, 300), (100, 300)),
        (100, 400, None, (100, 300), (300,)),
        (0, 300, None, (300,), ()),
        (0, 400, 128, (300,), (128, 256, 300, 384)),
    ],
)
def test_prefill_pauses_where_a_piece_or_a_held_beginning_ends(
    done: int, tokens: int, chunk: int | None, held: tuple[int, ...], stops: tuple[int, ...]
) -> None:
    assert pauses(done, tokens, chunk, held) == stops


@given(draws=st.data())
@EXACT
def test_no_token_of_a_common_beginning_is_prefilled_twice(draws: st.DataObject) -> None:
    prompts: list[list[int]] = []
    for place in range(draws.draw(st.integers(1, 10))):
        base = draws.draw(st.sampled_from(prompts)) if prompts else []
        beginning = base[: draws.draw(st.integers(0, max(0, len(base) - 1)))]
        prompts.append([*beginning, *draws.draw(st.lists(st.integers(0, 2), max_size=6)), 100 + place])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix, "_LEAST_SHARED_TOKENS", 1)
        order = prefix.prefix_order([np.array(prompt, dtype="<i4") for prompt in prompts])
    assert sorted(place for place, _ in order) == list(range(len(prompts)))
    held: list[list[int]] = []
    prefilled = 0
    for place, lengths in order:
        ids = prompts[place]
        held = [beginning for beginning in held if beginning == ids[: len(beginning)]]
        start = max(map(len, held), default=0)
        prefilled += len(ids) - start
        held = [ids[:length] for length in lengths]
    assert prefilled == len({tuple(prompt[:length]) for prompt in prompts for length in range(1, len(prompt) + 1)})


def test_needle_grid_is_walked_from_its_front_to_its_back_whatever_its_lengths() -> None:
    hay, needle = np.arange(1000, 3000), np.arange(100)
    grid = [(length, depth) for length in (500, 1000, 2000) for depth in (0, 50, 100)]
    prompts = []
    for length, depth in grid:
        point = length * depth // 100
        prompts.append(np.concatenate([hay[:point], needle, hay[point:length], [7]]).astype("<i4"))
    order = prefix.prefix_order(prompts)
    assert [(grid[place], held) for place, held in order] == [
        # At depth 0 a longer context begins with a shorter one, and so where the needle stands after as many tokens.
        ((500, 0), (600,)),
        ((1000, 0), (1100,)),
        ((2000, 0), ()),
        ((500, 50), (250,)),
        ((500, 100), (500, 600)),
        ((1000, 50), (500,)),
        ((2000, 100), (1000,)),
        ((1000, 100), (1100,)),
        ((2000, 50), ()),
    ]


def records(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    return {
        cell.parent.name: [
            (r["example_id"], r["tokens"], r["kept_sha256"], r["scores"])
            for r in map(json.loads, cell.read_text().splitlines())
        ]
        for cell in sorted(folder.glob("tiny/*/*/records.0.jsonl"))
    }


@pytest.mark.slow
def test_needle_grid_prefills_its_haystack_once_and_changes_no_record(kvgauge: Command, tmp_path: Path) -> None:
    words = (
        "method=[fullkv,h2o,snapkv]",
        "budget=32",
        "task.lengths=[1000]",
        "task.depths=[0,50,75,100]",
        "engine.width=8",
    )
    for name, setting in (
        ("plain", "engine.exact=true"),
        ("reused", "engine.reuse_prefix=true"),
        ("pieces", "engine.prefill_chunk=100"),
    ):
        done = kvgauge(*words, setting, f"results_dir={tmp_path / name}")
        assert done.code == 0, done.err
        found = re.search(r"prefilled tokens: ([\d,]+) of ([\d,]+), the others shared", done.out)
        assert (found is not None) == (name == "reused")
        if found is not None:
            assert 1.2 * int(found[1].replace(",", "")) < int(found[2].replace(",", ""))
    assert len(records(tmp_path / "plain")) == 3
    assert records(tmp_path / "plain") == records(tmp_path / "reused") == records(tmp_path / "pieces")


@pytest.mark.parametrize("stops", [(), (9, 30)])
def test_column_sums_are_read_once_for_all_methods_that_want_them(
    stops: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompt = tiny(2), prompt_of(60)
    selection = Selection("kv_head", "mean", "stable", "model")  # weights serve in their own dtype
    grid = [H2O("h2o", 4, True), VATP("vatp", 6, 2), ObservedAttention("observed_attention")]
    plans = [Cell(prompt, method, 20).plan(3, 2) for method in grid]
    read, blocks = ColumnAccumulator.read, []

    def counted(reader: ColumnAccumulator, weights: torch.Tensor) -> None:
        blocks.append(weights.shape)
        read(reader, weights)

    monkeypatch.setattr(ColumnAccumulator, "read", counted)
    past = None
    for stop in stops:
        past = extend(model, NAME, prompt[:stop], plans, selection, past)
    together = prefill(model, NAME, prompt, plans, selection, past)
    assert len(blocks) == 3 * (len(stops) + 1)  # one block in each of the three layers
    alone = [prefill(model, NAME, prompt, [plan], selection).kept[0] for plan in plans]
    assert [kept.sha256 for kept in together.kept] == [kept.sha256 for kept in alone]
