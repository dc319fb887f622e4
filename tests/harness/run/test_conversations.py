"""Runs of conversations on the model's own answers: killed between turns, resumed, divided, verified, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.harness.folders import cells, outcome, records

CONTEXT = "The harbour is green. The mill is red. Nobody knows what colour the church has. "
RECORDS = (
    {"context": CONTEXT, "questions": ["Which colour has the mill?", "And the harbour?", "Why?"], "answers": ["a"] * 3},
    {"context": CONTEXT * 2, "questions": ["Which is green?", "Who?"], "answers": ["b"] * 2},
)


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    file = tmp_path / "talk.jsonl"
    file.write_text("\n".join(map(json.dumps, RECORDS)), encoding="utf-8")
    return (
        "task=jsonl",
        f"task.data={file}",
        "task.history=own_answers",
        "task.max_new_tokens=6",
        "selection.after=context",
        "method=[fullkv,snapkv]",
        "budget=12",
    )


@pytest.fixture
def whole(kvgauge: Command, words: tuple[str, ...], tmp_path: Path) -> Path:
    told = kvgauge(*words, f"results_dir={tmp_path / 'whole'}").told
    assert "new records: 10, decoded as 4 rows" in told
    return tmp_path / "whole"


def test_each_turn_is_a_record_and_a_run_without_some_makes_them_from_the_answers_that_are_there(
    kvgauge: Command, words: tuple[str, ...], whole: Path
) -> None:
    before = outcome(whole, "talk")
    for cell in cells(whole, "talk").values():
        assert sorted(record["example_id"] for record in records(cell)) == ["1-1", "1-2", "1-3", "2-1", "2-2"]
        # As after a kill while records were written: a turn in the middle of a line, and all behind it.
        (file,) = cell.glob("records.*.jsonl")
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines[:1]) + lines[1][:40])
        (cell / "scores.json").unlink()
    again = kvgauge(*words, f"results_dir={whole}").told
    assert "new records: 8, decoded as 4 rows" in again
    assert outcome(whole, "talk") == before


@pytest.mark.slow
def test_a_conversation_that_a_limit_cut_goes_on_later_and_shards_never_cut_one(
    kvgauge: Command, words: tuple[str, ...], whole: Path, tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    for limit in ("limit=2", "limit=4", "limit=null"):
        assert kvgauge(*words, limit, f"results_dir={parts}").code == 0
    assert outcome(parts, "talk") == outcome(whole, "talk")
    shards = tmp_path / "shards"
    for shard in range(2):
        assert kvgauge(*words, "shards=2", f"shard={shard}", f"results_dir={shards}").code == 0
    assert outcome(shards, "talk") == outcome(whole, "talk")
    assert kvgauge("verify", str(whole), "--sample", "5").code == 0


def test_the_end_of_the_prompt_is_no_boundary_of_a_conversation(kvgauge: Command, words: tuple[str, ...]) -> None:
    told = kvgauge(*words, "selection.after=prompt", "dry_run=true")
    assert told.code == 2 and told.err.count("\n") == 1
    assert "task=talk goes on with the model's own answers" in told.err and "use selection.after=context" in told.err


def test_what_changes_the_cache_while_it_decodes_has_no_conversations(kvgauge: Command, words: tuple[str, ...]) -> None:
    for changed, what in (("method=[tova_decode]", "tova_decode-12 evicts"), ("storage=[kivi2]", "+kivi2-full stores")):
        told = kvgauge(*words, changed, "dry_run=true")
        assert told.code == 2 and told.err.count("\n") == 1 and what in told.err, told.err
