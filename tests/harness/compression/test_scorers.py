"""The tensor maths under the scorers against naive references in float64: attention by rows, scores, pooling, groups,
order, ties."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from harness.compression import attention_weights
from harness.compression.attention_weights import Softmax, attention_rows, causal_attention
from harness.compression.method import LayerState, Scorer
from harness.compression.scorers import (
    ColumnSums,
    FirstTokens,
    SinksThenRecent,
    WindowAttention,
    column_sums,
    pool,
    window_attention,
)
from harness.compression.selection import Order, Selection, group_heads, kept_indices, order_of
from harness.errors import ConfigError
from tests.harness.tiny import STABLE, selections

REPEATABLE = settings(deadline=None, derandomize=True, database=None, max_examples=80)
DIM = 4


@st.composite
def layers(draw: st.DrawFn, least: int = 2) -> LayerState:
    """A random layer: MHA, GQA or MQA; its logits as wide as those of a real one."""
    kv_heads, copies, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(least, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    queries = 3 * torch.randn(kv_heads * copies, tokens, DIM, generator=generator)
    keys, values = (torch.randn(kv_heads, tokens, DIM, generator=generator) for _ in range(2))
    return LayerState(queries, keys, values, 0, 1, draw(st.sampled_from([DIM**-0.5, 1.0, 0.1])), torch.float32)


def blocks(layer: LayerState) -> list[int | None]:
    """Sizes of a block: one row, a few rows, all rows, what suits the device."""
    row = 4 * layer.queries.shape[0] * layer.queries.shape[1]
    return [1, row, 3 * row, 7 * row + 1, 2**40, None]


def naive_attention(layer: LayerState, masked_from: int = 0) -> Tensor:
    """All weights [H, T, T] at once in float64; queries before ``masked_from`` see later tokens too."""
    copies, tokens = len(layer.queries) // len(layer.keys), layer.keys.shape[1]
    logits = layer.queries.double() @ layer.keys.double().repeat_interleave(copies, 0).transpose(1, 2) * layer.scaling
    later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    later[:masked_from] = False
    return logits.masked_fill(later, -torch.inf).softmax(-1)


def close(ours: Tensor, naive: Tensor) -> None:
    torch.testing.assert_close(ours, naive.to(ours.dtype), rtol=1e-4, atol=1e-6)


# --- attention by rows


@given(layer=layers(), data=st.data())
@REPEATABLE
def test_weights_by_rows_equal_the_full_matrix_for_every_block_size(layer: LayerState, data: st.DataObject) -> None:
    tokens = layer.keys.shape[1]
    rows = data.draw(st.integers(1, tokens))
    masked_from = data.draw(st.sampled_from([0, 1, tokens // 2, tokens - 1, tokens]))
    block_bytes = data.draw(st.sampled_from(blocks(layer)))
    weights = naive_attention(layer, masked_from)
    expected_start = tokens - rows
    for start, stop, found in attention_rows(
        layer.queries[:, tokens - rows :], layer.keys, layer.softmax, masked_from, block_bytes
    ):
        assert start == expected_start < stop
        close(found, weights[:, start:stop, : found.shape[-1]])
        assert not weights[:, start:stop, found.shape[-1] :].any(), "what is left out has no weight"
        if block_bytes is not None:
            assert stop - start == 1 or found.numel() * 4 <= block_bytes
        expected_start = stop
    assert expected_start == tokens


@pytest.mark.parametrize("tokens", [1100, 1278])
def test_weights_do_not_depend_on_how_keys_lie_to_the_bit(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block of 1278 tokens has few rows, for which another product is chosen."""
    queries, keys = torch.randn(4, tokens, 64), torch.randn(2, tokens, 64)
    lie, rows = [], []
    for worth in (1, 10**9):
        monkeypatch.setattr(attention_weights, "_ROWS_WORTH_TURNING", worth)
        blocks = list(attention_rows(queries, keys, Softmax(0.125)))
        rows = [stop - start for start, stop, _ in blocks]
        lie.append(causal_attention(queries, keys, keys, Softmax(0.125)))
    assert torch.equal(*lie) and (2 * rows[-1] < 16) == (tokens == 1278)


