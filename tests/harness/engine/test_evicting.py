"""Eviction while decoding: rows are as if alone, budgets hold at every step, and nothing goes that need not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compression.budget import parse_budget
from harness.compression.eviction import attended, victims, without
from harness.compression.grid import Variant
from harness.compression.method import Method
from harness.compression.selection import Selection
from harness.engine import evicting as evicting_entries
from harness.engine.buckets import Bucket
from harness.engine.chosen import SharedBucket
from harness.engine.decode import Decoding as WideLoop
from harness.engine.decode import decode
from harness.engine.evicting import EvictingBucket
from harness.engine.model_spec import shape_of
from harness.engine.prefill import Prefilled, prefill
from harness.engine.rows import Limits, Row
from harness.errors import ConfigError
from harness.results import Cell
from methods.cake import CAKEDecode
from methods.decoding import Decoding
from methods.fullkv import FullKV
from methods.h2o_decode import H2ODecode
from methods.keydiff import KeyDiff
from methods.knorm import Knorm
from methods.r_kv import RKV
from methods.scissorhands_decode import ScissorhandsDecode
from methods.snapkv import SnapKV
from methods.streaming_llm_decode import StreamingLLMDecode
from methods.tova import Tova
from methods.tova_decode import TovaDecode
from tests.harness.tiny import NAME, prompt_of, tiny

NEW_TOKENS = 16
LIMITS = Limits(frozenset(), NEW_TOKENS)


def evicting(every: int = 1) -> dict[str, Method]:
    """Every method that evicts, and every knob that changes how it does."""
    return {
        "h2o": H2ODecode("h2o", 3, every, False),
        "h2o-rolling": H2ODecode("h2o", 3, every, True),
        "tova": TovaDecode("tova", every),
        "streaming": StreamingLLMDecode("streaming", 2, every, True),
        "streaming-own-positions": StreamingLLMDecode("streaming", 2, every, False),
        "scissorhands": ScissorhandsDecode("scissorhands", 3, 2, 4, 0.5, every),
        "r_kv": RKV("r_kv", 3, 3, 0.3, "last", 4 * every),
        "cake": CAKEDecode("cake", 3, 200.0, 3, 1.0, 1.0, True, every),
        "knorm": Decoding("knorm", Knorm("knorm"), 3 * every, None, None, None, "positions"),
        "snapkv": Decoding("snapkv", SnapKV("snapkv", 3, 3, "maxpool"), 2 * every, None, None, None, "positions"),
        "snapkv-kvpress": Decoding("s", SnapKV("s", 3, 3, "maxpool"), 2 * every, None, KeyDiff("k"), 0.5, "kvpress"),
        "tova-ratio": Decoding("tova", Tova("tova", True), 4 * every, 0.5, None, None, "positions"),
    }


def selection(granularity: Literal["query_head", "kv_head"]) -> Selection:
    return Selection(granularity, "mean", "stable", "float32", "context")


def prefilled(method: Method, budget: int, prompt: Sequence[int], chosen: Selection) -> Prefilled:
    model = tiny()
    variant = Variant(Cell(method.label, str(budget)), method, parse_budget(budget))
    return prefill(model, NAME, prompt, [variant.plan(shape_of(model.config, len(prompt), chosen))], chosen)


def row_of(done: Prefilled, prompt: Sequence[int], question: Sequence[int] = ()) -> Row:
    (kept,) = done.kept
    return Row(len(prompt) + len(question), done.logits, list(kept.layers), None, tuple(question))


@settings(max_examples=4, deadline=None)
@given(st.data())
def test_rows_that_evict_in_a_wide_batch_are_the_rows_decoded_alone(data: st.DataObject) -> None:
    chosen = selection(data.draw(st.sampled_from(["query_head", "kv_head"])))
    methods = {**evicting(data.draw(st.sampled_from([1, 3]))), "fullkv": FullKV("fullkv")}
    made = []
    for _ in range(data.draw(st.integers(2, 4))):
        prompt = prompt_of(data.draw(st.sampled_from([1, 9, 20, 31])), data.draw(st.integers(0, 2)))
        question = prompt_of(data.draw(st.sampled_from([0, 1, 6])), 7)
        method = methods[data.draw(st.sampled_from(sorted(methods)))]
        budget = data.draw(st.sampled_from([6, 12, 40]))
        made.append((prefilled(method, budget, prompt, chosen), prompt, question))
    rows = [partial(row_of, *one) for one in made]
    wide = decode(tiny(), NAME, [make() for make in rows], LIMITS)
    late = data.draw(st.integers(0, len(rows) - 1))
    loop = WideLoop(tiny(), NAME, LIMITS)
    numbers = [*loop.add([make() for make in rows[:late]])] if late else []
    for _ in range(3):
        if loop.alive:
            loop.step()
    numbers += loop.add([make() for make in rows[late:]])
    while loop.alive:
        loop.step()
    joined = loop.take()
    for place, make in enumerate(rows):
        (alone,) = decode(tiny(), NAME, [make()], LIMITS)
        assert wide[place] == alone == joined[numbers[place]]


@pytest.mark.parametrize("name", evicting())
@pytest.mark.parametrize("question", [0, 5])
def test_budgets_are_obeyed_at_every_step_and_slots_are_used_again(name: str, question: int) -> None:
    method, prompt, budget = evicting()[name], prompt_of(30), 12
    done = prefilled(method, budget, prompt, selection("query_head"))
    loop = WideLoop(tiny(), NAME, LIMITS)
    loop.add([row_of(done, prompt, prompt_of(question, 3))])
    (kept,) = done.kept
    assert kept.eviction is not None
    of_layers = [
        attended(kept.eviction.evictor, own, entries, len(prompt), question, NEW_TOKENS - 1)
        for own, entries in zip(kept.eviction.budgets, kept.entries, strict=True)
        if isinstance(entries, int)
    ]
    buckets = [layer[0] for layer in loop._cache._layers]
    for step in range(NEW_TOKENS - 2):  # with the last step the row leaves
        loop.step()
        call = step + (question > 0)
        for bucket, (before, after), own in zip(buckets, of_layers, kept.eviction.budgets, strict=True):
            assert isinstance(bucket, EvictingBucket)
            held = bucket.schedule.held
            assert held == after[call]
            positions = bucket.positions[0, :, :held].sort(-1).values
            assert (positions.diff(dim=-1) > 0).all(), "an entry is there twice"
            assert positions.amax() <= len(prompt) + question + step
            if method.uses_budget and getattr(method, "evict_every", 9) == 1:
                assert after[call] <= own and before[call] <= own + max(1, question)
            assert bucket.keys.shape[2] <= max(before), "the cache grew with the answer"
    if name == "cake":
        assert sum(kept.eviction.budgets) == budget * len(buckets)


@pytest.mark.parametrize("question", [0, 4])
def test_rows_that_keep_a_whole_prompt_as_long_as_they_stay_hold_no_copies_of_it(
    question: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each budget of ``decoding`` keeps the prompt until it first evicts."""
    prompts, chosen, asked = [prompt_of(30), prompt_of(30, 1)], selection("kv_head"), prompt_of(question, 3)
    shape = shape_of(tiny().config, 30, chosen)

    def rows(every: int, share: float | None = None) -> list[Row]:
        method = Decoding("d", KeyDiff("k"), every, None, None, share, "positions")
        plans = [Variant(Cell("d", str(budget)), method, parse_budget(budget)).plan(shape) for budget in (8, 12, 16)]
        done = [prefill(tiny(), NAME, prompt, plans, chosen) for prompt in prompts]
        return [
            Row(30 + question, one.logits, list(kept.layers), None, tuple(asked)) for one in done for kept in one.kept
        ]

    def buckets(made: list[Row]) -> list[Bucket]:
        loop = WideLoop(tiny(), NAME, LIMITS)
        loop.add(made)
        loop.step()
        return loop._cache._layers[0]

    calls = NEW_TOKENS - 1 + (question > 0)
    size = rows(calls)[0].layers[0].bytes
    monkeypatch.setattr(evicting_entries, "_LONG_BYTES", size)
    shared = [bucket for bucket in buckets(rows(calls + 1)) if isinstance(bucket, SharedBucket)]
    assert len(shared) == 6 and len({bucket.chosen[0].keys.data_ptr() for bucket in shared}) == 2
    for made in (rows(calls), rows(calls + 1, 0.5)):  # the last step evicts; or less than the prompt is kept
        assert all(isinstance(bucket, EvictingBucket) for bucket in buckets(made))
    with pytest.raises(ConfigError, match="a conversation goes on with entries as the model made them"):
        shared[0].taken(0)
    said = decode(tiny(), NAME, rows(calls + 1), LIMITS)
    assert [decode(tiny(), NAME, [row], LIMITS)[0] for row in rows(calls + 1)] == said
    with monkeypatch.context() as patch:
        patch.setattr(evicting_entries, "_LONG_BYTES", size + 1)
        assert all(isinstance(bucket, EvictingBucket) for bucket in buckets(rows(calls + 1)))
    monkeypatch.setattr(evicting_entries, "can_share", lambda _: False)
    assert all(isinstance(bucket, EvictingBucket) for bucket in buckets(rows(calls + 1)))
    assert decode(tiny(), NAME, rows(calls + 1), LIMITS) == said


