"""Exceptions while a prompt is computed: they end up in its records, and the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.compression.scorers import WindowAttention
from harness.engine import engine as engine_module
from harness.engine.decode import Decoding
from harness.errors import EngineError
from tests.conftest import Command
from tests.harness.engine.test_scheduler import Found, alone, always, comparable, gathered, requests, scheduler
from tests.harness.folders import cells, outcome, records
from tests.harness.run.test_faults import at_prompt

__all__ = ["alone"]  # a fixture


def fails() -> None:
    raise ValueError("nothing can be\ndone")


@pytest.fixture
def words(grid: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    methods = "method=[fullkv,h2o,snapkv]"
    return (*grid, methods, "budget=32", "task.max_new_tokens=3", f"results_dir={tmp_path / 'results'}")


def failed(results: Path) -> dict[str, dict[str, str]]:
    """By cell and example, the errors."""
    return {
        name: {record["example_id"]: record["error"] for record in records(cell) if record["error"] is not None}
        for name, cell in cells(results).items()
    }


def test_an_exception_in_a_prefill_is_in_that_prompts_records_and_the_others_are_done(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    with monkeypatch.context() as patch:
        at_prompt(2, fails, patch)
        done = kvgauge(*words)
    assert done.code == 1 and done.err == "" and "errors of fullkv-full: 1, the first in example p64" in done.out
    errors = failed(results)
    assert len(errors) == 3 and all(set(of) == {"p64"} for of in errors.values())
    assert errors["fullkv-full"]["p64"].startswith("the prefill failed with ValueError (test_failures.py, line ")
    assert errors["fullkv-full"]["p64"].endswith("): nothing can be done")
    assert "errors in " in kvgauge("status", str(results)).out
    assert kvgauge(*words, "retry_errors=true").code == 0
    assert kvgauge(*words, f"results_dir={tmp_path / 'other'}").code == 0
    scores = {name: of["scores"] for name, of in outcome(results).items()}
    assert scores == {name: of["scores"] for name, of in outcome(tmp_path / "other").items()}


def test_an_exception_in_a_scorer_is_in_the_records_of_its_cells_alone(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kvgauge(*words, f"results_dir={tmp_path / 'other'}").code == 0
    monkeypatch.setattr(WindowAttention, "score", lambda self, state: fails())
    assert kvgauge(*words).code == 1
    errors = failed(tmp_path / "results")
    assert set(errors["snapkv-32"]) == {"p40", "p64", "p65", "p100"}
    assert "the prefill, at WindowAttention(" in errors["snapkv-32"]["p64"]
    whole = outcome(tmp_path / "other")
    assert all(outcome(tmp_path / "results")[name] == whole[name] for name in ("fullkv-full", "h2o-32"))


class Failing(Decoding):
    """Fails at each step of a batch that has a certain prompt's row in it."""

    prompt_tokens = 36  # of p2

    def add(self, rows: Any) -> range:
        self.bad = getattr(self, "bad", False) or any(row.prompt_tokens == self.prompt_tokens for row in rows)
        return super().add(rows)

    def step(self) -> None:
        if self.bad:
            raise IndexError("no such position")
        super().step()


def test_an_exception_while_rows_decode_together_ends_the_prompt_that_it_follows_alone(
    alone: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "Decoding", Failing)
    found = gathered(scheduler(9).run(requests(6), always))
    assert {name for name, _ in found} == {f"p{index}" for index in range(6)}
    for (name, cell), came in found.items():
        if name == "p2":
            assert str(came.generated.error).startswith("decoding failed with IndexError (test_failures.py, line ")
        else:
            assert came == comparable(alone[name, cell])


@pytest.mark.parametrize("error", [torch.AcceleratorError("device-side assert"), EngineError("on purpose")])
def test_a_device_that_failed_and_errors_on_purpose_end_the_run(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Decoding) -> None:
        raise error

    monkeypatch.setattr(Decoding, "step", step)
    with pytest.raises(EngineError, match="the device failed .device-side assert.|on purpose"):
        gathered(scheduler(9).run(requests(6), always))
