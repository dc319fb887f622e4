"""Prompts that are taken while others still decode: rows stay many, and nothing is lost, doubled or changed."""

from __future__ import annotations

import json
import os
import random
import signal
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch

from harness.compression.budget import parse_budgets
from harness.compression.grid import Variant, make_grid
from harness.compression.selection import Selection
from harness.engine import engine as engine_module
from harness.engine.decode import Decoding
from harness.engine.engine import Engine
from harness.engine.prefill import prefill
from harness.engine.prompt import Prompt
from harness.engine.request import Outcome, Request
from harness.engine.rows import Limits, Row
from harness.engine.scheduler import Finished, Scheduler
from harness.engine.settings import EngineSettings
from harness.errors import EngineError
from harness.results import Cell
from harness.task import Example
from tests.conftest import Command
from tests.harness.engine.test_tensor_parallel import shared
from tests.harness.folders import cells, outcome, records
from tests.harness.run.test_faults import at_prompt
from tests.harness.tiny import NAME, methods, prompt_of, tiny

STOPS = tuple(range(10, 17))
NEW_TOKENS = 24
Found = dict[tuple[str, Cell], Outcome]


def grid() -> tuple[Variant, ...]:
    """Three rows of a prompt."""
    return make_grid([methods()[name] for name in ("fullkv", "snapkv")], parse_budgets([12, 20]))


def requests(count: int = 14) -> list[Request]:
    """Prompts of different lengths, all of the grid missing."""
    made = []
    for index in range(count):
        ids = np.array(prompt_of(30 + 3 * index, index), dtype="<i4")
        made.append(Request(Prompt(Example(id=f"p{index}", prompt=()), ids, "0" * 64, (), False, len(ids)), grid(), {}))
    return made


def scheduler(
    width: int | Literal["auto"] = 8, exact: bool = False, tell: Callable[[str], None] = lambda _: None
) -> Scheduler:
    settings = EngineSettings(width, exact, None, False, None, 0.0, "torch", "auto")
    limits = Limits(frozenset(STOPS), NEW_TOKENS, 1)
    order = [variant.cell for variant in grid()]
    selection = Selection("kv_head", "mean", "stable", "float32")
    return Scheduler(Engine(tiny(), NAME), limits, order, selection, settings, tell)


def always() -> bool:
    return True


def comparable(outcome: Outcome) -> Outcome:
    """Without the tensors that decoding has taken over, all of them or none by now."""
    assert outcome.kept is not None
    return replace(outcome, kept=replace(outcome.kept, layers=[]))


def gathered(finished: Iterator[list[Finished]]) -> Found:
    """Outcomes by example and cell; none may come twice, and a prompt comes whole."""
    everything: Found = {}
    for prompts in finished:
        for request, outcomes in prompts:
            assert set(outcomes) == {variant.cell for variant in grid()}
            for cell, came in outcomes.items():
                assert (request.prompt.example.id, cell) not in everything
                everything[request.prompt.example.id, cell] = comparable(came)
    return everything


@pytest.fixture(scope="module")
def alone() -> Found:
    """What every prompt gives with each row alone."""
    return gathered(scheduler(exact=True).run(requests(), always))


class Counting(Decoding):
    """Remembers how many rows go on at each step, and how many there are as others have joined."""

    alive_at: ClassVar[list[int]]
    joined: ClassVar[list[int]]

    def add(self, rows: Sequence[Row]) -> range:
        type(self).joined.append(self.alive + len(rows))
        return super().add(rows)

    def step(self) -> None:
        type(self).alive_at.append(self.alive)
        super().step()


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    fresh = type("Counted", (Counting,), {"alive_at": [], "joined": []})
    monkeypatch.setattr(engine_module, "Decoding", fresh)
    return fresh


def test_answers_of_the_test_end_at_different_places(alone: Found) -> None:
    generated = [each.generated.tokens for each in alone.values()]
    lengths = [len(tokens) for tokens in generated]
    assert len(set(lengths)) > 8 and max(lengths) == NEW_TOKENS and min(lengths) < 5
    assert len(set(generated)) > 20


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 13, 64, "auto"])
def test_outcomes_are_those_of_each_row_alone_whatever_the_width(
    alone: Found, width: int | Literal["auto"], counting: type[Counting]
) -> None:
    assert gathered(scheduler(width).run(requests(), always)) == alone
    assert max(counting.joined) <= (width if width != "auto" else 256), "never more rows than the width"


def test_decoding_stays_wide_while_prompts_wait(alone: Found, counting: type[Counting]) -> None:
    width, everything, begun = 12, requests(), []

    def more() -> bool:
        begun.append(len(counting.alive_at))
        return True

    assert gathered(scheduler(width).run(everything, more)) == alone
    refilled = list(counting.alive_at)
    # A prompt has three rows: as long as one waits, no step is taken by so few that it could have joined.
    assert len(begun) == len(everything)
    assert min(refilled[: begun[-1]]) > width // 2 - 3
    counting.alive_at.clear()
    apart: Found = {}
    for start in range(0, len(everything), 4):
        apart |= gathered(scheduler(width).run(everything[start : start + 4], always))
    assert apart == alone
    assert sum(refilled) == sum(counting.alive_at), "the same tokens"
    assert len(refilled) < 0.8 * len(counting.alive_at), "in fewer steps"


def test_prompts_come_in_their_order_whichever_ends_first() -> None:
    order, steps = [], []
    for prompts in scheduler(8).run(requests(), always):
        order += [request.prompt.example.id for request, _ in prompts]
        steps.append(len(prompts))
    assert order == [request.prompt.example.id for request in requests()]
    assert max(steps) > 1, "one that ended before an earlier one has waited for it"


