"""Drawn answers: their chances, and that nothing beside a row changes what it draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.compression.budget import parse_budgets
from harness.compression.grid import Variant, make_grid
from harness.compression.selection import Selection
from harness.engine import engine as engine_module
from harness.engine import shared_rows
from harness.engine.decode import Decoding, Limits, Row
from harness.engine.engine import Engine
from harness.engine.request import Known, Outcome, Request
from harness.engine.sampling import GREEDY, Sampling, best_tokens, drawn_tokens
from harness.engine.scheduler import Finished, Scheduler
from harness.engine.settings import EngineSettings
from harness.errors import ConfigError
from harness.results import Cell
from tests.harness.engine.test_scheduler import NEW_TOKENS, STOPS, comparable, requests
from tests.harness.tiny import NAME, methods, tiny

SAMPLING = Sampling(1.5, 0.9, 3, 7)
Found = dict[tuple[str, Cell], Outcome]


def drawing(drawn: int = SAMPLING.drawn) -> tuple[Variant, ...]:
    """The full cache drawn and greedy, SnapKV at 12 entries and at more than some prompts have."""
    return make_grid([methods()[name] for name in ("fullkv", "snapkv")], parse_budgets([12, 40]), drawn)


def gathered(
    width: int, asked: list[Request], sampling: Sampling = SAMPLING, audit: float = 0.0, exact: bool = False
) -> Found:
    settings = EngineSettings(width, exact, None, False, None, audit, "torch", "auto")
    limits = Limits(frozenset(STOPS), NEW_TOKENS, 1)
    order = [variant.cell for variant in drawing()]
    selection = Selection("kv_head", "mean", "stable", "float32")
    scheduler = Scheduler(Engine(tiny(), NAME), limits, order, selection, settings, print, None, sampling)
    finished: Iterator[list[Finished]] = scheduler.run(asked, lambda: True)
    return {
        (request.prompt.example.id, cell): comparable(outcome)
        for prompts in finished
        for request, outcomes in prompts
        for cell, outcome in outcomes.items()
    }


def asked(count: int = 4) -> list[Request]:
    return [replace(request, missing=drawing()) for request in requests(count)]


@pytest.fixture(scope="module")
def alone() -> Found:
    return gathered(1, asked(), exact=True)


def test_tokens_come_as_often_as_they_are_probable() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.0])
    count = 4000
    draws = [Sampling(2.0, 1.0, count, 1).draws("a", sample) for sample in range(count)]
    drawn = drawn_tokens(logits.expand(count, -1), draws, [3] * count)
    shares = torch.bincount(drawn, minlength=5) / count
    assert torch.allclose(shares, (logits / 2).softmax(-1), atol=0.03)


def test_only_the_most_probable_tokens_up_to_top_p_are_drawn_and_of_equal_ones_the_lowest_first() -> None:
    logits = torch.tensor([0.4, 0.1, 0.2, 0.2, 0.1]).log()

    def seen(top_p: float) -> set[int]:
        draws = [Sampling(1.0, top_p, 500, 1).draws("a", sample) for sample in range(500)]
        return set(drawn_tokens(logits.expand(500, -1), draws, [0] * 500).tolist())

    assert [seen(top_p) for top_p in (0.1, 0.5, 0.7, 1.0)] == [{0}, {0, 2}, {0, 2, 3}, {0, 1, 2, 3, 4}]


def test_token_that_must_not_come_yet_is_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 0.0, 0.0])
    draws = [Sampling(100.0, 1.0, 300, 1).draws("a", sample) for sample in range(300)]
    assert set(drawn_tokens(logits.expand(300, -1), draws, [0] * 300).tolist()) == {1, 2}


def test_numbers_are_told_apart_by_seed_example_sample_and_step_and_are_the_same_each_time() -> None:
    def number(seed: int, example: str, sample: int, step: int) -> float:
        return Sampling(1.0, 1.0, 9, seed).draws(example, sample).uniform(step)

    numbers = [
        number(*where) for where in ((1, "a", 0, 0), (2, "a", 0, 0), (1, "b", 0, 0), (1, "a", 1, 0), (1, "a", 0, 1))
    ]
    assert len(set(numbers)) == 5 and all(0 <= each < 1 for each in numbers)
    assert number(1, "a", 0, 0) == numbers[0] == 0.3739974058691279


@pytest.mark.parametrize("width", [2, 5, 64])
def test_what_a_row_draws_depends_on_no_other_row(alone: Found, width: int) -> None:
    assert gathered(width, asked()) == alone
    last_alone = gathered(width, asked()[-1:])
    assert last_alone == {where: outcome for where, outcome in alone.items() if where[0] == "p3"}


def test_answers_of_an_example_differ_and_the_greedy_reference_is_as_without_sampling(alone: Found) -> None:
    greedy = gathered(8, [replace(request, missing=drawing(0)) for request in requests(4)], GREEDY)
    for (example, cell), outcome in alone.items():
        if cell.label == "fullkv_greedy":
            assert not outcome.samples
            assert outcome.generated == greedy[example, Cell("fullkv", "full")].generated
        else:
            assert len(outcome.samples) == 3 and outcome.samples[0] == outcome.generated
            assert len({sample.tokens for sample in outcome.samples}) > 1


def test_variants_that_kept_the_same_draw_the_same_and_are_decoded_once(alone: Found) -> None:
    full, snapkv = (alone["p0", Cell(label, budget)] for label, budget in (("fullkv", "full"), ("snapkv", "40")))
    assert snapkv.alias_of == Cell("fullkv", "full") and snapkv.samples == full.samples


def test_stored_answers_of_a_variant_that_kept_the_same_are_not_drawn_again(
    alone: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, *_) = asked()
    full = alone["p0", Cell("fullkv", "full")]
    assert full.kept is not None
    known = {Cell("fullkv", "full"): Known(full.kept.sha256, full.generated, full.samples)}
    rows: list[shared_rows.SharedRow] = []
    made: Callable[..., list[shared_rows.SharedRow]] = shared_rows.shared_rows

    def noted(*given: Any) -> list[shared_rows.SharedRow]:
        rows.extend(made(*given))
        return rows

    monkeypatch.setattr("harness.engine.scheduler.shared_rows", noted)
    missing = tuple(variant for variant in drawing() if variant.cell != Cell("fullkv", "full"))
    again = gathered(8, [replace(first, missing=missing, known=known)])
    assert again[("p0", Cell("snapkv", "40"))] == alone["p0", Cell("snapkv", "40")]
    # Three of SnapKV at 12; three of SnapKV at 40 are known; the greedy answer is none of the three.
    assert sorted((row.known, row.drawn) for row in rows) == [(False, False), *[(False, True)] * 3, *[(True, True)] * 3]


def test_audit_draws_the_first_answer_again() -> None:
    audits = [outcome.audit for outcome in gathered(8, asked(2), audit=1.0).values() if outcome.audit is not None]
    assert audits and all(audit.same for audit in audits)


@pytest.mark.parametrize(
    "values, message",
    [
        ((-1, 1, 1, 0), "sampling.temperature=-1 is not a number of 0 to 1000: use 0 for greedy, or 0.6"),
        (("hot", 1, 1, 0), "sampling.temperature=hot is not a number"),
        ((float("nan"), 1, 1, 0), "sampling.temperature=nan is not a number"),
        ((1, 0, 1, 0), "sampling.top_p=0 is not above 0 and at most 1: use 1 for all tokens, or 0.95"),
        ((1, 1.5, 1, 0), "sampling.top_p=1.5 is not above 0"),
        ((1, 1, 0, 0), "sampling.samples=0 is not a whole number of 1 or more"),
        ((1, 1, 2.5, 0), "sampling.samples=2.5 is not a whole number"),
        ((1, 1, 1, -1), "sampling.seed=-1 is not a whole number of 0 or more"),
        ((0, 1, 4, 0), "sampling.samples=4 would give one greedy answer 4 times: set sampling.temperature"),
        ((0, 0.9, 1, 0), "sampling.top_p=0.9 has no effect on greedy decoding: set sampling.temperature"),
    ],
)
def test_bad_settings_are_one_line(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Sampling(*values)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_answers_that_do_not_fit_into_memory_together_are_drawn_one_after_the_other(
    alone: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tight(Decoding):
        def add(self, rows: Sequence[Row]) -> range:
            if self.alive + len(rows) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().add(rows)

    monkeypatch.setattr(engine_module, "Decoding", Tight)
    (first, *_) = asked(1)
    one_cell = replace(first, missing=first.missing[:1])
    assert gathered(8, [one_cell]) == {("p0", Cell("fullkv", "full")): alone["p0", Cell("fullkv", "full")]}
    assert gathered(8, [first]) == {where: outcome for where, outcome in alone.items() if where[0] == "p0"}


@pytest.mark.parametrize("vocabulary", [7, 256, 500, 1024])
def test_the_best_token_is_that_of_argmax_and_the_first_of_equal_ones(vocabulary: int) -> None:
    logits = torch.randn(5, vocabulary, generator=torch.Generator().manual_seed(vocabulary)).round()
    logits[3] = 1.0
    logits[4, vocabulary // 2] = torch.nan
    assert best_tokens(logits).tolist() == logits.argmax(-1).tolist()