@pytest.mark.parametrize("form", [{}, {"softcap": 5.0}, {"sinks": torch.arange(4.0)}], ids=["plain", "capped", "sinks"])
def test_later_keys_have_no_weight_even_where_their_logits_are_infinite(form: dict[str, Any]) -> None:
    queries, keys = torch.randn(4, 50, 8).abs(), torch.randn(2, 50, 8)
    keys[:, 40:] = torch.inf
    for start, stop, weights in attention_rows(queries, keys, Softmax(0.25, **form), block_bytes=2**14):
        before = weights[:, : max(0, min(stop, 40) - start)]
        assert torch.isfinite(before).all() and not before[:, :, start:].triu(1).any()


def test_blocks_of_weights_share_one_memory() -> None:
    queries, keys = torch.randn(4, 50, 8), torch.randn(2, 50, 8)
    places = [weights.data_ptr() for _, _, weights in attention_rows(queries, keys, Softmax(0.25), block_bytes=2**10)]
    assert len(places) > 10 and len(set(places)) == 1


@given(layer=layers(), data=st.data())
@REPEATABLE
def test_column_sums_read_from_the_attention_equal_those_of_a_pass_of_their_own(
    layer: LayerState, data: st.DataObject
) -> None:
    window = data.draw(st.integers(1, layer.keys.shape[1] - 1))
    block_bytes = data.draw(st.sampled_from(blocks(layer)))
    reader = ColumnSums(window, True).accumulator(layer)
    assert reader is not None
    causal_attention(layer.queries, layer.keys, layer.values, layer.softmax, block_bytes, [reader])
    assert torch.equal(reader.scores(), column_sums(layer, window, True, block_bytes))
    assert ColumnSums(window, False).accumulator(layer) is None, "ordinary attention has no votes for later tokens"


@given(layer=layers(least=1), data=st.data())
@REPEATABLE
def test_causal_attention_equals_the_full_matrix_and_torch_for_every_block_size(
    layer: LayerState, data: st.DataObject
) -> None:
    block_bytes = data.draw(st.sampled_from(blocks(layer)))
    ours = causal_attention(layer.queries, layer.keys, layer.values, layer.softmax, block_bytes)
    copies = len(layer.queries) // len(layer.keys)
    close(ours, naive_attention(layer) @ layer.values.double().repeat_interleave(copies, 0))
    one_batch = (layer.queries[None], layer.keys[None], layer.values[None])
    stock = functional.scaled_dot_product_attention(*one_batch, is_causal=True, scale=layer.scaling, enable_gqa=True)
    torch.testing.assert_close(ours, stock[0], rtol=1e-4, atol=1e-5)


@given(layer=layers(), data=st.data())
@REPEATABLE
def test_the_last_queries_have_the_same_output_to_the_bit_where_others_are_left_out(
    layer: LayerState, data: st.DataObject
) -> None:
    tokens = layer.keys.shape[1]
    rows = data.draw(st.integers(1, tokens))
    last, block_bytes = data.draw(st.integers(1, tokens)), data.draw(st.sampled_from(blocks(layer)))
    states = (layer.queries[:, tokens - rows :], layer.keys, layer.values, layer.softmax, block_bytes)
    every = causal_attention(*states)
    starts = [
        start - tokens + rows for start, *_ in attention_rows(states[0], layer.keys, layer.softmax, 0, block_bytes)
    ]
    first = max(start for start in starts if start <= max(0, rows - last))
    read: list[int] = []
    for readers in ((), [SimpleNamespace(read=lambda weights: read.append(weights.shape[1]))]):
        some = causal_attention(*states, readers, last)
        assert torch.equal(some[:, first:], every[:, first:]) and not some[:, :first].any()
    assert sum(read) == rows, "who reads the weights reads all of them"


