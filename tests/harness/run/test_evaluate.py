"""A text that its task cannot score: an error record that keeps it, in a run, in an import and in a new scoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.api import run
from tasks.needle.task import Needle
from tests.conftest import Command
from tests.harness.folders import cells, records

RUN = ("method=fullkv", "task.lengths=[300]", "task.depths=[0,50,100]")


def break_scoring(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Let the needle's score of example 300-50 raise an exception, or return a value."""
    score = Needle.score

    def broken(task: Needle, example: Any, text: Any) -> Any:
        if example.id != "300-50":
            return score(task, example, text)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Needle, "score", broken)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (KeyError("paragraph"), "KeyError: 'paragraph'"),
        (RecursionError("too\ndeep"), "RecursionError: too"),
        ({"contains_answer": 1.0, "word_overlap": float("nan"), "rouge1_x10": 0.0}, "word_overlap is nan"),
        ({"contains_answer": 1.0}, "word_overlap is None and not a number"),
        (None, "TypeError"),
    ],
)
def test_a_score_that_raises_costs_neither_the_text_nor_the_run(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, reason: str
) -> None:
    with monkeypatch.context() as broken:
        break_scoring(broken, answer)
        done = kvgauge(*RUN, f"results_dir={tmp_path}")
    assert done.code == 1, done.err
    assert "errors of fullkv-full: 1, the first in example 300-50" in done.out.replace("\n", " ")
    cell = cells(tmp_path, "needle")["fullkv-full"]
    by_id = {record["example_id"]: record for record in records(cell)}
    assert reason in by_id["300-50"]["error"] and "kvgauge score" in by_id["300-50"]["error"]
    assert by_id["300-50"]["text"] and by_id["300-50"]["tokens"] and by_id["300-50"]["scores"] == {}
    assert by_id["300-0"]["scores"] and by_id["300-100"]["scores"]

    again = kvgauge("score", str(tmp_path))
    assert again.code == 0, again.err
    assert "scored 3 records again: 1 changed" in again.out
    mended = {record["example_id"]: record for record in records(cell)}["300-50"]
    assert mended["error"] is None and mended["text"] == by_id["300-50"]["text"] and mended["scores"]
    assert json.loads((cell / "scores.json").read_text())["errors"] == 0


def test_scoring_again_scores_the_others_before_it_names_what_it_cannot(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kvgauge(*RUN, f"results_dir={tmp_path}").code == 0
    cell = cells(tmp_path, "needle")["fullkv-full"]
    before = {record["example_id"]: record for record in records(cell)}
    file = cell / "records.0.jsonl"
    changed = [json.loads(line) for line in file.read_text().splitlines()]
    for record in changed:
        record["scores"] = dict.fromkeys(record["scores"], 0.25)
    file.write_text("".join(json.dumps(record) + "\n" for record in changed))
    break_scoring(monkeypatch, ValueError("no such answer"))
    failed = kvgauge("score", str(tmp_path))
    assert failed.code == 5 and failed.err.count("\n") == 1
    assert (
        "1 of 3 records keep what they had, the first: example '300-50' of task needle cannot be scored" in failed.err
    )
    assert "scored 2 records again: 2 changed" in failed.out
    after = {record["example_id"]: record for record in records(cell)}
    assert after["300-0"] == before["300-0"] and after["300-100"] == before["300-100"]
    assert after["300-50"]["text"] == before["300-50"]["text"] and after["300-50"]["scores"]["word_overlap"] == 0.25


def test_the_same_holds_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    break_scoring(monkeypatch, KeyError("paragraph"))
    result = run("tiny", "needle", ["fullkv"], settings={"task.lengths": [300], "task.depths": [0, 50]})
    texts = {record["example_id"]: (record["text"], record["error"]) for record in result.records()}
    assert all(text for text, _ in texts.values())
    assert texts["300-0"][1] is None and "KeyError" in str(texts["300-50"][1])
