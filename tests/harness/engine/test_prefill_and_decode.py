"""Shared prefill and wide decoding against each variant alone, against a plain forward, and against causality; half
precision."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from harness.compression.grid import Plan
from harness.compression.selection import Selection
from harness.engine.attention import ENGINE
from harness.engine.buckets import LayerKV
from harness.engine.cache import KVCache
from harness.engine.decode import Decoding, decode
from harness.engine.layer_forms import PLAIN
from harness.engine.prefill import Kept, extend, prefill
from harness.engine.rows import Generated, Limits, Row
from harness.errors import ModelError
from harness.kernels import Kernels
from harness.results import layer_means
from tests.conftest import needs_triton
from tests.harness.tiny import (
    HEADS,
    NAME,
    STABLE,
    VOCABULARY,
    Cell,
    cells,
    decode_together,
    edges,
    methods,
    prompt_of,
    selections,
    tiny,
)

METHODS = methods()
EXACT = settings(deadline=None, derandomize=True, database=None)


def changed(prompt: tuple[int, ...], place: int) -> tuple[int, ...]:
    return (*prompt[:place], (prompt[place] + 1) % VOCABULARY, *prompt[place + 1 :])


# --- together or alone


@given(
    kv_heads=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 3),
    variants=cells(most=3),
    selection=selections(),
    stop_ids=st.frozensets(st.integers(0, VOCABULARY - 1), max_size=12),
    max_new_tokens=st.integers(1, 7),
    min_new_tokens=st.integers(0, 2),
)
@settings(EXACT, max_examples=120)
def test_shared_prefill_and_wide_decoding_give_the_tokens_of_each_variant_alone(
    kv_heads: int,
    seed: int,
    variants: list[Cell],
    selection: Selection,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    min_new_tokens: int,
) -> None:
    model = tiny(kv_heads, seed=seed)
    options = (selection, stop_ids, max_new_tokens, min_new_tokens)
    together, logits = decode_together(model, variants, *options)
    for variant, outcome, seen in zip(variants, together, logits, strict=True):
        (alone,), (its_logits,) = decode_together(model, [variant], *options)
        assert outcome == alone
        torch.testing.assert_close(seen[: len(its_logits)], its_logits, rtol=1e-4, atol=1e-5)
        assert outcome.error is None
        assert 1 <= len(outcome.tokens) <= max_new_tokens
        assert not stop_ids.intersection(outcome.tokens[:min_new_tokens])
        assert not stop_ids.intersection(outcome.tokens[:-1])
        assert len(outcome.tokens) == max_new_tokens or outcome.tokens[-1] in stop_ids


@given(kv_heads=st.sampled_from([1, 2, 4]), variants=cells(), selection=selections())
@settings(EXACT, max_examples=60)
def test_every_layer_keeps_what_the_method_says_and_the_mean_obeys_the_budget(
    kv_heads: int, variants: list[Cell], selection: Selection
) -> None:
    model = tiny(kv_heads)
    layers = model.config.num_hidden_layers

    def check(cell: Cell, kept: Kept) -> None:
        prompt = len(cell.prompt)
        budget = prompt if not cell.method.uses_budget else min(cell.budget, prompt)
        plan = cell.plan(layers)
        assert plan.waiting is not None or kept.entries == plan.keep
        assert kept.bytes == sum(layer.bytes for layer in kept.layers)
        for layer, entries in zip(kept.layers, kept.entries, strict=True):
            heads = HEADS if selection.granularity == "query_head" and entries != prompt else kv_heads
            of_layer = (heads, entries, 8) if isinstance(entries, int) else (sum(entries), 8)
            held = layer.gathered()
            assert held.keys.shape == held.values.shape == of_layer
            assert isinstance(entries, int) or (len(entries), entries) == (heads, layer.counts)
        means = layer_means(kept.entries)
        if getattr(cell.method, "schedule", None) == "reference":
            # The published floor division overspends, by less than one step of its slope in every layer.
            assert budget <= sum(means) / layers < budget + layers / 2
        elif plan.waiting is None or plan.waiting.allocation.sees == "layers":
            assert sum(means) == pytest.approx(budget * layers)
        else:
            assert means == pytest.approx([budget] * layers)

    decode_together(model, variants, selection, max_new_tokens=1, check=check)


@given(length=st.integers(2, 40), window=st.integers(1, 8), name=st.sampled_from(list(METHODS)), selection=selections())
@settings(EXACT, max_examples=60)
def test_budgets_that_hold_the_prompt_are_full_cache(length: int, window: int, name: str, selection: Selection) -> None:
    cell = Cell(prompt_of(length), methods(window)[name], max(length, window + 1))
    full = Cell(cell.prompt, METHODS["fullkv"], 1)
    kept: list[Kept] = []
    (ours, theirs), (our_logits, their_logits) = decode_together(
        tiny(), [cell, full], selection, check=lambda _, found: kept.append(found)
    )
    assert kept[0] is kept[1]
    assert ours == theirs
    assert torch.equal(our_logits, their_logits)


# --- against a plain forward


class Masked:
    """Full attention in which a new token sees, of the prompt, only what was kept in its layer for its head."""

    forms = (PLAIN,) * 9

    def __init__(self, kept: list[Tensor], prompt_tokens: int) -> None:
        self._kept = kept
        self._prompt_tokens = prompt_tokens

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        copies, tokens = queries.shape[1] // keys.shape[1], queries.shape[2]
        keys, values = keys.repeat_interleave(copies, 1), values.repeat_interleave(copies, 1)
        seen = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(queries.shape[1], tokens, tokens).clone()
        seen[:, self._prompt_tokens :, : self._prompt_tokens] &= self._kept[layer][:, None]
        logits = (queries @ keys.transpose(2, 3) * scaling).masked_fill(~seen, -torch.inf)
        return (logits.softmax(-1) @ values).transpose(1, 2)


def kept_positions(full: LayerKV, layer: LayerKV) -> list[Tensor]:
    """Per cache head, [entries]: where the kept keys stand among all keys, found by looking for them."""
    pairs = [pair for keys, values in layer.parts() for pair in zip(keys, values, strict=True)]
    copies, positions = len(pairs) // full.keys.shape[0], []
    for head, (keys, values) in enumerate(pairs):
        everything = full.keys[head // copies], full.values[head // copies]
        same = (keys[:, None] == everything[0]).all(-1) & (values[:, None] == everything[1]).all(-1)
        assert bool((same.sum(-1) == 1).all())
        positions.append(same.int().argmax(-1))
    return positions


@given(
    kv_heads=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 3),
    variants=cells(prompts=2, most=3),
    selection=selections(),
)
@settings(EXACT, max_examples=120)
def test_decoding_equals_one_forward_in_which_new_tokens_see_only_what_was_kept(
    kv_heads: int, seed: int, variants: list[Cell], selection: Selection
) -> None:
    model = tiny(kv_heads, seed=seed)
    layers = model.config.num_hidden_layers
    masks: dict[int, list[Tensor]] = {}

    def check(cell: Cell, kept: Kept) -> None:
        prompt = len(cell.prompt)
        full = prefill(model, NAME, cell.prompt, [Plan((prompt,) * layers, None)], selection).kept[0]
        window = cell.method.scorer.window if cell.method.scorer is not None else 0
        masks[id(cell)] = []
        for everything, layer in zip(full.layers, kept.layers, strict=True):
            heads, trailing = kept_positions(everything, layer), torch.arange(max(0, prompt - window), prompt)
            mask = torch.zeros(len(heads), prompt, dtype=torch.bool)
            for head, positions in enumerate(heads):
                assert bool((positions.diff() > 0).all()), "kept entries stand in the prompt's order, each once"
                assert positions[-1] == prompt - 1
                assert bool((positions[len(positions) - len(trailing) :] == trailing).all())
                mask[head, positions] = True
            masks[id(cell)].append(mask.repeat_interleave(HEADS // len(mask), 0))

    outcomes, logits = decode_together(model, variants, selection, check=check)
    for variant, outcome, seen in zip(variants, outcomes, logits, strict=True):
        ids = torch.tensor([[*variant.prompt, *outcome.tokens[:-1]]])
        engine = Masked(masks[id(variant)], len(variant.prompt))
        with torch.inference_mode():
            expected = model(ids, use_cache=False, past_key_values=None, **{ENGINE: engine}).logits[
                0, len(variant.prompt) - 1 :
            ]
        torch.testing.assert_close(seen, expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "fullkv"])
def test_every_method_changes_what_is_decoded(name: str) -> None:
    prompt = prompt_of(60)
    _, (ours, full) = decode_together(tiny(), [Cell(prompt, METHODS[name], 8), Cell(prompt, METHODS["fullkv"], 1)])
    assert torch.equal(ours[0], full[0]), "the first token comes from the full prompt"
    assert (ours[1] - full[1]).abs().max() > 0.05


def test_every_pair_of_methods_keeps_different_entries_but_both_names_of_one_set() -> None:
    prompt, kept = prompt_of(60), {}
    for name, method in METHODS.items():
        decode_together(
            tiny(),
            [Cell(prompt, method, 12)],
            max_new_tokens=1,
            check=lambda _, found, name=name: kept.update({name: found}),
        )  # type: ignore[misc]
    assert len({found.sha256 for found in kept.values()}) == len(METHODS)
    # 4 sinks and 8 recent tokens are also 8 recent tokens and the 4 first.
    same = [Cell(prompt, METHODS["streamingllm"], 12), Cell(prompt, methods(8)["streamingllm-window"], 12)]
    found: list[Kept] = []
    decode_together(tiny(), same, max_new_tokens=1, check=lambda _, kept: found.append(kept))
    assert found[0] is found[1]


# --- the batch


def test_finished_rows_leave_the_batch_and_the_others_go_on_unchanged() -> None:
    prompts = [prompt_of(length) for length in (12, 20, 31, 40, 55, 64)]
    variants = [Cell(prompt, METHODS[name], 9) for prompt in prompts for name in ("fullkv", "snapkv", "pyramidkv")]
    free, _ = decode_together(tiny(), variants, max_new_tokens=12)
    assert len({outcome.tokens for outcome in free}) > 6
    stops = frozenset(outcome.tokens[place] for place, outcome in enumerate(free[::2], start=1))
    stopped, logits = decode_together(tiny(), variants, stop_ids=stops, max_new_tokens=12)
    for without, outcome in zip(free, stopped, strict=True):
        end = next((place for place, token in enumerate(without.tokens) if token in stops), 11)
        assert outcome.tokens == without.tokens[: end + 1]
    lengths = {len(outcome.tokens) for outcome in stopped}
    assert len(lengths) > 3, "rows end at different steps"
    widths = [sum(len(seen) > step for seen in logits) for step in range(max(lengths))]
    alive = [sum(len(outcome.tokens) > step for outcome in stopped) for step in range(max(lengths))]
    assert widths[0] == len(variants) > 2 * widths[-1]
    assert all(rows <= width < 2 * rows for rows, width in zip(alive, widths, strict=True))


@given(
    kv_heads=st.sampled_from([1, 2, 4]),
    variants=cells(prompts=4, most=3),
    selection=selections(),
    stop_ids=st.frozensets(st.integers(0, VOCABULARY - 1), max_size=12),
    max_new_tokens=st.integers(1, 9),
    min_new_tokens=st.integers(0, 3),
    moments=st.lists(st.integers(0, 12), min_size=12, max_size=12),
)
@settings(EXACT, max_examples=120)
def test_rows_that_join_at_any_moment_give_the_tokens_and_logits_of_each_alone(
    kv_heads: int,
    variants: list[Cell],
    selection: Selection,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    min_new_tokens: int,
    moments: list[int],
) -> None:
    model, limits = tiny(kv_heads), (stop_ids, max_new_tokens, min_new_tokens)
    seen: dict[int, list[Tensor]] = {}

    def observe(numbers: Sequence[int], logits: Tensor) -> None:
        for place, number in enumerate(numbers):
            seen.setdefault(number, []).append(logits[place].clone())

    cached = HEADS if selection.granularity == "query_head" else kv_heads
    decoding = Decoding(model, NAME, Limits(*limits), observe)
    places: list[Cell] = []
    ended: dict[int, Generated] = {}
    for moment in range(13):
        joining = [variant for variant, at in zip(variants, moments, strict=False) if at == moment]
        if joining:
            rows = []
            for variant in joining:
                done = prefill(model, NAME, variant.prompt, [variant.plan(3, cached)], selection)
                rows.append(Row(len(variant.prompt), done.logits, list(done.kept[0].layers)))
            assert list(decoding.add(rows)) == list(range(len(places), len(places) + len(rows)))
            assert not any(row.layers for row in rows), "entries are held once"
            places += joining
        if decoding.alive:
            decoding.step()
        ended |= decoding.take()
    while decoding.alive:
        decoding.step()
    ended |= decoding.take()
    assert not any(decoding._cache._layers), "a cache without rows holds no memory"
    assert sorted(ended) == list(range(len(variants)))
    for number, variant in enumerate(places):
        (alone,), (its_logits,) = decode_together(model, [variant], selection, *limits)
        assert ended[number] == alone
        torch.testing.assert_close(torch.stack(seen[number])[: len(its_logits)], its_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", ["torch", pytest.param("triton", marks=needs_triton)])
@given(
    shapes=st.lists(st.tuples(st.sampled_from([2, 4]), st.integers(0, 3)), min_size=1, max_size=6),
    late=st.integers(0, 3),
    drops=st.lists(st.integers(0, 2**6 - 1), max_size=3),
)
@settings(EXACT, max_examples=30)
def test_pool_keeps_rows_apart_whatever_joins_and_leaves_it(
    kernels: Kernels, shapes: list[tuple[int, int]], late: int, drops: list[int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    dim, count = 3, len(shapes)

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64 if kernels == "torch" else torch.float32)

    kept = [LayerKV(random(heads, entries, dim), random(heads, entries, dim)) for heads, entries in shapes]
    keys = [layer.keys.repeat_interleave(4 // len(layer.keys), 0) for layer in kept]
    values = [layer.values.repeat_interleave(4 // len(layer.values), 0) for layer in kept]
    # All but the late ones join at first, then one at every step.
    first = max(1, count - late)
    pool, alive, coming = KVCache([PLAIN], kernels), list(range(first)), list(range(first, count))
    pool.add([[layer] for layer in kept[:first]], spare=len(drops) + 1)
    for drop in [None, *drops]:
        if drop is not None:
            staying = [place for place, row in enumerate(alive) if not drop >> row & 1]
            if not staying:
                return
            pool.keep(staying)
            alive = [alive[place] for place in staying]
            if coming:
                alive.append(coming.pop(0))
                pool.add([[kept[alive[-1]]]], spare=len(drops))
        q, k, v = random(len(alive), 4, 1, dim), random(len(alive), 2, 1, dim), random(len(alive), 2, 1, dim)
        out = pool.attend(0, q, k, v, 0.5)
        pool.advance()
        for place, row in enumerate(alive):
            keys[row] = torch.cat([keys[row], k[place].repeat_interleave(2, 0)], 1)
            values[row] = torch.cat([values[row], v[place].repeat_interleave(2, 0)], 1)
            weights = (q[place] @ keys[row].transpose(1, 2) * 0.5).softmax(-1)
            torch.testing.assert_close(out[place, 0], (weights @ values[row])[:, 0])


def test_stop_token_cannot_come_before_the_least_number_of_tokens() -> None:
    cell = Cell(prompt_of(30), METHODS["snapkv"], 10)
    (free,), (logits,) = decode_together(tiny(), [cell], max_new_tokens=4)
    stop = free.tokens[0]
    (ended,), _ = decode_together(tiny(), [cell], stop_ids=frozenset({stop}), max_new_tokens=4)
    assert ended.tokens == (stop,)
    (late,), _ = decode_together(tiny(), [cell], stop_ids=frozenset({stop}), max_new_tokens=4, min_new_tokens=1)
    assert late.tokens[0] == logits[0].index_fill(0, torch.tensor([stop]), -torch.inf).argmax()


# --- causality


class AllLogits:
    """A model that remembers the logits of all positions."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.config, self.device, self._model = model.config, model.device, model
        self.modules = model.modules
        self.logits = torch.empty(0)

    def __call__(self, ids: Tensor, **keywords: Any) -> Any:
        output = self._model(ids, **{**keywords, "logits_to_keep": 0})
        self.logits = output.logits[0]
        return output


