"""A grid that answers prompts: continuations are scored through what was kept, and every cell shares a prefill."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from harness.compression.budget import parse_budgets
from harness.compression.grid import Variant, make_grid
from harness.compression.method import LayerState, Method
from harness.compression.quantised_storage import Quantised
from harness.compression.scorers import FirstTokens
from harness.compression.storage import EXACT
from harness.drivers.asked import is_setting
from harness.drivers.grid import AnsweringGrid, Scores
from harness.engine.attention import ENGINE
from harness.engine.engine import Engine
from harness.engine.model_spec import shape_of
from harness.engine.rows import Limits
from harness.engine.sampling import GREEDY, Sampling
from harness.engine.scoring import Tokens
from harness.engine.settings import EngineSettings
from harness.errors import EngineError
from tests.harness.engine.test_question import Masked, masks
from tests.harness.tiny import NAME, STABLE, config, methods, prompt_of, tiny

CONTEXT = prompt_of(40)
CONTINUATIONS: tuple[Tokens, ...] = ((5,), (7,), (5, 9, 11), (5, 9, 12), (1, 2, 3, 4, 5, 6))


@dataclass(frozen=True)
class Broken(FirstTokens):
    def score(self, layer: LayerState) -> Tensor:
        raise ValueError("no scores today")


@dataclass(frozen=True)
class Endless(FirstTokens):
    def score(self, layer: LayerState) -> Tensor:
        time.sleep(60)
        return super().score(layer)


@dataclass(frozen=True)
class EndlessMethod(Method):
    @property
    def scorer(self) -> FirstTokens:
        return Endless(1)


@dataclass(frozen=True)
class BrokenMethod(Method):
    @property
    def scorer(self) -> FirstTokens:
        return Broken(1)


def grid(*some: Method, budgets: Sequence[int | str] = (12,), reuse: bool = False, width: int = 64) -> AnsweringGrid:
    settings = EngineSettings(width, False, None, reuse, None, 0.0, "torch", "auto")
    variants = make_grid(some or list(methods().values())[:8:3], parse_budgets(list(budgets)))
    return AnsweringGrid(Engine(tiny(), NAME), variants, STABLE, settings, print)


def scores(of: AnsweringGrid, context: Tokens = CONTEXT, some: Sequence[Tokens] = CONTINUATIONS) -> Scores:
    ((_, found),) = of.score({context: some})
    return found


def by_kept(variant: Variant, continuation: Tokens) -> Tensor:
    """Logits of a continuation by a dense forward in which its tokens, and the context's last, see what was kept."""
    model = tiny()
    plan = variant.plan(shape_of(model.config, len(CONTEXT) - 1, STABLE))
    kept = masks(model, CONTEXT[:-1], plan, STABLE)
    ids = torch.tensor([[*CONTEXT, *continuation[:-1]]])
    with torch.inference_mode():
        logits: Tensor = model(ids, use_cache=False, **{ENGINE: Masked(kept)}).logits
    return logits[0, -len(continuation) :]


@contextmanager
def forwards() -> Iterator[list[tuple[int, int]]]:
    """The rows and tokens of every forward of the model."""
    seen: list[tuple[int, int]] = []

    def note(_: object, inputs: tuple[Any, ...]) -> None:
        seen.append(tuple(inputs[0].shape))

    handle = tiny().register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def test_the_full_cache_finds_a_continuation_as_probable_as_the_stock_model_does() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stock = LlamaForCausalLM(config()).double().train(False)
    of = grid(methods()["fullkv"])
    greedy = tuple(stock.generate(torch.tensor([CONTEXT]), max_new_tokens=3, do_sample=False)[0, 40:].tolist())
    for context in (CONTEXT, CONTEXT[:1], CONTEXT[:2]):
        (found,) = scores(of, context, (*CONTINUATIONS, greedy)).values()
        for continuation, one in zip((*CONTINUATIONS, greedy), found, strict=True):
            with torch.inference_mode():
                logits = stock(torch.tensor([[*context, *continuation]])).logits[0, len(context) - 1 : -1]
            ids = torch.tensor(continuation)
            expected = logits.log_softmax(-1).gather(1, ids[:, None]).sum()
            assert one.log_probability == pytest.approx(float(expected), abs=1e-4) and one.error is None
            assert one.is_greedy == bool((logits.argmax(-1) == ids).all())
        assert found[-1].is_greedy == (context == CONTEXT)


