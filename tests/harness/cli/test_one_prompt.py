"""``kvgauge show prompt`` prints one example as the model reads it, and loads no weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.engine.engine import Engine
from tests.conftest import ROOT, Command

QUESTIONS = ROOT / "examples/questions.jsonl"


def test_a_prompt_is_shown_in_two_parts_with_their_ids(kvgauge: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "load", None)
    shown = kvgauge("show", "prompt", "task=jsonl", f"task.data={QUESTIONS}", "model=tiny", "--example", "clock")
    assert shown.code == 0, shown.err
    head, context, question, ids, example = re.split(r"^──── .*$", shown.out, flags=re.MULTILINE)
    assert "example clock, for tiny" in head
    assert context.strip().startswith("<s>The harbour of Tarn") and context.strip().endswith("four minutes late.")
    assert question == "\n\n\nHow late is the clock?\nAnswer:\n"
    parts = {name: text.split() for name, _, text in (line.partition(": ") for line in ids.strip().splitlines())}
    assert int(head.split()[-2]) == len(parts["context"]) + len(parts["question"])
    assert "['four minutes']" in example


def test_a_turn_is_shown_behind_the_questions_before_it(kvgauge: Command) -> None:
    words = ("task=jsonl", f"task.data={QUESTIONS}", "task.history=own_answers", "model=tiny", "--example", "clock")
    shown = kvgauge("show", "prompt", *words)
    assert shown.code == 0, shown.err
    _, context, *questions, ids, example = re.split(r"^──── .*$", shown.out, flags=re.MULTILINE)
    asked = ("Who is the harbour master?", "How many boats does he keep?", "How late is the clock?")
    assert questions == [f"\n\n\n{question}\nAnswer:\n" for question in asked]
    assert context.strip().endswith("four minutes late.") and "{'turn': 3}" in example
    assert ids.count("question, behind the model's own answer: ") == 2


def test_what_a_terminal_would_act_on_is_escaped(kvgauge: Command, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    record = {"prompt": "red \x1b[31m left \u202e\x07\tend\n  next", "answers": ["a"]}
    file.write_text(json.dumps(record), encoding="utf-8")
    shown = kvgauge("show", "prompt", "task=jsonl", f"task.data={file}")
    assert shown.code == 0, shown.err
    assert r"red \x1b[31m left \u202e\x07\tend" in shown.out and "\n  next\n" in shown.out
    assert shown.out.replace("\n", "").isprintable()
    assert "nothing of it can be compressed before the question" in shown.out


def test_token_ids_need_no_tokenizer(kvgauge: Command, prompts_file: Path) -> None:
    shown = kvgauge("show", "prompt", "task=tokens", f"task.prompts={prompts_file}", "--example", "p64")
    assert shown.code == 0 and "example p64, for tiny: 64 tokens" in shown.out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (
            [f"task.data={QUESTIONS}", "--example", "x"],
            2,
            "use one of the 5 ids, harbour-1, harbour-2, clock, garden-1",
        ),
        ([], 2, "task.data is not set"),
        (["task.data=missing.jsonl"], 3, "cannot be read"),
        ([f"task.data={QUESTIONS}", "task.chat=true"], 2, "the tokenizer has no chat template: use task.chat=false"),
    ],
)
def test_a_prompt_that_is_not_there_is_one_line(kvgauge: Command, words: list[str], code: int, told: str) -> None:
    done = kvgauge("show", "prompt", "task=jsonl", *words)
    assert done.code == code and told in done.err and len(done.err.splitlines()) == 1
