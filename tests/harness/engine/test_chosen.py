"""Rows that share their prompt's keys and values attend as rows with entries of their own do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.compression.eviction import Every, Eviction
from harness.compression.grid import Plan
from harness.compression.method import LayerState
from harness.compression.selection import Selection
from harness.compression.storage import Storage
from harness.engine import chosen, prompt_sharing
from harness.engine.buckets import Joining, LayerKV, PlainBucket
from harness.engine.cache import KVCache
from harness.engine.chosen import ChosenKV, SharedBucket
from harness.engine.decode import decode
from harness.engine.layer_forms import PLAIN, LayerForm
from harness.engine.prefill import prefill
from harness.engine.prompt_sharing import choosing
from harness.engine.rows import Limits, Row
from harness.kernels import Kernels
from harness.kernels.products import why_not_onednn
from methods.snapkv import SnapKV
from tests.harness.tiny import NAME, STABLE, prompt_of, tiny

DIM, KV_HEADS, COPIES, TOKENS = 8, 2, 3, 23


def sharing(plans: Sequence[Plan], state: LayerState, selection: Selection) -> set[Plan]:
    """The plans whose rows share the prompt while they decode."""
    return {plan for plan, shares in choosing(plans, state, selection).items() if shares}


@pytest.fixture(autouse=True, scope="module")
def any_processor() -> Iterator[None]:
    """What shares does not depend on the processor here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_sharing, "_COST", 0.05)
        patch.setattr(prompt_sharing, "_COST_BY_ONEDNN", 0.05)
        yield


def states(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def rows_of(draw: st.DrawFn, prompt: int, least: int = 4) -> list[ChosenKV]:
    """Rows of one prompt that keep anything: everything, equally many of each kv or query head, or any number."""
    keys, values = (states(TOKENS, KV_HEADS, DIM, seed=seed).transpose(0, 1) for seed in (prompt, 100 + prompt))
    found = []
    for _ in range(draw(st.integers(least, least + 3))):
        cached, kind = KV_HEADS * draw(st.sampled_from([1, COPIES])), draw(st.sampled_from(["all", "even", "ragged"]))
        counts = [draw(st.integers(1, TOKENS)) for _ in range(cached)]
        if kind == "even":
            counts = counts[:1] * cached
        each = [torch.tensor(sorted(draw(st.permutations(range(TOKENS)))[:count])) for count in counts]
        if kind == "all":
            found.append(ChosenKV(keys, values, None, None, prompt, COPIES))
        elif len(set(counts)) == 1:
            found.append(ChosenKV(keys, values, None, torch.stack(each).int(), prompt, COPIES))
        else:
            found.append(ChosenKV(keys, values, tuple(counts), torch.cat(each).int(), prompt, COPIES))
    return found


def cache_of(
    rows: Sequence[LayerKV], steps: int, shared: bool | None = None, question: int = 0, form: LayerForm = PLAIN
) -> KVCache:
    """A cache whose rows share their prompts or do not, or do where that pays."""
    cache = KVCache([form])
    with pytest.MonkeyPatch.context() as patch:
        if shared is not None:
            patch.setattr(chosen, "pays", lambda *_: shared)
        cache.add([[row] for row in rows], steps, question)
    return cache


def step(caches: Sequence[KVCache], rows: int, seed: int) -> list[Tensor]:
    new = [states(rows, heads, 1, DIM, seed=seed + heads) for heads in (KV_HEADS * COPIES, KV_HEADS, KV_HEADS)]
    found = []
    for cache in caches:
        cache.reserve()
        found.append(cache.attend(0, new[0], new[1], new[2], 0.3))
        cache.advance()
    return found


def kinds(cache: KVCache) -> list[str]:
    return [type(bucket).__name__ for bucket in cache._layers[0]]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_of_two_prompts_attend_as_with_entries_of_their_own_while_some_leave(data: st.DataObject) -> None:
    first = data.draw(rows_of(0))
    rows = [*first, *data.draw(rows_of(1))]
    ours, theirs = cache_of(rows, 4, True), cache_of(rows, 4, False)
    assert kinds(ours) == ["SharedBucket"] * 2 and set(kinds(theirs)) == {"PlainBucket"}
    for seed in range(2):
        torch.testing.assert_close(*step((ours, theirs), len(rows), seed), rtol=1e-9, atol=1e-9)
    staying = [row for row in range(len(rows)) if data.draw(st.booleans())] or [0]
    on, left = data.draw(st.booleans()), sum(row < len(first) for row in staying)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chosen, "pays", lambda *_: on)
        for cache in (ours, theirs):
            cache.keep(staying)
    if on:
        assert set(kinds(ours)) == {"SharedBucket"}
    elif 0 < left < len(first):
        assert kinds(ours)[0] == "PlainBucket"
    torch.testing.assert_close(*step((ours, theirs), len(staying), 7), rtol=1e-9, atol=1e-9)
    for row in range(len(staying)):
        (mine,), (their,) = ours.row(row), theirs.row(row)
        assert torch.equal(mine.keys, their.keys) and torch.equal(mine.values, their.values)
        assert mine.runs == their.runs