def test_every_token_of_a_continuation_is_scored_through_what_was_kept_also_the_only_one() -> None:
    of, full = grid(*{method.label: method for method in methods().values()}.values()), grid(methods()["fullkv"])
    found, (whole,) = scores(of), scores(full).values()
    for variant in of.variants:
        for place, continuation in enumerate(CONTINUATIONS):
            logits = by_kept(variant, continuation)
            expected = logits.log_softmax(-1).gather(1, torch.tensor(continuation)[:, None]).sum()
            one = found[variant.cell][place]
            assert one.log_probability == pytest.approx(float(expected), abs=1e-4)
            compressed = variant.method.scorer is not None
            assert (abs(one.log_probability - whole[place].log_probability) > 1e-3) == compressed, (variant, place)
    tally = of.tallies[of.variants[1].cell]
    assert (tally.contexts, tally.compressed) == (1, 1) and 0 < tally.bytes < 2 * tally.full_bytes
    assert full.tallies[full.variants[0].cell].compressed == 0


def test_a_packed_cache_finds_other_probabilities_near_those_of_the_cache_as_it_is() -> None:
    settings, snapkv = EngineSettings(64, False, None, False, None, 0.0, "torch", "auto"), methods()["snapkv"]
    int8, kivi2 = Quantised("int8", "token", 8, None, 0), Quantised("kivi2", "channel", 2, 4, 8)
    variants = make_grid([snapkv], parse_budgets([24]), storages=[EXACT, int8, kivi2])
    of = AnsweringGrid(Engine(tiny(), NAME), variants, STABLE, settings, print)
    exact, near, far = ([one.log_probability for one in some] for some in scores(of).values())
    off = [sum(abs(a - b) for a, b in zip(exact, other, strict=True)) for other in (near, far)]
    assert 0 < off[0] < 0.1 * off[1]
    tallies = [of.tallies[variant.cell].bytes for variant in variants]
    assert tallies[1] < 0.5 * tallies[0] and tallies[2] < tallies[0]
    assert is_setting("storage") and is_setting("storage.kivi2.residual")


def test_continuations_of_a_context_and_all_cells_share_its_prefill_and_each_step() -> None:
    of = grid()
    with forwards() as seen:
        found = scores(of)
    # Continuations of one token share a row, and so do the two that differ in the last of three.
    assert seen == [(1, 39), (3, 1), (3, 3), (3, 6)] and len(found) == 3


def test_a_common_beginning_of_contexts_is_prefilled_once_if_asked() -> None:
    beginning = prompt_of(100)
    contexts = {(*beginning, *prompt_of(9, seed)): CONTINUATIONS for seed in range(3)}
    alone, shared = dict(grid().score(contexts)), {}
    with forwards() as seen:
        shared = dict(grid(reuse=True).score(contexts))
    assert sum(tokens for _, tokens in seen if tokens > 6) == 100 + 3 * 8
    for context, of in alone.items():
        for cell, some in of.items():
            for one, other in zip(some, shared[context][cell], strict=True):
                assert one.log_probability == pytest.approx(other.log_probability, abs=1e-6)


def test_continuations_run_in_smaller_batches_when_memory_runs_out_and_alone_they_are_an_error() -> None:
    whole, largest = scores(grid()), 1

    def scarce(_: object, inputs: tuple[Any, ...]) -> None:
        if inputs[0].shape[1] < 39 and inputs[0].shape[0] > largest:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = tiny().register_forward_pre_hook(scarce)
    try:
        parts = scores(grid())
        largest = 0
        with pytest.raises(EngineError, match="a continuation of 1 tokens does not fit into memory"):
            scores(grid())
    finally:
        handle.remove()
    for cell, some in whole.items():
        for one, other in zip(some, parts[cell], strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-9)