@pytest.mark.parametrize("name", sorted(set(evicting()) - {"tova-ratio", "snapkv-kvpress"}))
def test_a_budget_that_is_never_reached_gives_the_full_cache_token_for_token(name: str) -> None:
    prompt, chosen = prompt_of(20), selection("kv_head")
    budget = len(prompt) + NEW_TOKENS
    rows = [row_of(prefilled(method, budget, prompt, chosen), prompt) for method in (evicting()[name], FullKV("f"))]
    mine, full = decode(tiny(), NAME, rows, LIMITS)
    assert mine == full


def test_methods_that_keep_the_same_of_a_prompt_and_evict_otherwise_are_not_aliases() -> None:
    prompt, chosen = prompt_of(8), selection("query_head")
    methods = [*evicting().values(), *evicting(2).values(), FullKV("full")]
    kept = [prefilled(method, 8, prompt, chosen).kept[0] for method in methods]
    distinct = {repr((m.evictor, 0 if m.evictor is None else plan_of(m))) for m in methods}
    assert len({one.sha256 for one in kept}) == len(distinct)
    again = [prefilled(method, 8, prompt, chosen).kept[0].sha256 for method in methods]
    assert again == [one.sha256 for one in kept]


def plan_of(method: Method) -> object:
    shape = shape_of(tiny().config, 8, selection("query_head"))
    return Variant(Cell(method.label, "8"), method, parse_budget(8)).plan(shape)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 10**6), st.booleans())