def test_what_had_to_wait_for_an_earlier_prompt_is_given_out_before_an_error(
    alone: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = {variant.cell: alone["p1", variant.cell] for variant in grid()}

    def finishing(*_: Any) -> Iterator[dict[int, dict[Cell, Outcome]]]:
        yield {1: later}
        raise EngineError("the first prompt does not fit")

    run, given = scheduler(8), []
    monkeypatch.setattr(run, "_finishing", finishing)
    with pytest.raises(EngineError, match="does not fit"):
        for prompts in run.run(requests(), always):
            given += prompts
    assert [(request.prompt.example.id, outcomes) for request, outcomes in given] == [("p1", later)]


@pytest.mark.parametrize("width", [1, 5, 8])
def test_once_nothing_more_may_begin_what_has_begun_is_finished(
    alone: Found, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefilled, asked = [], [0]

    def more() -> bool:
        asked[0] += 1
        return asked[0] < 7

    monkeypatch.setattr(engine_module, "prefill", lambda *words: (prefilled.append(words[2]), prefill(*words))[1])
    found = gathered(scheduler(width).run(requests(), more))
    assert found == {key: each for key, each in alone.items() if int(key[0][1:]) < 6}
    assert len(prefilled) == 6 and asked[0] == 7, "it is not asked again"


@pytest.mark.parametrize("seed", range(6))
def test_out_of_memory_at_any_moment_loses_and_doubles_nothing(
    alone: Found, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, failures = random.Random(seed), [0]
    decodings: list[weakref.ref[Decoding]] = []

    def perhaps() -> None:
        if failures[0] < 2 and draw.random() < 0.05:
            failures[0] += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")

    class Tight(Decoding):
        def __init__(self, *words: Any, **keywords: Any) -> None:
            super().__init__(*words, **keywords)
            decodings.append(weakref.ref(self))

        def add(self, rows: Sequence[Row]) -> range:
            perhaps()
            return super().add(rows)

        def step(self) -> None:
            super().step()
            perhaps()

    def tight(*words: Any) -> Any:
        assert sum(decoding() is not None for decoding in decodings) == 1, (
            "what failed is gone before it is tried again"
        )
        perhaps()
        return prefill(*words)

    monkeypatch.setattr(engine_module, "Decoding", Tight)
    monkeypatch.setattr(engine_module, "prefill", tight)
    told: list[str] = []
    run = scheduler(13, tell=told.append)
    assert gathered(run.run(requests(), always)) == alone
    assert failures[0] == len(told) == 2 and run.width < 7, told
    assert run.decoded == len(alone), "a row that was dropped is counted once"


def test_prompt_whose_rows_do_not_fit_together_is_done_in_parts_between_the_others(
    alone: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tight(Decoding):
        def add(self, rows: Sequence[Row]) -> range:
            if self.alive + len(rows) > 1 and any(row.prompt_tokens == 30 + 3 * 5 for row in rows):
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().add(rows)

    monkeypatch.setattr(engine_module, "Decoding", Tight)
    told: list[str] = []
    run = scheduler(8, tell=told.append)
    assert gathered(run.run(requests(), always)) == alone
    assert run.width == 1 and len(told) == 3


# --- the whole command


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    """Ten prompts, two or three in flight, whose answers end at different places."""
    prompts = {
        f"p{place}": [0, *((7 * i * i + 13 * place) % 1000 + 2 for i in range(39 + place))] for place in range(10)
    }
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    stops = list(range(3, 1000, 9))
    of_task = (
        "task=tokens",
        f"task.prompts={tmp_path / 'prompts.json'}",
        "task.max_new_tokens=12",
        f"task.stop={stops}",
    )
    return (
        "method=[fullkv,snapkv,h2o]",
        "budget=32",
        *of_task,
        "engine.width=8",
        f"results_dir={tmp_path / 'results'}",
    )


def test_a_signal_while_rows_join_keeps_what_has_begun_and_the_same_command_goes_on(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kvgauge(*words, "engine.exact=true", f"results_dir={tmp_path / 'alone'}").code == 0
    assert len({len(of["tokens"]) for of in records(cells(tmp_path / "alone")["fullkv-full"])}) > 3
    with monkeypatch.context() as patch:
        at_prompt(4, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        stopped = kvgauge(*words)
    assert stopped.code == 143
    kept = {name: {of["example_id"] for of in records(cell)} for name, cell in cells(tmp_path / "results").items()}
    assert all(of == {"p0", "p1", "p2", "p3"} for of in kept.values())
    again = kvgauge(*words)
    assert again.code == 0 and "new records: 18" in again.out
    assert outcome(tmp_path / "results") == outcome(tmp_path / "alone")


@pytest.mark.slow
def test_processes_that_share_a_model_take_prompts_at_the_same_moments(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    assert kvgauge(*words, "selection.granularity=kv_head", f"results_dir={tmp_path / 'alone'}").code == 0
    finished = shared([*words, "selection.granularity=kv_head"], tmp_path)
    assert [process.code for process in finished] == [0, 0], finished[0].err
    assert outcome(tmp_path / "results") == outcome(tmp_path / "alone")
    files = [
        sorted(folder.glob("tiny/tokens/*/records.0.jsonl")) for folder in (tmp_path / "results", tmp_path / "alone")
    ]
    assert [path.read_text() for path in files[0]] == [path.read_text() for path in files[1]], "in the same order, too"