@settings(max_examples=40, deadline=None)
@given(rows_of(0), st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_a_question_runs_through_kept_entries_in_any_pieces_and_steps_follow_it(
    rows: list[ChosenKV], pieces: list[int]
) -> None:
    left = sum(pieces)
    ours, theirs = (cache_of(rows, 3, shared, left) for shared in (True, False))
    assert kinds(ours) == ["SharedBucket"]
    for tokens in pieces:
        new = [states(len(rows), heads, tokens, DIM, seed=left + heads) for heads in (KV_HEADS * COPIES, 2, KV_HEADS)]
        found, expected = (cache.attend_question(0, new[0], new[1], new[2], 0.3, left) for cache in (ours, theirs))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        left -= tokens
    for seed in range(2):
        torch.testing.assert_close(*step((ours, theirs), len(rows), seed), rtol=1e-9, atol=1e-9)
    for row in range(len(rows)):
        assert torch.equal(ours.row(row)[0].keys, theirs.row(row)[0].keys)


@settings(max_examples=20, deadline=None)
@given(rows_of(0))
def test_caps_and_sinks_are_those_of_the_layer(rows: list[ChosenKV]) -> None:
    form = LayerForm(softcap=2.0, sinks=states(KV_HEADS * COPIES, seed=5))
    ours, theirs = (cache_of(rows, 2, shared, form=form) for shared in (True, False))
    torch.testing.assert_close(*step((ours, theirs), len(rows), 0), rtol=1e-6, atol=1e-6)  # weights are float32 there


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_many_rows_are_computed_in_blocks_of_the_same_numbers(data: st.DataObject) -> None:
    rows = data.draw(rows_of(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chosen, "_BLOCK_BYTES", data.draw(st.sampled_from([1, 8 * COPIES * TOKENS * 3])))
        blocked = step([cache_of(rows, 2, True)], len(rows), 0)
    torch.testing.assert_close(blocked, step([cache_of(rows, 2, True)], len(rows), 0), rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(rows_of(0))
def test_bytes_are_those_of_kept_entries(rows: list[ChosenKV]) -> None:
    for row in rows:
        own = row.gathered()
        assert (row.bytes, row.numbers, row.runs) == (own.bytes, own.numbers, own.runs)


@dataclass(frozen=True)
class Packed(Storage):
    """A storage that is not the exact one."""


def even(prompt: int, count: int) -> ChosenKV:
    keys, values = (states(KV_HEADS, TOKENS, DIM, seed=seed) for seed in (prompt, prompt + 1))
    return ChosenKV(keys, values, None, torch.arange(count).int().expand(KV_HEADS, -1), prompt)


def test_few_rows_and_those_without_a_step_have_entries_of_their_own_and_neighbours_share_buckets() -> None:
    half, whole = TOKENS // 2, TOKENS
    assert kinds(cache_of([even(0, whole)], 2)) == kinds(cache_of([even(0, half)] * 2, 2)) == ["PlainBucket"]
    assert kinds(cache_of([even(0, whole)] * 2, 2)) == kinds(cache_of([even(0, half)] * 3, 2)) == ["SharedBucket"]
    asked = KVCache([PLAIN])
    asked.add([[even(0, count)] for count in (half, half, whole, whole, whole)], 0, question=3)
    assert [(type(bucket), bucket.rows) for bucket in asked._layers[0]] == [
        (PlainBucket, slice(0, 2)),
        (PlainBucket, slice(2, 5)),
    ]


KV, QUERY = (Selection(heads, "mean", "stable", "float32") for heads in ("kv_head", "query_head"))  # type: ignore[arg-type]


def layer(dtype: torch.dtype = torch.float64, **changes: Any) -> LayerState:
    keys = torch.zeros(KV_HEADS, TOKENS, DIM, dtype=dtype)
    return replace(LayerState(keys, keys, keys, 0, 1, 1.0, torch.float32), **changes)


def of(*counts: int) -> list[Plan]:
    return [Plan((count, count), None) for count in counts]


def test_plans_that_keep_much_and_leave_entries_as_they_are_share() -> None:
    plans, scarce = of(6, 10, 12, TOKENS), of(1, 2)  # less than a tenth of 23
    changed = [
        replace(plans[-1], rerotates=True),
        replace(plans[-1], storage=Packed("packed")),
        replace(plans[-1], eviction=Eviction(cast("Any", Every), (3, 3))),
    ]
    assert sharing([*plans, *scarce, *changed], layer(), KV) == set(plans)
    assert sharing([*plans, *scarce, *changed], layer(torch.float32), KV) == set(plans)
    ragged = Plan(((1, 9), (2, 8)), None)  # 5 on average
    assert ragged in sharing([*plans, ragged], layer(), KV)


def test_a_few_plans_or_some_that_keep_little_share_nothing() -> None:
    assert sharing(of(TOKENS), layer(), KV) == set()
    assert len(sharing(of(TOKENS, TOKENS - 1), layer(), KV)) == 2
    assert sharing(of(3, 4, 5, 6), layer(), KV) == set()
    assert len(sharing(of(*range(3, 12)), layer(), KV)) == 9
    assert sharing([], layer(), KV) == set()


def test_rows_are_choices_until_they_decode_if_they_keep_more_than_the_prompt_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = replace(of(12)[0], rerotates=True)
    as_many, more = of(1, 2, 3, 4, 6, 7), of(1, 2, 3, 4, 6, 8)  # 23 and 24 entries
    assert choosing([*as_many, changed], layer(), KV) == {}
    monkeypatch.setattr(prompt_sharing, "pays", lambda *_: False)
    assert choosing([*more, changed], layer(), KV) == dict.fromkeys(more, False)
    monkeypatch.undo()
    for other in (layer(torch.bfloat16), layer(softcap=5.0), layer(kernels="triton")):
        assert choosing(of(12, 20, TOKENS), other, KV) == dict.fromkeys(of(12, 20, TOKENS), False)
    queries = torch.zeros(KV_HEADS * COPIES, TOKENS, DIM, dtype=torch.float64)
    wide = [Plan((8, 8), SnapKV("snapkv", 1, 5, "maxpool").scorer)]
    assert choosing(wide, layer(queries=queries), KV) == {} != choosing(wide, layer(queries=queries), QUERY)
    assert choosing([Plan((TOKENS, TOKENS), None)], layer(queries=queries), QUERY) == {}


@settings(max_examples=30, deadline=None)
@given(rows_of(0), st.data())
def test_rows_that_have_entries_of_their_own_once_they_decode_attend_to_what_they_chose(
    rows: list[ChosenKV], data: st.DataObject
) -> None:
    shares = [data.draw(st.booleans()) for _ in rows]
    chosen_rows = [row if share else replace(row, prompt=None) for row, share in zip(rows, shares, strict=True)]
    order = sorted(range(len(rows)), key=lambda at: Row(0, torch.empty(0), [chosen_rows[at]]).kind)
    ours = cache_of([chosen_rows[at] for at in order], 2, True)
    theirs = cache_of([rows[at].gathered() for at in order], 2)
    assert kinds(ours).count("SharedBucket") == any(shares)
    assert ("PlainBucket" in kinds(ours)) == (not all(shares))
    for seed in range(2):
        torch.testing.assert_close(*step((ours, theirs), len(rows), seed), rtol=1e-9, atol=1e-9)


def test_rows_of_query_heads_read_more_and_pay_earlier_and_more_query_heads_of_a_kv_head_cost_more() -> None:
    queries = torch.zeros(KV_HEADS * COPIES, TOKENS, DIM, dtype=torch.float64)
    scorer = SnapKV("snapkv", 1, 5, "maxpool").scorer
    plans = [Plan((count, count), scorer) for count in range(1, TOKENS)]
    least = {
        (selection.granularity, of): min(plan.keep[0] for plan in sharing(plans, layer(queries=of_layer), selection))
        for selection in (KV, QUERY)
        for of, of_layer in ((1, queries[:KV_HEADS]), (COPIES, queries))
    }
    # More than a tenth of 23 entries, or a fifth with three query heads for each kv head, a third of it each.
    assert least == {("kv_head", 1): 3, ("kv_head", 3): 5, ("query_head", 1): 3, ("query_head", 3): 2}
    assert sharing([Plan((TOKENS, TOKENS), None)], layer(queries=queries), QUERY) == set()


def test_what_is_not_finite_does_not_reach_rows_that_dropped_it() -> None:
    rows = [even(0, TOKENS - 1) for _ in range(8)]
    rows[0].values[1, TOKENS - 1, 3] = torch.nan
    rows = [replace(row, keys=rows[0].keys, values=rows[0].values) for row in rows]
    cache = cache_of(rows, 2)
    assert kinds(cache) == ["PlainBucket"] and all(found.isfinite().all() for found in step([cache], 8, 0))


def test_room_for_steps_grows_and_rows_of_interleaved_prompts_have_a_bucket_for_each() -> None:
    rows = [ChosenKV(*(states(KV_HEADS, TOKENS, DIM, seed=seed) for seed in (p, p + 9)), None, None, p) for p in (0, 1)]
    prompts = [replace(rows[place % 2]) for place in range(8)]
    ordered = sorted(prompts, key=lambda row: Row(0, torch.empty(0), [row]).kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chosen, "FIRST_SPARE", 1)
        ours, theirs = cache_of(ordered, 5, True), cache_of(ordered, 5, False)
        assert kinds(ours) == ["SharedBucket"] * 2
        for seed in range(5):
            torch.testing.assert_close(*step((ours, theirs), 8, seed), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernels", ["torch", "onednn"])
def test_float32_rows_attend_alike_by_either_library(kernels: Kernels) -> None:
    if kernels == "onednn" and why_not_onednn(torch.device("cpu")):
        pytest.skip("this torch is without oneDNN")
    rows = [even(0, count) for count in (TOKENS, 20, 9, 3)]
    rows = [replace(row, keys=rows[0].keys.float(), values=rows[0].values.float(), kernels=kernels) for row in rows]
    new = [states(4, heads, 1, DIM, seed=heads).float() for heads in (KV_HEADS, KV_HEADS, KV_HEADS)]
    found = [cache_of(rows, 2, shared).attend(0, new[0], new[1], new[2], 0.3) for shared in (True, False)]
    torch.testing.assert_close(*found)


def test_a_prefill_lays_keys_and_values_head_by_head() -> None:
    done = prefill(tiny(), NAME, prompt_of(40), [Plan((count,) * 3, None) for count in (38, 39, 40)], STABLE)
    assert all(layer.keys.is_contiguous() and layer.values.is_contiguous() for layer in done.kept[0].layers)


def test_faster_products_pay_for_rows_that_keep_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_sharing, "_COST", 0.15)
    plans = of(*range(1, TOKENS))
    for kernels, least in (("onednn", 3), ("torch", 7)):
        assert min(plan.keep for plan in sharing(plans, layer(kernels=kernels), KV)) == (least, least)


def test_other_dtypes_kernels_and_softmaxes_share_nothing() -> None:
    plans = of(12, 20, TOKENS)
    assert sharing(plans, layer(), KV)
    for other in (layer(torch.bfloat16), layer(kernels="triton"), layer(softcap=5.0), layer(sinks=torch.zeros(2))):
        assert sharing(plans, other, KV) == set()


def test_what_a_prefill_keeps_is_chosen_and_says_what_it_says_by_itself() -> None:
    model, prompt, selection = tiny(), prompt_of(40), STABLE
    scorer = SnapKV("snapkv", 4, 5, "maxpool").scorer
    plans = [Plan((count,) * 3, scorer) for count in (6, 12, 20, 33)] + [Plan((40,) * 3, None)]
    done = prefill(model, NAME, prompt, plans, selection)
    assert all(isinstance(layer, ChosenKV) for kept in done.kept for layer in kept.layers)
    limits = Limits(frozenset(), 5)
    made: list[int] = []
    make = SharedBucket.of

    def noted(rows: Sequence[ChosenKV], joining: Joining) -> SharedBucket:
        made.append(len(rows))
        return make(rows, joining)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedBucket, "of", noted)
        rows = [Row(40, done.logits, list(kept.layers)) for kept in done.kept]
        together = decode(model, NAME, rows, limits)
    assert made == [5, 5, 5]
    for plan, kept, said in zip(plans, done.kept, together, strict=True):
        alone = prefill(model, NAME, prompt, [plan], selection)
        assert not any(isinstance(layer, ChosenKV) and layer.prompt is not None for layer in alone.kept[0].layers)
        assert alone.kept[0].sha256 == kept.sha256
        for mine, theirs in zip(kept.layers, alone.kept[0].layers, strict=True):
            one, other = mine.gathered(), theirs.gathered()
            assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)
        assert decode(model, NAME, [Row(40, alone.logits, alone.kept[0].layers)], limits) == [said]
