"""Conversations on the model's own answers, held to one dense forward over all that was said so far."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.compression.budget import parse_budgets
from harness.compression.grid import Variant, make_grid
from harness.compression.selection import Selection
from harness.engine import buckets, decode
from harness.engine.buckets import LayerKV, PlainBucket
from harness.engine.cache import KVCache
from harness.engine.engine import Engine
from harness.engine.model_spec import shape_of
from harness.engine.prompt import Prompt, encode_prompts
from harness.engine.request import Begun, Known, Outcome, Request, Unfinished
from harness.engine.rows import Generated, Limits
from harness.engine.sampling import GREEDY, Sampling
from harness.engine.scheduler import Scheduler
from harness.engine.settings import EngineSettings
from harness.errors import DataError
from harness.results import Cell
from harness.task import Example
from tests.harness.engine.test_hybrid import our_model, stock_batch, stock_model
from tests.harness.engine.test_question import by_masks, masks
from tests.harness.tiny import NAME, methods, prompt_of, tiny

STOPS = frozenset(range(10, 22))
NEW_TOKENS = 5
SELECTION = Selection("kv_head", "mean", "stable", "float32", "context")
DRAWN = Sampling(1.5, 0.9, 2, 7)
# By conversation: the context, and the question of each turn.
CONVERSATIONS = {
    "a": (prompt_of(24), (prompt_of(3, 1), prompt_of(2, 2), prompt_of(4, 3))),
    "b": (prompt_of(31), (prompt_of(3, 4), prompt_of(2, 5))),
    "c": (prompt_of(24), (prompt_of(1, 6),)),
    "d": (prompt_of(17), ((), prompt_of(2, 7), prompt_of(2, 8))),
}
Said = dict[tuple[str, Cell], list[tuple[int, ...]]]


@lru_cache
def grid(drawn: int = 0) -> tuple[Variant, ...]:
    chosen = [methods()[name] for name in ("fullkv", "snapkv", "h2o", "heads-of-a-layer")]
    return tuple(replace(variant, drawn=drawn) for variant in make_grid(chosen, parse_budgets([10])))


WIDE = make_grid([methods()["snapkv"]], parse_budgets([100]))
"""A variant that keeps what the full cache keeps."""


def examples(most: int | None = None) -> list[Example]:
    found = []
    for name, (context, questions) in CONVERSATIONS.items():
        for turn, question in enumerate(questions):
            first = turn == 0
            found.append(
                Example(
                    id=f"{name}{turn}",
                    prompt=(*context, *question) if first else question,
                    question_at=len(context) if first else None,
                    follows=None if first else f"{name}{turn - 1}",
                    max_new_tokens=most,
                )
            )
    return found


def requests(drawn: int = 0, most: int | None = None) -> list[Request]:
    prompts = {prompt.example.id: prompt for prompt in encode_prompts(examples(most), None, 61, "context")}
    turns: dict[str, list[Prompt]] = {}
    for name, prompt in prompts.items():
        turns.setdefault(name[0], []).append(prompt)
    return [Request(first, grid(drawn), {}, later=tuple(later)) for first, *later in turns.values()]


def run(
    width: int, asked: list[Request], sampling: Sampling = GREEDY, audit: float = 0.0
) -> dict[str, dict[Cell, Outcome]]:
    settings = EngineSettings(width, False, None, False, None, audit, "torch", "auto")
    order = [variant.cell for variant in (*grid(), *WIDE)]
    limits = Limits(STOPS, NEW_TOKENS)
    scheduler = Scheduler(Engine(tiny(), NAME), limits, order, SELECTION, settings, lambda _: None, None, sampling)
    return {
        request.prompt.example.id[0]: dict(outcomes)
        for finished in scheduler.run(asked, lambda: True)
        for request, outcomes in finished
    }


def said(found: dict[str, dict[Cell, Outcome]]) -> Said:
    return {
        (name, cell): [one.generated.tokens for one in (outcome, *outcome.later)]
        for name, by_cell in found.items()
        for cell, outcome in by_cell.items()
    }


def dense(context: tuple[int, ...], kept: list[Tensor], so_far: list[int]) -> list[int]:
    """An answer by dense forwards, up to its end token."""
    tokens = by_masks(tiny(), kept, (*context, *so_far), NEW_TOKENS)[0]
    end = next((place for place, token in enumerate(tokens, 1) if token in STOPS), len(tokens))
    return tokens[:end]


@pytest.fixture(scope="module")
def alone() -> Said:
    return said(run(1, requests()))


def test_each_turn_sees_what_was_kept_and_all_that_was_said_before(alone: Said) -> None:
    model, ended = tiny(), set()
    for name, (context, questions) in CONVERSATIONS.items():
        for variant in grid():
            plan = variant.plan(shape_of(model.config, len(context), SELECTION))
            kept, so_far = masks(model, context, plan, SELECTION), []
            for turn, question in enumerate(questions):
                so_far += question
                answer = dense(context, kept, so_far)
                assert list(alone[name, variant.cell][turn]) == answer, (name, variant.cell, turn)
                ended.add(answer[-1] in STOPS)
                so_far += answer[:-1] if answer[-1] in STOPS else answer
    assert ended == {True, False}  # answers that came to their end, and such as the limit cut


@pytest.mark.parametrize("width", [3, 64])
def test_conversations_among_others_say_what_they_say_alone(alone: Said, width: int) -> None:
    assert said(run(width, requests())) == alone


@pytest.mark.parametrize("turns", [1, 2])
def test_a_conversation_that_goes_on_from_stored_answers_says_what_it_says_in_one_go(alone: Said, turns: int) -> None:
    asked = []
    for request in requests():
        done = min(turns, len(request.later))
        begun = {
            (variant.cell, 0): Begun(tuple(map(Generated, alone[request.prompt.example.id[0], variant.cell][:done])))
            for variant in grid()
            if done
        }
        asked.append(replace(request, begun=begun))
    assert said(run(64, asked)) == alone


def test_an_answer_that_had_begun_goes_on_where_it_was(alone: Said) -> None:
    asked = []
    for request in requests():
        answers = {variant.cell: alone[request.prompt.example.id[0], variant.cell] for variant in grid()}
        begun = {(cell, 0): Begun(tuple(map(Generated, given[:-1])), given[-1][:-1]) for cell, given in answers.items()}
        asked.append(replace(request, begun=begun))
    assert said(run(64, asked)) == alone


def test_each_sample_is_a_conversation_of_its_own_and_goes_on_from_what_it_said() -> None:
    two = requests(2)[:2]
    whole = run(64, two, DRAWN)
    assert any(outcome.samples[0] != outcome.samples[1] for outcome in whole["a"].values())
    assert run(3, two, DRAWN) == whole
    again = [
        replace(
            request,
            begun={
                (cell, sample): Begun((outcome.samples[sample],))
                for cell, outcome in whole[request.prompt.example.id[0]].items()
                for sample in range(2)
                if request.later
            },
        )
        for request in two
    ]
    assert run(64, again, DRAWN) == whole


def test_an_example_with_a_limit_of_its_own_ends_there_and_the_next_turn_sees_no_more() -> None:
    for name, by_cell in run(64, requests(most=2)[:2]).items():
        context, questions = CONVERSATIONS[name]
        for variant in grid():
            plan = variant.plan(shape_of(tiny().config, len(context), SELECTION))
            kept, first = masks(tiny(), context, plan, SELECTION), by_cell[variant.cell].generated.tokens
            assert len(first) <= 2
            seen = [*questions[0], *(first[:-1] if first[-1] in STOPS else first), *questions[1]]
            answer = dense(context, kept, seen)[:2]
            assert list(by_cell[variant.cell].later[0].generated.tokens) == answer


def test_a_row_that_another_cell_decoded_before_brings_all_of_its_turns(alone: Said) -> None:
    first = requests()[0]
    full = run(64, [first])["a"]
    cell = Cell("fullkv", "full")
    known: dict[Cell, Known] = {cell: full[cell].known()}
    (outcome,) = run(64, [replace(first, missing=WIDE, known=known)])["a"].values()
    assert outcome.alias_of == cell
    assert [one.generated.tokens for one in (outcome, *outcome.later)] == alone["a", cell]


def test_the_first_turn_is_audited_for_all() -> None:
    audits = [outcome.audit for by_cell in run(64, requests()[:2], audit=1.0).values() for outcome in by_cell.values()]
    assert any(audits) and all(audit is None or audit.same for audit in audits)


def test_an_example_that_follows_none_before_it_is_one_line() -> None:
    with pytest.raises(DataError, match=r"example 'a1' follows 'a0', which is none before it: mend the task"):
        encode_prompts(examples()[1:2], None, 61, "context")


def test_the_prompt_of_a_turn_is_all_questions_so_far_and_its_own_alone_runs_through_the_cache() -> None:
    context, (first, second, _) = CONVERSATIONS["a"]
    prompt = encode_prompts(examples(), None, 61, "context")[1]
    assert prompt.ids.tolist() == [*context, *first, *second] and prompt.context.tolist() == list(context)
    assert np.array_equal(prompt.question, second)


# --- long answers


def test_room_that_grows_changes_no_token(alone: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    grown: list[int] = []
    reserve = KVCache.reserve

    def noted(cache: KVCache) -> bool:
        grown.append(reserve(cache))
        return bool(grown[-1])

    monkeypatch.setattr(KVCache, "reserve", noted)
    monkeypatch.setattr(buckets, "FIRST_SPARE", 1)
    assert said(run(64, requests())) == alone
    assert sum(grown) > 2


def test_room_grows_by_half_in_one_layer_at_a_time_and_never_beyond_what_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(buckets, "FIRST_SPARE", 8)
    kept = LayerKV(torch.zeros(2, 40, 4), torch.zeros(2, 40, 4))
    (bucket,) = kept.buckets([kept], buckets.Joining(0, 100, 2))
    assert isinstance(bucket, PlainBucket)
    rooms = [bucket.keys.shape[2]]
    for _ in range(100):
        bucket.reserve()
        bucket.attend(*(torch.ones(1, 2, 1, 4) for _ in range(3)), 1.0, 0)
        bucket.advance()
        rooms.append(bucket.keys.shape[2])
    assert sorted(set(rooms)) == [50, 75, 112, 142] and bucket.values.shape == bucket.keys.shape
    assert bool((bucket.keys[:, :, 42:] == 1).all())


def test_a_question_in_pieces_says_what_it_says_at_once(alone: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_PIECE_TOKENS", 2)
    assert said(run(64, requests())) == alone


def test_a_row_that_decodes_for_too_long_ends_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(decode.time, "monotonic", lambda: next(clock))
    whole = said(run(1, requests()[:1]))
    settings = EngineSettings(64, False, None, False, None, 0.0, "torch", "auto")
    cell = Cell("fullkv", "full")
    limits = Limits(frozenset(), 40, 0, 6.5)
    scheduler = Scheduler(Engine(tiny(), NAME), limits, [cell], SELECTION, settings, lambda _: None)
    asked = replace(requests()[0], missing=grid()[:1])
    ((((_, outcomes),),),) = [list(scheduler.run([asked], lambda: True))]
    first, *later = (outcomes[cell], *outcomes[cell].later)
    assert first.generated.partial and 1 < len(first.generated.tokens) < 40
    assert first.generated.tokens[: len(whole["a", cell][0]) - 1] == whole["a", cell][0][:-1]
    assert f"row_time_limit_seconds=6.5: the {len(first.generated.tokens)} tokens so far" in str(first.generated.error)
    assert [one.generated.tokens for one in later] == [(), ()]
    assert all("an earlier turn of the conversation has no result" in str(one.generated.error) for one in later)


def test_what_long_rows_have_is_told_every_so_many_steps_and_they_go_on_from_there(alone: Said) -> None:
    told: list[list[Unfinished]] = []
    settings = EngineSettings(64, False, None, False, None, 0.0, "torch", "auto", save_tokens=2)
    order = [variant.cell for variant in grid()]
    limits = Limits(STOPS, NEW_TOKENS)
    make = partial(Scheduler, Engine(tiny(), NAME), limits, order, SELECTION, settings, lambda _: None)
    finished = make(save=lambda rows: told.append(list(rows))).run(requests(), lambda: True)
    assert len([prompts for prompts in finished]) and len(told) > 2
    for rows in (told[1], max(told, key=len)):
        for row in rows:
            given = alone[row.example[0], row.cell]
            ended, tokens = [answer.tokens for answer in row.begun.answers], row.begun.tokens
            assert ended == given[: len(ended)] and tokens == given[len(ended)][: len(tokens)]
            assert len(tokens) + sum(map(len, ended)) >= 2
        begun = {request.prompt.example.id: {} for request in requests()}
        for row in rows:
            begun[row.example][row.cell, row.sample] = row.begun
        assert said(run(64, [replace(one, begun=begun[one.prompt.example.id]) for one in requests()])) == alone


@pytest.mark.parametrize("name", ["gemma3", "llama4"])
def test_conversations_go_on_in_layers_with_windows_as_stock_generate_does_on_all_that_was_said(name: str) -> None:
    model, stock = our_model(name), stock_model(name)
    context, questions, steps = prompt_of(21), (prompt_of(3, 1), prompt_of(9, 2), prompt_of(2, 3)), 11
    prompts = encode_prompts(
        [
            Example(
                f"w{turn}",
                (*context, *question) if turn == 0 else question,
                question_at=len(context) if turn == 0 else None,
                follows=f"w{turn - 1}" if turn else None,
            )
            for turn, question in enumerate(questions)
        ],
        None,
        61,
        "context",
    )
    variants = make_grid([methods()["fullkv"]], parse_budgets([10]))
    settings = EngineSettings(64, False, None, False, None, 0.0, "torch", "auto")
    make = partial(Scheduler, Engine(model, NAME), Limits(frozenset(), steps), [variants[0].cell], SELECTION, settings)
    request = Request(prompts[0], variants, {}, later=tuple(prompts[1:]))
    so_far: list[int] = list(context)
    ((((_, outcomes),),),) = [list(make(lambda _: None).run([request], lambda: True))]
    for turn, question in enumerate(questions):
        (expected,) = stock_batch(stock, [(*so_far, *question)], steps)
        assert list(outcomes[variants[0].cell].of_turn(turn).generated.tokens) == expected
        so_far += [*question, *expected]