@given(layer=layers(), data=st.data())
@REPEATABLE
def test_votes_of_earlier_queries_do_not_change_with_a_later_token(layer: LayerState, data: st.DataObject) -> None:
    tokens = layer.keys.shape[1]
    place = data.draw(st.integers(1, tokens - 1))
    later_keys, later_queries = layer.keys.clone(), layer.queries.clone()
    later_keys[:, place:] += 1
    later_queries[:, place:] -= 1

    def votes(queries: Tensor, keys: Tensor, masked_from: int) -> Tensor:
        found = [
            functional.pad(w, (0, tokens - w.shape[-1]))
            for _, _, w in attention_rows(queries, keys, layer.softmax, masked_from)
        ]
        return torch.cat(found, 1)[:, :place]

    assert torch.equal(votes(layer.queries, layer.keys, 0), votes(later_queries, later_keys, 0))
    # The code behind the published tables let them see it.
    assert not torch.equal(votes(layer.queries, layer.keys, tokens), votes(later_queries, later_keys, tokens))


# --- scores


@given(layer=layers(), data=st.data())
@REPEATABLE
def test_window_attention_equals_the_full_matrix(layer: LayerState, data: st.DataObject) -> None:
    tokens = layer.keys.shape[1]
    window = data.draw(st.integers(1, tokens - 1))
    scores = window_attention(layer, window)
    assert scores.dtype == torch.float32
    close(scores, naive_attention(layer)[:, tokens - window :, : tokens - window].sum(1))