def all_logits(prompt: tuple[int, ...], name: str, budget: int, dtype: torch.dtype) -> tuple[Tensor, Kept]:
    model = AllLogits(tiny(dtype=dtype))
    plans = [Cell(prompt, METHODS[name], budget).plan(3), Cell(prompt, METHODS["fullkv"], 1).plan(3)]
    done = prefill(cast("PreTrainedModel", model), NAME, prompt, plans, STABLE)
    return model.logits, done.kept[1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("place", [1, 20, 38, 39])
def test_changing_a_later_prompt_token_never_changes_earlier_logits(name: str, place: int) -> None:
    prompt = prompt_of(40)
    before, full_before = all_logits(prompt, name, 10, torch.float32)
    after, full_after = all_logits(changed(prompt, place), name, 10, torch.float32)
    assert before.shape == (40, VOCABULARY)
    assert torch.equal(before[:place], after[:place])
    assert (before[place:] - after[place:]).abs().amax(1).min() > 1e-3, "the test would see a change"
    # Nor does it change what there is to keep of earlier tokens.
    for one, other in zip(full_before.layers, full_after.layers, strict=True):
        assert torch.equal(one.keys[:, :place], other.keys[:, :place])
        assert torch.equal(one.values[:, :place], other.values[:, :place])


@pytest.mark.parametrize("name", METHODS)
def test_logits_in_a_long_prompt_equal_those_of_its_beginning_alone(name: str) -> None:
    prompt = prompt_of(40)
    logits, _ = all_logits(prompt, name, 10, torch.float64)
    for end in (1, 2, 7, 25, 39):
        beginning = Cell(prompt[:end], METHODS[name], 10)
        done = prefill(tiny(), NAME, beginning.prompt, [beginning.plan(3)], STABLE)
        torch.testing.assert_close(done.logits, logits[end - 1].float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("step", [0, 1, 3])
def test_changing_a_later_new_token_never_changes_earlier_logits(name: str, step: int) -> None:
    """The token at ``step`` is changed by forbidding it there."""
    cell = Cell(prompt_of(40, seed=5), METHODS[name], 10)
    (free,), (before,) = decode_together(tiny(dtype=torch.float32), [cell], max_new_tokens=7)
    token = free.tokens[step]
    assert token not in free.tokens[:step]
    (other,), (after,) = decode_together(
        tiny(dtype=torch.float32), [cell], stop_ids=frozenset({token}), max_new_tokens=7, min_new_tokens=step + 1
    )
    assert other.tokens[:step] == free.tokens[:step]
    assert other.tokens[step] != token
    assert torch.equal(before[: step + 1], after[: step + 1])
    assert (before[step + 1] - after[step + 1]).abs().max() > 1e-3, "the test would see a change"


@pytest.mark.parametrize("name", METHODS)
def test_asking_for_more_tokens_never_changes_the_first_ones(name: str) -> None:
    cell = Cell(prompt_of(40), METHODS[name], 10)
    _, (few,) = decode_together(tiny(dtype=torch.float32), [cell], max_new_tokens=3)
    _, (many,) = decode_together(tiny(dtype=torch.float32), [cell], max_new_tokens=9)
    assert torch.equal(few, many[:3])


def test_changing_one_prompt_never_changes_the_logits_of_another() -> None:
    mine, other = prompt_of(40), prompt_of(33)
    variants = [Cell(mine, method, 10) for method in METHODS.values()]
    _, before = decode_together(tiny(dtype=torch.float32), [*variants, Cell(other, METHODS["h2o"], 10)])
    _, after = decode_together(tiny(dtype=torch.float32), [*variants, Cell(changed(other, 3), METHODS["h2o"], 10)])
    assert all(torch.equal(one, two) for one, two in zip(before[:-1], after[:-1], strict=True))
    assert not torch.equal(before[-1], after[-1])


# --- half precision, and numbers that are none


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scores", ["float32", "model"])
def test_half_precision_runs_from_prompt_to_tokens(dtype: torch.dtype, scores: Any) -> None:
    selection = Selection("query_head", "mean", "stable", scores)
    variants = [
        Cell(prompt_of(length), method, budget)
        for length in (25, 50)
        for method in METHODS.values()
        for budget in (6, 12)
    ]

    def check(cell: Cell, kept: Kept) -> None:
        assert (plan := cell.plan(3)).waiting is not None or kept.entries == plan.keep
        assert all(layer.keys.dtype == layer.values.dtype == dtype for layer in kept.layers)

    half, logits = decode_together(tiny(dtype=dtype), variants, selection, check=check)
    assert all(outcome.error is None and len(outcome.tokens) == 6 for outcome in half)
    full, exact = decode_together(tiny(dtype=torch.float32), variants, selection)
    spread = torch.stack(exact).std()
    for ours, theirs in zip(logits, exact, strict=True):
        # The prompt's own logits: after them a near-tie may send the two dtypes apart.
        assert (ours[0] - theirs[0]).abs().max() < (0.2 if dtype == torch.bfloat16 else 0.02) * spread
    assert sum(one.tokens[0] == two.tokens[0] for one, two in zip(half, full, strict=True)) == len(variants)
    (alone,), _ = decode_together(tiny(dtype=dtype), [variants[0]], selection)
    assert alone.tokens[0] == half[0].tokens[0]


def test_half_precision_scores_are_those_of_the_model_only_where_asked_for() -> None:
    def kept(scores: Any) -> str:
        found: list[Kept] = []
        cell = Cell(prompt_of(200), METHODS["snapkv-avgpool"], 20)
        decode_together(
            tiny(dtype=torch.bfloat16),
            [cell],
            Selection("query_head", "mean", "stable", scores),
            max_new_tokens=1,
            check=lambda _, kept: found.append(kept),
        )
        return found[0].sha256

    assert kept("float32") != kept("model")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_end_their_row_with_an_error_and_no_other(value: float) -> None:
    model = tiny(seed=7)
    healthy, sick = Cell(tuple(range(30)), METHODS["snapkv"], 10), Cell((*range(29), 60), METHODS["snapkv"], 10)
    (expected,), _ = decode_together(model, [healthy])
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    assert 60 not in expected.tokens
    before = weight[60].detach().clone()
    with torch.no_grad():
        weight[60] = value
    try:
        (well, ill), _ = decode_together(model, [healthy, sick])
    finally:
        with torch.no_grad():
            weight[60] = before
    assert well == expected
    assert ill.tokens == ()
    assert ill.error is not None
    assert ill.error.startswith("logits of new token 1 are not finite")


# --- guards


@pytest.mark.parametrize("seen", [[0, 1], [0, 1, 2, 2], [2, 2, 1]])
def test_forward_that_misses_or_repeats_a_layer_stops_the_run(seen: list[int]) -> None:
    class Broken:
        config, device = SimpleNamespace(num_hidden_layers=3), torch.device("cpu")
        modules = tuple

        def __call__(self, ids: Tensor, **keywords: Any) -> Any:
            for layer in seen:
                keywords[ENGINE].attend(layer, *(torch.randn(1, 2, ids.shape[1], 4) for _ in range(3)), 0.5)
            return SimpleNamespace(logits=torch.zeros(1, 1, 5))

    with pytest.raises(ModelError, match="model=broken: .*during prefill"):
        prefill(cast("PreTrainedModel", Broken()), "broken", [1, 2], [Plan((2, 2, 2), None)], STABLE)
    rows = [Row(2, torch.zeros(5), [LayerKV(torch.randn(2, 2, 4), torch.randn(2, 2, 4)) for _ in range(3)])]
    with pytest.raises(ModelError, match="model=broken: .*during decoding step 1"):
        decode(cast("PreTrainedModel", Broken()), "broken", rows, Limits(frozenset(), 2))


def test_edges_are_the_ones_that_matter() -> None:
    assert edges(50, 4) == {
        **{
            "window+1": 5,
            "prompt-1": 49,
            "prompt": 50,
            "prompt+1": 51,
            "slope-1": 28,
            "slope": 29,
            "slope+1": 30,
            "12%": 6,
            "full": 50,
        }
    }


# --- where numbers stop being finite


def broken(weight: str, seed: int = 11) -> PreTrainedModel:
    """A model of its own with a weight that is no number."""
    model = tiny(layers=4, seed=seed)
    with torch.no_grad():
        model.get_parameter(weight)[0, 0] = torch.nan
    return model


@pytest.mark.parametrize(
    ("weight", "where"),
    [
        ("model.layers.2.mlp.down_proj.weight", "in the output of layer 2 (of 0 to 3)"),
        ("model.layers.0.self_attn.q_proj.weight", "in the output of layer 0 (of 0 to 3)"),
        ("lm_head.weight", "behind the last layer"),
    ],
)
@pytest.mark.parametrize("pieces", [False, True])
def test_first_layer_whose_output_is_not_finite_is_named(weight: str, where: str, pieces: bool) -> None:
    seed = 20 + sum(map(ord, weight))  # a cached model is not shared with another test
    model, prompt = broken(weight, seed), prompt_of(30)
    plan = Cell(prompt, METHODS["snapkv"], 10).plan(4)
    past = extend(model, NAME, prompt[:20], [plan], STABLE) if pieces else None
    done = prefill(model, NAME, prompt, [plan], STABLE, past)
    assert done.broken == where
    (ill,) = decode(model, NAME, [Row(30, done.logits, done.kept[0].layers, done.broken)], Limits(frozenset(), 3))
    assert ill.error is not None
    assert ill.error.startswith(f"logits of new token 1 are not finite, first {where}: check the weights")
    with torch.no_grad():
        model.get_parameter(weight)[0, 0] = 0.0
    assert prefill(model, NAME, prompt, [plan], STABLE).broken is None


def test_row_that_breaks_while_decoding_names_its_layer_and_the_others_go_on() -> None:
    model = tiny(seed=7)
    mine, other = Cell(prompt_of(30), METHODS["snapkv"], 10), Cell(prompt_of(25), METHODS["fullkv"], 1)
    (healthy, _), _ = decode_together(model, [mine, other])
    rows = []
    for cell in (mine, other):
        done = prefill(model, NAME, cell.prompt, [cell.plan(3)], STABLE)
        rows.append(Row(len(cell.prompt), done.logits, list(done.kept[0].layers)))
    with torch.inference_mode():
        rows[1].layers[1].values[0, 0] = torch.nan
    well, ill = decode(model, NAME, rows, Limits(frozenset(), 6))
    assert well == healthy
    assert len(ill.tokens) == 1
    assert ill.error is not None
    assert ill.error.startswith("logits of new token 2 are not finite, first in the output of layer 1 (of 0 to 2)")
