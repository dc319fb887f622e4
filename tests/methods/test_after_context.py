"""What every method promises where entries are selected before the question: questions change nothing of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from harness.compression.budget import parse_budgets
from harness.compression.grid import Variant, make_grid
from harness.compression.selection import Selection
from harness.config.build import composed
from harness.config.methods import build_methods
from harness.engine.attention import ENGINE
from harness.engine.engine import Engine
from harness.engine.layer_forms import layer_forms
from harness.engine.model_spec import shape_of
from harness.engine.prefill_attention import PrefillAttention
from harness.engine.prompt import Prompt
from harness.engine.request import Outcome, Request, by_context
from harness.engine.rows import Limits
from harness.engine.scheduler import Scheduler
from harness.engine.settings import EngineSettings
from harness.results import Cell
from harness.task import Example
from methods.kvcompose import KVCompose
from methods.kvzip import KVzip
from tests.harness.tiny import NAME, VOCABULARY, prompt_of, tiny

CONTEXT = prompt_of(150)
QUESTIONS = (prompt_of(5, 1), prompt_of(1, 2), (), prompt_of(5, 3))
AGGREGATED: Any = ("max", "mean", "mean", False, True, 0)
Found = Mapping[str, Mapping[Cell, tuple[tuple[int, ...], str]]]


class Words:
    """A tokenizer by which a letter is a token."""

    def encode(self, text: str, **_: object) -> list[int]:
        return [ord(letter) % VOCABULARY for letter in text]


@lru_cache
def grid() -> tuple[Variant, ...]:
    """Every method of ``method=all``, and those that read the context again, at half of the context."""
    nodes = cast("dict[str, Any]", OmegaConf.to_container(composed("method=all").method, resolve=True))
    texts = ("repeat this", "repeat the part after", "now")
    replayed = [KVzip(f"kvzip{layerwise}", layerwise, 64, 4, True, *texts, 0) for layerwise in (False, True)]
    reread = [KVCompose(f"kvcompose{structured}", structured, *AGGREGATED) for structured in (False, True)]
    return make_grid([*build_methods(nodes), *replayed, *reread], parse_budgets(["50%"]))


def selection_of(granularity: str) -> Selection:
    return Selection(granularity, "mean", "stable", "float32", "context")  # type: ignore[arg-type]


def request(question: Sequence[int], after: str = "context") -> Request:
    ids = np.array((*CONTEXT, *question), dtype="<i4")
    tokens = len(CONTEXT) if after == "context" else len(ids)
    return Request(Prompt(Example(id=str(question), prompt=()), ids, "0" * 64, (), False, tokens), grid(), {})


def scheduler(granularity: str = "kv_head") -> Scheduler:
    settings = EngineSettings(64, False, None, False, None, 0.0, "torch", "auto")
    order = [variant.cell for variant in grid()]
    engine, limits = Engine(tiny(), NAME, tokenizer=cast("Any", Words())), Limits(frozenset(), 4)
    return Scheduler(engine, limits, order, selection_of(granularity), settings, lambda _: None)


def run(requests: Sequence[Request], granularity: str = "kv_head", at_work: Scheduler | None = None) -> Found:
    """Tokens and kept sets by question and cell."""
    return {
        request.prompt.example.id: {cell: plain(outcome) for cell, outcome in outcomes.items()}
        for finished in (at_work or scheduler(granularity)).run(requests, lambda: True)
        for request, outcomes in finished
    }


def plain(outcome: Outcome) -> tuple[tuple[int, ...], str]:
    assert outcome.generated.error is None and outcome.kept is not None
    return outcome.generated.tokens, outcome.kept.sha256


@pytest.fixture(scope="module", params=["kv_head", pytest.param("query_head", marks=pytest.mark.slow)])
def granularity(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def together(granularity: str) -> Found:
    return run([request(question) for question in QUESTIONS], granularity)


def test_each_question_alone_has_the_tokens_that_it_has_among_others_in_any_order(
    together: Found, granularity: str
) -> None:
    assert run([request(question) for question in reversed(QUESTIONS)], granularity) == together
    for question in QUESTIONS[1:3]:
        assert run([request(question)], granularity) == {str(question): together[str(question)]}


def test_a_context_is_prefilled_once_for_all_of_its_questions_and_gives_what_it_gives_apart(together: Found) -> None:
    other = Request(replace(request((3, 4)).prompt, ids=request((3, 4)).prompt.ids[::-1].copy()), grid(), {})
    mixed = [request(QUESTIONS[0]), other, request(QUESTIONS[1]), request(QUESTIONS[3])]
    ordered = by_context(mixed)
    assert [one.prompt.sha256 == other.prompt.sha256 and one.prompt is other.prompt for one in ordered] == [
        False, False, False, True,
    ]  # fmt: skip
    assert [one.shared for one in ordered] == [True, True, False, False]
    at_work = scheduler()
    found = run(ordered, at_work=at_work)
    assert found == run(mixed)
    assert at_work.prefiller.prompts == 2 and at_work.prefiller.prefilled_tokens == 2 * len(CONTEXT)
    rows = len({sha256 for _, sha256 in found[str(QUESTIONS[0])].values()})
    of_other = len({sha256 for _, sha256 in found[str((3, 4))].values()})
    assert at_work.asked == rows * sum(map(len, (QUESTIONS[0], QUESTIONS[1], QUESTIONS[3]))) + 2 * of_other


def test_no_question_changes_what_was_kept(together: Found) -> None:
    kept = [{cell: sha256 for cell, (_, sha256) in outcomes.items()} for outcomes in together.values()]
    assert len(kept) == len(QUESTIONS) and all(one == kept[0] for one in kept)
    assert len(set(kept[0].values())) > len(kept[0]) // 2


def test_without_a_question_both_boundaries_are_the_same(together: Found, granularity: str) -> None:
    assert run([request((), "prompt")], granularity) == {"()": together["()"]}


def kept_of(name: str, prompt: Sequence[int], budget: int) -> torch.Tensor:
    """Which tokens a method keeps, [layers, kv heads, tokens]."""
    method = next(variant.method for variant in grid() if variant.method.label == name)
    (variant,) = make_grid([method], parse_budgets([budget]))
    model, selection = tiny(), selection_of("kv_head")
    plan = variant.plan(shape_of(model.config, len(prompt), selection))
    attention = PrefillAttention([plan], layer_forms(model), selection, None, whole=True)
    with torch.inference_mode():
        model(torch.tensor([list(prompt)]), **{ENGINE: attention})
    indices = torch.stack([layer for layer in attention.keeping.growing[plan].indices if layer is not None]).long()
    return torch.zeros(3, 2, len(prompt), dtype=torch.bool).scatter(2, indices, True)


@pytest.mark.parametrize("name", ["knorm", "streamingllm"])
def test_a_method_whose_scores_see_no_question_keeps_of_the_context_no_other_tokens_at_the_other_boundary(
    name: str,
) -> None:
    question = prompt_of(6, 1)
    whole, alone = kept_of(name, (*CONTEXT, *question), 60), kept_of(name, CONTEXT, 60)
    assert whole[..., : len(CONTEXT)].any() and not (whole[..., : len(CONTEXT)] & ~alone).any()
    if name == "streamingllm":  # with a window that is longer by the question, exactly the same
        wider = kept_of(name, (*CONTEXT, *question), 60 + len(question))
        assert wider[..., : len(CONTEXT)].equal(alone) and wider[..., len(CONTEXT) :].all()


def test_what_is_drawn_at_random_depends_on_the_length_of_the_context_alone() -> None:
    assert kept_of("random", CONTEXT, 60).equal(kept_of("random", prompt_of(len(CONTEXT), 7), 60))
