"""Long answers: what a kill costs of them, and those that take too long."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from harness.engine import decode
from harness.results import Record
from harness.run import requests
from harness.store.scoring import is_unscored
from harness.store.shards import ALONE
from harness.store.unfinished import Unfinished, read_unfinished, write_unfinished
from tests.conftest import Command
from tests.harness.folders import cells, outcome, records
from tests.harness.run.test_faults import in_child


@pytest.fixture
def words(prompts_file: Path) -> tuple[str, ...]:
    of_task = ("task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=30")
    return (*of_task, "engine.save_tokens=4", "method=[fullkv,snapkv]", "budget=32", "limit=2")


@pytest.mark.slow
def test_long_answers_go_on_after_a_kill_from_what_was_saved(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    told = kvgauge(*words, f"results_dir={whole}").told
    assert "decoded as 4 rows" in told and not list(whole.rglob("unfinished.*"))

    def at_the_fifth_save() -> None:
        seen = [0]

        def counted(*values: Any) -> None:
            write_unfinished(*values)
            seen[0] += 1
            if seen[0] == 10:  # two cells
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(requests, "write_unfinished", counted)

    assert in_child(at_the_fifth_save, (*words, f"results_dir={killed}"))[0] == -signal.SIGKILL
    saved = {
        cell.name: [json.loads(line)["tokens"] for line in (cell / "unfinished.0.jsonl").read_text().splitlines()]
        for cell in cells(killed).values()
    }
    assert {name: [len(tokens) for tokens in of_cell] for name, of_cell in saved.items()} == {
        "fullkv-full": [21, 21],
        "snapkv-32": [21, 21],
    }
    steps: list[int] = []
    step = decode.Decoding.step
    monkeypatch.setattr(decode.Decoding, "step", lambda batch: (steps.append(batch.alive), step(batch))[1])
    assert kvgauge(*words, f"results_dir={killed}").code == 0
    assert steps.count(4) == 8 and outcome(killed) == outcome(whole)  # 21 tokens, one behind them, and 8 steps
    assert not list(killed.rglob("unfinished.*"))


@pytest.mark.slow
def test_an_answer_that_takes_too_long_keeps_its_text_and_goes_on_with_a_higher_limit(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ask.jsonl"
    file.write_text('{"context": "The mill is red.", "question": "Which colour?", "answers": ["red"]}', "utf-8")
    words = ("task=jsonl", f"task.data={file}", "task.max_new_tokens=12", "task.min_new_tokens=12", "budget=8")
    words = (*words, "method=snapkv", "method.snapkv.window=4")
    assert kvgauge(*words, f"results_dir={tmp_path / 'whole'}").code == 0

    def hours() -> Iterator[float]:
        yield from range(0, 3600 * 10_000, 3600)

    with monkeypatch.context() as slow:
        clock = hours()
        slow.setattr(decode.time, "monotonic", lambda: float(next(clock)))
        done = kvgauge(*words, "engine.row_time_limit_seconds=20000", f"results_dir={tmp_path / 'late'}")
    assert done.code == 1
    (cell,) = cells(tmp_path / "late", "ask").values()
    (late,) = records(cell)
    assert late["partial"] and late["text"] and not late["scores"] and 0 < len(late["tokens"]) < 12
    assert late["error"].startswith("decoding took longer than engine.row_time_limit_seconds=20000")
    assert kvgauge("score", str(tmp_path / "late"), "--set", "task.scores=[f1]").code in (0, 1)
    assert records(cell) == [late]  # what is not finished is not scored
    again = kvgauge(*words, "retry_errors=true", "task.scores=[f1]", f"results_dir={tmp_path / 'late'}")
    assert again.code == 0, again.err
    (whole,) = records(cells(tmp_path / "whole", "ask")["snapkv-8"])
    assert records(cell)[-1]["tokens"] == whole["tokens"]


def test_an_answer_that_a_time_limit_ended_is_no_text_to_score() -> None:
    record = Record("a", {}, (), {}, 9, "0", tokens=(1,), text="red", error="decoding took longer than …")
    assert is_unscored(record)
    late = structs.replace(record, partial=True)
    assert not is_unscored(late)
    assert late.to_json()["partial"] and "partial" not in record.to_json()


def test_what_was_saved_under_other_settings_or_cannot_be_read_is_as_none(tmp_path: Path) -> None:
    answer = Unfinished("a", "0", "now", 0, ((1, 2),), (3,))
    longer = Unfinished("a", "0", "now", 0, ((1, 2),), (3, 4))
    write_unfinished(tmp_path, ALONE, [answer, Unfinished("b", "0", "before", 0, (), (3,)), longer])
    assert read_unfinished(tmp_path, "now") == {("a", 0): longer}
    (tmp_path / "unfinished.1of2.jsonl").write_bytes(b'{"example_id": "a"\n')
    assert read_unfinished(tmp_path, "now") == {("a", 0): longer}
    write_unfinished(tmp_path, ALONE, [])
    assert not (tmp_path / "unfinished.0.jsonl").exists()