@given(layer=layers(), causal=st.booleans(), data=st.data())
@REPEATABLE
def test_column_sums_equal_the_full_matrix_for_every_block_size(
    layer: LayerState, causal: bool, data: st.DataObject
) -> None:
    tokens = layer.keys.shape[1]
    window = data.draw(st.integers(1, tokens - 1))
    scores = column_sums(layer, window, causal, data.draw(st.sampled_from(blocks(layer))))
    assert scores.dtype == torch.float32
    close(scores, naive_attention(layer, 0 if causal else tokens - window)[:, :, : tokens - window].sum(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_come_in_the_dtype_that_was_asked_for_and_float32_is_the_finer(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(4, 50, 16, generator=generator).to(dtype) for _ in range(2))
    for scorer in (WindowAttention(8, 7, "maxpool"), ColumnSums(8, True)):
        fine, coarse = (
            scorer.score(LayerState(queries, keys, keys, 0, 1, 0.25, wanted)) for wanted in (torch.float32, dtype)
        )
        assert (fine.dtype, coarse.dtype) == (torch.float32, dtype)
        torch.testing.assert_close(fine, coarse.float(), rtol=0.03, atol=1e-3)
        assert len(set(fine.flatten().tolist())) > len(set(coarse.flatten().tolist())), "the model's dtype makes ties"


# --- pooling and groups


def naive_pool(scores: Tensor, kernel: int, pooling: str) -> Tensor:
    half, count = kernel // 2, scores.shape[1]
    out = torch.zeros(len(scores), count + 2 * half - kernel + 1, dtype=torch.float64)
    for head in range(len(scores)):
        for place in range(out.shape[1]):
            seen = [float(scores[head, at]) for at in range(place - half, place - half + kernel) if 0 <= at < count]
            out[head, place] = max(seen) if pooling == "maxpool" else sum(seen) / kernel
    return out


@given(heads=st.integers(1, 3), count=st.integers(1, 20), kernel=st.integers(1, 9), seed=st.integers(0, 99))
@pytest.mark.parametrize("pooling", ["maxpool", "avgpool"])
@REPEATABLE
def test_pooling_equals_a_plain_loop(pooling: Any, heads: int, count: int, kernel: int, seed: int) -> None:
    scores = torch.rand(heads, count, generator=torch.Generator().manual_seed(seed)) - 0.25
    pooled = pool(scores, kernel, pooling)
    assert pooled.shape == (heads, count + 1 - kernel % 2)
    close(pooled, naive_pool(scores, kernel, pooling))


def test_pooling_leaves_negative_scores_at_the_borders_negative() -> None:
    scores = torch.full((1, 3), -2.0)
    assert pool(scores, 3, "maxpool").tolist() == [[-2.0, -2.0, -2.0]]
    assert pool(scores, 3, "avgpool").tolist() == [pytest.approx([-4 / 3, -2.0, -4 / 3])]


@given(kv_heads=st.integers(1, 4), copies=st.integers(1, 4), count=st.integers(1, 9), selection=selections())
@REPEATABLE
def test_groups_are_the_query_heads_that_share_a_kv_head(
    kv_heads: int, copies: int, count: int, selection: Selection
) -> None:
    scores = torch.rand(kv_heads * copies, count, generator=torch.Generator().manual_seed(count))
    grouped = group_heads(scores, len(scores), kv_heads, selection)
    if selection.granularity == "query_head":
        assert torch.equal(grouped, scores)
        return
    assert grouped.shape == (kv_heads, count)
    for head in range(kv_heads):
        for place in range(count):
            members = [float(score) for score in scores[head * copies : (head + 1) * copies, place]]
            expected = {"max": max(members), "sum": sum(members), "mean": sum(members) / copies}
            assert float(grouped[head, place]) == pytest.approx(expected[selection.group])


# --- order and ties


@st.composite
def tied_scores(draw: st.DrawFn) -> Tensor:
    """[heads, candidates] of few distinct values."""
    count = draw(st.integers(1, 12))
    return torch.tensor(
        draw(st.lists(st.lists(st.integers(0, 3), min_size=count, max_size=count), min_size=1, max_size=3))
    ).float()


def best_first(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda place: (-scores[place], place))


@given(scores=tied_scores())
@REPEATABLE
def test_stable_order_is_one_order_whose_prefixes_serve_every_count(scores: Tensor) -> None:
    order = Order(scores, scores.shape[1], "stable")
    for count in range(scores.shape[1] + 1):
        assert order.best(count).tolist() == [sorted(best_first(head)[:count]) for head in scores.tolist()]


@given(scores=tied_scores())
@REPEATABLE
def test_torch_order_differs_from_the_stable_one_in_ties_only(scores: Tensor) -> None:
    ours, stable = Order(scores, scores.shape[1], "torch"), Order(scores, scores.shape[1], "stable")
    for count in range(scores.shape[1] + 1):
        chosen = ours.best(count)
        assert torch.equal(chosen.sort(-1).values, chosen)
        assert all(len(set(head)) == count for head in chosen.tolist())
        assert torch.equal(
            scores.gather(1, chosen).sort(-1).values, scores.gather(1, stable.best(count)).sort(-1).values
        )
        assert torch.equal(ours.tied_heads(count), stable.tied_heads(count))


@given(scores=tied_scores(), ties=st.sampled_from(["stable", "torch"]))
@REPEATABLE
def test_tied_heads_are_those_with_the_last_score_on_both_sides_of_the_cut(scores: Tensor, ties: Any) -> None:
    order = Order(scores, scores.shape[1], ties)
    for count in range(scores.shape[1] + 1):
        expected = 0
        for head in scores.tolist():
            places = best_first(head)
            expected += 0 < count < len(head) and head[places[count - 1]] == head[places[count]]
        assert int(order.tied_heads(count)) == expected


@given(
    layer=layers(),
    kernel=st.sampled_from([2, 4, 6]),
    pooling=st.sampled_from(["maxpool", "avgpool"]),
    selection=selections(),
)
@REPEATABLE
def test_even_kernel_never_keeps_the_position_that_it_adds(
    layer: LayerState, kernel: int, pooling: Any, selection: Selection
) -> None:
    order = order_of(WindowAttention(1, kernel, pooling), layer, selection)
    candidates = layer.keys.shape[1] - 1
    for count in range(1, candidates + 1):
        chosen = order.best(count)
        assert int(chosen.max()) < candidates
        assert bool((chosen.diff(dim=1) > 0).all())


# --- what is kept


@st.composite
def scorers(draw: st.DrawFn) -> Scorer:
    window, kernel = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    every: list[Scorer] = [
        WindowAttention(window, kernel, "maxpool"),
        WindowAttention(window, kernel, "avgpool"),
        ColumnSums(window, True),
        ColumnSums(window, False),
        FirstTokens(window),
        SinksThenRecent(window - 1),
    ]
    return draw(st.sampled_from(every))


@given(layer=layers(least=8), scorer=scorers(), selection=selections(), data=st.data())
@REPEATABLE
def test_kept_indices_ascend_are_unique_and_contain_the_window(
    layer: LayerState, scorer: Scorer, selection: Selection, data: st.DataObject
) -> None:
    tokens, window = layer.keys.shape[1], scorer.window
    keep = data.draw(st.integers(window, tokens))
    heads = len(layer.queries) if selection.granularity == "query_head" else len(layer.keys)
    order = order_of(scorer, layer, selection)
    kept = kept_indices(order, keep, window, tokens, heads, torch.device("cpu"))
    assert kept.shape == (heads, keep)
    assert bool((kept.diff(dim=1) > 0).all())
    assert bool((kept[:, keep - window :] == torch.arange(tokens - window, tokens)).all())
    assert int(kept.min()) >= 0
    # What is left out scores no better than what is kept.
    candidates = torch.zeros(heads, tokens, dtype=torch.bool).scatter(1, kept, True)[:, : tokens - window]
    scores = order.scores.expand(heads, -1)
    worst = scores.masked_fill(~candidates, torch.inf).amin(1)
    assert bool((scores.masked_fill(candidates, -torch.inf).amax(1) <= worst).all())
    if keep == window:
        assert torch.equal(kept, kept_indices(None, keep, window, tokens, heads, torch.device("cpu")))


@given(layer=layers(least=4), data=st.data())
@REPEATABLE
def test_scorers_by_position_keep_the_first_and_the_last(layer: LayerState, data: st.DataObject) -> None:
    tokens = layer.keys.shape[1]
    keep = data.draw(st.integers(3, tokens - 1))
    fixed = data.draw(st.integers(1, keep - 1))
    sinks, first = SinksThenRecent(fixed), FirstTokens(fixed)
    for scorer, expected in (
        (sinks, [*range(fixed), *range(tokens - (keep - fixed), tokens)]),
        (first, [*range(keep - fixed), *range(tokens - fixed, tokens)]),
    ):
        order = order_of(scorer, layer, STABLE)
        kept = kept_indices(order, keep, scorer.window, tokens, len(layer.queries), torch.device("cpu"))
        assert kept.tolist() == [expected] * len(layer.queries)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WindowAttention(0, 7, "maxpool"), "window=0 is not a whole number of 1 or more"),
        (lambda: WindowAttention(8, 0, "maxpool"), "kernel=0 is not a whole number of 1 or more"),
        (lambda: WindowAttention(8, 7.0, "maxpool"), "kernel=7.0 is not a whole number"),  # type: ignore[arg-type]
        (
            lambda: WindowAttention(8, 7, "meanpool"),
            "pooling=meanpool is unknown: use maxpool or avgpool",
        ),  # type: ignore[arg-type]
        (lambda: ColumnSums(8, "yes"), "causal=yes is neither true nor false"),  # type: ignore[arg-type]
        (lambda: ColumnSums(-1, True), "window=-1 is not a whole number"),
        (lambda: FirstTokens(True), "window=True is not a whole number"),
        (lambda: SinksThenRecent(-1), "sinks=-1 is not a whole number of 0 or more"),
        (lambda: SinksThenRecent("4"), "sinks=4 is not a whole number"),  # type: ignore[arg-type]
    ],
)
def test_knob_out_of_range_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
