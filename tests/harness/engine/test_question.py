"""Questions that run through compressed caches, held to one dense forward in which they see only what was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedModel

from harness.compression.grid import Plan
from harness.compression.selection import Selection
from harness.engine.attention import ENGINE
from harness.engine.decode import Decoding
from harness.engine.engine import Engine
from harness.engine.layer_forms import PLAIN, LayerForm, layer_forms
from harness.engine.prefill import prefill
from harness.engine.prefill_attention import PrefillAttention
from harness.engine.prompt import encode_prompts
from harness.engine.rows import Limits, Row
from harness.errors import DataError
from harness.task import Example
from tests.conftest import ROOT
from tests.harness.tiny import HEADS, NAME, STABLE, Cell, cells, config, methods, prompt_of, selections, tiny

NEW_TOKENS = 4


@dataclass
class Masked:
    """Dense attention over a whole prompt in which tokens after the context see of it what was kept, head by head."""

    kept: Sequence[Tensor]
    """Per layer, whether each token of the context is kept, [heads, tokens]."""
    seen: list[int] = field(default_factory=list)
    forms: Sequence[LayerForm] = (PLAIN,) * 9

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        self.seen.append(layer)
        heads, tokens = queries.shape[1], queries.shape[2]
        copies, context = heads // keys.shape[1], self.kept[layer].shape[1]
        visible = torch.ones(heads, tokens, tokens, dtype=torch.bool).tril()
        visible[:, context:, :context] = self.kept[layer][:, None]
        logits = queries[0] @ keys[0].repeat_interleave(copies, 0).mT * scaling
        weights = logits.masked_fill(~visible, -torch.inf).softmax(-1)
        return (weights @ values[0].repeat_interleave(copies, 0)).transpose(0, 1)[None]


def masks(model: PreTrainedModel, context: Sequence[int], plan: Plan, selection: Selection) -> list[Tensor]:
    """Which tokens of the context each query head keeps in each layer."""
    forms = layer_forms(model)
    attention = PrefillAttention([plan], forms, selection, None, whole=True)
    with torch.inference_mode():
        model(torch.tensor([list(context)]), **{ENGINE: attention})
    attention.keeping.end()
    (growing,) = attention.keeping.growing.values()
    found = []
    for counts, indices in zip(growing.entries, growing.indices, strict=True):
        kept = torch.ones(HEADS, len(context), dtype=torch.bool)
        if indices is not None:
            by_head = list(indices) if isinstance(counts, int) else list(indices[len(counts) :].split(counts))
            kept[:] = False
            for head in range(HEADS):
                kept[head, by_head[head * len(by_head) // HEADS].long()] = True
        found.append(kept)
    return found


def by_masks(
    model: PreTrainedModel, kept: Sequence[Tensor], prompt: Sequence[int], new_tokens: int = NEW_TOKENS
) -> tuple[list[int], list[Tensor]]:
    """Tokens and logits by one dense forward per token."""
    ids, logits = list(prompt), []
    with torch.inference_mode():
        for _ in range(new_tokens):
            output = model(torch.tensor([ids]), use_cache=False, **{ENGINE: Masked(kept)})
            logits.append(output.logits[0, -1].float())
            ids.append(int(logits[-1].argmax()))
    return ids[len(prompt) :], logits


@settings(max_examples=8)
@given(
    some=cells(prompts=2, most=3), selection=selections(), kv_heads=st.sampled_from([1, 2, 4]), seed=st.integers(0, 9)
)
def test_a_question_sees_what_was_kept_and_itself_whatever_runs_beside_it(
    some: list[Cell], selection: Selection, kv_heads: int, seed: int
) -> None:
    model = tiny(kv_heads)
    heads = HEADS if selection.granularity == "query_head" else kv_heads
    seen: dict[int, list[Tensor]] = {index: [] for index in range(len(some))}

    def observe(numbers: Sequence[int], logits: Tensor) -> None:
        for number, row in zip(numbers, logits, strict=True):
            seen[number].append(row)

    rows, expected = [], []
    for index, cell in enumerate(some):
        question, plan = prompt_of(1 + (seed + index) % 3, seed), cell.plan(3, heads)
        done = prefill(model, NAME, cell.prompt, [plan], selection)
        prompt = (*cell.prompt, *question)
        rows.append(Row(len(prompt), done.logits, done.kept[0].layers, done.broken, question))
        expected.append(by_masks(model, masks(model, cell.prompt, plan, selection), prompt))
    decoding = Decoding(model, NAME, Limits(frozenset(), NEW_TOKENS), observe)
    half = len(rows) // 2 or 1
    decoding.add(rows[:half])
    decoding.step()
    if rows[half:]:
        decoding.add(rows[half:])  # while the others decode
    while decoding.alive:
        decoding.step()
    generated = decoding.take()
    for index, (tokens, logits) in enumerate(expected):
        torch.testing.assert_close(torch.stack(seen[index][:NEW_TOKENS]), torch.stack(logits), rtol=1e-5, atol=1e-5)
        assert list(generated[index].tokens) == tokens


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_full_cache_of_the_context_answers_as_generate_does_on_the_whole_prompt(kv_heads: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stock = LlamaForCausalLM(config(kv_heads)).double().train(False)
    prompt = prompt_of(40)
    asked, every = torch.tensor([prompt]), torch.ones(1, len(prompt))
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    ids = stock.generate(asked, attention_mask=every, **options)
    engine = Engine(tiny(kv_heads), NAME)
    for at in (1, 20, 39, 40):
        plan = Plan((at,) * 3, None)
        (row,) = engine.generate(prompt[:at], [plan], STABLE, Limits(frozenset(), 12), prompt[at:])
        assert row.tokens == tuple(ids[0, len(prompt) :].tolist())


def test_a_row_that_ends_with_its_first_token_after_a_question_leaves_the_others_as_they_are() -> None:
    engine, context = Engine(tiny(), NAME), prompt_of(30)
    plans = [Cell(context, method, 12).plan(3) for method in methods().values()]
    many = engine.generate(context, plans, STABLE, Limits(frozenset(), 5), (1, 2, 3))
    stops = frozenset({many[0].tokens[0]})
    ended = engine.generate(context, plans, STABLE, Limits(stops, 5), (1, 2, 3))
    assert ended[0].tokens == many[0].tokens[:1]
    for row, whole in zip(ended, many, strict=True):
        cut = next((place + 1 for place, token in enumerate(whole.tokens) if token in stops), 5)
        assert row.tokens == whole.tokens[:cut]
    one = engine.generate(context, plans, STABLE, Limits(frozenset(), 1), (1, 2, 3))
    assert [row.tokens for row in one] == [row.tokens[:1] for row in many]


def test_numbers_that_stop_being_finite_in_a_question_are_an_error_with_their_layer() -> None:
    engine, context = Engine(tiny(seed=1), NAME), prompt_of(30)
    weight = engine.model.get_input_embeddings().weight
    before = weight[60].clone()
    try:
        weight.data[60] = torch.nan
        plan = Cell(context, methods()["snapkv"], 12).plan(3)
        rows = engine.generate([t for t in context if t != 60], [plan], STABLE, Limits(frozenset(), 5), (3, 60))
    finally:
        weight.data[60] = before
    assert rows[0].tokens == () and "new token 1 are not finite, first in the embeddings" in str(rows[0].error)


def test_the_context_of_a_text_ends_before_the_token_that_reaches_into_the_question() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models" / "tiny")
    text = "The harbour is quiet. What is quiet?"
    whole = tokenizer.encode(text)
    for at in range(8, len(text) + 1):
        (prompt,) = encode_prompts([Example("a", text, question_at=at)], tokenizer, 4096, "context")
        alone = tokenizer.encode(text[:at])
        assert prompt.ids.tolist() == whole
        assert prompt.context.tolist() == whole[: prompt.context_tokens] == alone[: prompt.context_tokens]
        assert prompt.question.tolist() == whole[prompt.context_tokens :]
        assert len(alone) - prompt.context_tokens <= 3
    (prompt,) = encode_prompts([Example("a", text, question_at=9)], tokenizer, 4096)
    assert prompt.context.tolist() == whole and not len(prompt.question)


@pytest.mark.parametrize(
    ("at", "told"), [(0, "has no context before its question"), (5, "begins at 5"), (-1, "begins at -1")]
)
def test_a_boundary_without_context_or_outside_of_the_prompt_is_refused_in_one_line(at: int, told: str) -> None:
    with pytest.raises(DataError, match=told) as error:
        encode_prompts([Example("a", (1, 2, 3), question_at=at)], None, 10, "context")
    assert "\n" not in str(error.value)


def test_numpy_ids_of_a_prompt_are_cut_without_a_copy() -> None:
    (prompt,) = encode_prompts([Example("a", (1, 2, 3), question_at=2)], None, 10, "context")
    assert np.shares_memory(prompt.context, prompt.ids) and np.shares_memory(prompt.question, prompt.ids)