def test_a_method_that_fails_or_cannot_obey_its_budget_leaves_the_other_cells_their_numbers() -> None:
    some = methods()
    of = grid(some["fullkv"], BrokenMethod("broken"), some["snapkv"], budgets=("10%",))
    found = {cell.name: each for cell, each in scores(of).items()}
    assert all(one.error is None for one in found["fullkv-full"])
    assert "ValueError" in str(found["broken-10%"][0].error) and "no scores today" in str(found["broken-10%"][0].error)
    assert "10% of a prompt of 39 tokens" in str(found["snapkv-10%"][0].error)


def test_a_method_that_hangs_costs_its_own_cell_alone() -> None:
    of = grid(methods()["fullkv"], EndlessMethod("endless"))
    of.settings = replace(of.settings, time_limit_seconds=1.0)
    whole, endless = scores(of).values()
    assert all(one.error is None for one in whole)
    assert all("took longer than engine.time_limit_seconds=1.0" in str(one.error) for one in endless)


def test_a_context_beyond_a_table_of_positions_is_an_error_of_its_own() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=32, n_embd=16, n_layer=1, n_head=2))
    of = replace(grid(methods()["fullkv"]), engine=Engine.wrap(model, name="gpt2"))
    found = dict(of.score({prompt_of(30): ((1, 2, 3),), prompt_of(31): ((1, 2, 3),)}))
    fits, beyond = ([each for some in by_cell.values() for each in some] for by_cell in found.values())
    assert fits[0].error is None and "33 positions, and the model has 32" in str(beyond[0].error)


def test_numbers_that_are_not_finite_are_an_error_and_no_score() -> None:
    of, weight = grid(methods()["fullkv"]), tiny().get_input_embeddings().weight
    before = weight[60].clone()
    try:
        weight.data[60] = torch.nan
        (found,) = scores(of, tuple(t for t in CONTEXT if t != 60), ((5, 60, 5), (5, 6))).values()
    finally:
        weight.data[60] = before
    assert "not finite" in str(found[0].error) and found[1].error is None


def test_prompts_are_answered_as_the_engine_answers_them_until_a_text_is_said() -> None:
    of, prompts = grid(), [prompt_of(30), prompt_of(35)]
    found = dict(of.generate(prompts, Limits(frozenset(), 8), GREEDY))
    for place, prompt in enumerate(prompts):
        plans = [variant.plan(shape_of(tiny().config, len(prompt), STABLE)) for variant in of.variants]
        alone = of.engine.generate(prompt, plans, STABLE, Limits(frozenset(), 8))
        assert [each[0].tokens for each in found[place].values()] == [one.tokens for one in alone]
    third = {answer[0].tokens[2] for answers in found.values() for answer in answers.values()}
    cut = dict(of.generate(prompts, Limits(frozenset(), 8, is_said=lambda tokens: tokens[-1] in third), GREEDY))
    for place, answers in cut.items():
        for cell, (answer,) in answers.items():
            whole = found[place][cell][0].tokens
            end = next(at for at, token in enumerate(whole) if token in third) + 1
            assert end <= 3 and answer.tokens == whole[:end]


def test_drawn_answers_are_as_many_as_asked_and_the_same_again() -> None:
    prompts, sampling = [prompt_of(30)], Sampling(1.5, 1.0, 3, 0)
    one, again = (dict(grid().generate(prompts, Limits(frozenset(), 8), sampling)) for _ in range(2))
    assert {cell: [each.tokens for each in some] for cell, some in one[0].items()} == {
        cell: [each.tokens for each in some] for cell, some in again[0].items()
    }
    assert all(len({each.tokens for each in some}) == 3 for some in one[0].values())