def test_what_stays_lies_without_a_gap_and_is_what_scores_best(stay: int, count: int, seed: int, ties: bool) -> None:
    entries, generator = stay + max(1, count), torch.Generator().manual_seed(seed)
    scores = torch.rand(2, 3, entries, generator=generator)
    scores = (scores * 3).round() if ties else scores
    positions = torch.stack([torch.randperm(entries, generator=generator) for _ in range(6)]).view(2, 3, entries)
    dropped = victims(scores, positions, entries - stay)
    values = positions.clone()
    source, place = without(dropped, entries)
    values.scatter_(-1, place, values.gather(-1, source))
    for row in range(2):
        for head in range(3):
            ranked = sorted(range(entries), key=lambda e: (-scores[row, head, e], positions[row, head, e]))
            best = sorted(int(positions[row, head, entry]) for entry in ranked[:stay])
            assert sorted(values[row, head, :stay].tolist()) == best


def test_tensor_parallelism_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.engine import keeping, tensor_parallel

    monkeypatch.setattr(tensor_parallel, "count", lambda: 2)
    with pytest.raises(ConfigError, match="eviction while decoding needs all heads in one process"):
        keeping.Keeping([plan_of(evicting()["h2o"])], selection("query_head"))


def test_rows_that_begin_with_the_whole_prompt_share_its_entries_until_they_decode() -> None:
    model, chosen, prompt, method = tiny(), selection("kv_head"), prompt_of(30), evicting()["knorm"]
    variants = [Variant(Cell("knorm", str(budget)), method, parse_budget(budget)) for budget in (8, 16)]
    plans = [variant.plan(shape_of(model.config, len(prompt), chosen)) for variant in variants]
    first, second = prefill(model, NAME, prompt, plans, chosen).kept
    for one, other in zip(first.layers, second.layers, strict=True):
        assert one.keys.data_ptr() == other.keys.data_ptr() and one.values.data_ptr() == other.values.data_ptr()
