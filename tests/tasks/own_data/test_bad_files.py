"""A file that cannot be used is one line: file, line, field, remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.build import build, task_config
from harness.errors import ConfigError, DataError
from tasks.own_data.task import OwnData

GOOD = {"context": "The harbour is green.", "question": "Which colour?", "answers": ["green"]}
SEVERAL = {"context": "A and B.", "questions": ["First?", "Last?"], "answers": ["A", "B"]}
CHOICE = {**GOOD, "choices": ["red", "green"], "answers": ["B"]}


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return task_config("jsonl", "task.data=mine.jsonl")


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != field}


def lines(*records: Any) -> bytes:
    return "\n".join(json.dumps(record) for record in records).encode()


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "task.data='mine.jsonl' holds no record: give one record per line"),
    "blank": (b"\n \n", "holds no record"),
    "another encoding": ('{"context": "é"}'.encode("latin-1"), "line 1 of mine.jsonl is not UTF-8 at byte"),
    "cut": (lines(GOOD) + b'\n{"context": "The', "line 2 of mine.jsonl is not JSON"),
    "a list": (b'[{"context": 1}]', "is one JSON list, not JSON lines: write a record per line"),
    "numbers": (b"1\n2", "line 1 of mine.jsonl is 1, not a record"),
    "a table": (b"context,question\na,b", "line 1 of mine.jsonl is not JSON"),
    "no context": (
        lines({"text": "a", "answer": "b"}),
        "line 1 of mine.jsonl has no context and no prompt, but 'text, ",
    ),
    "an empty context": (lines(GOOD, {**GOOD, "context": " "}), "line 2 of mine.jsonl has no context and no prompt"),
    "a context in parts": (lines({**GOOD, "context": ["a", "b"]}), "has context=['a', 'b'], which is no text"),
    "a lone surrogate": (b'{"context": "\\ud800", "question": "a", "answers": "b"}', "give a text without lone surr"),
    "two forms": (
        lines({**GOOD, "prompt": "Go on."}),
        "has a context and a prompt: give a context with a question, or",
    ),
    "a prompt with a question": (
        lines({"prompt": "The harbour …", "question": "Which?", "answers": "a"}),
        "has a prompt and a question, but no context: say what it is, as task.fields.prompt=prompt",
    ),
    "a question alone": (lines(without("context")), "line 1 of mine.jsonl has no context and no prompt, but 'question"),
    "messages": (lines({"messages": [{"role": "user"}], "ideal": "a"}), "has chat messages, which are not read: give"),
    "no question": (
        lines(without("question")),
        "line 1 of mine.jsonl has no question: give it one, or a task.template",
    ),
    "a question that is a number": (lines({**GOOD, "question": 3}), "has question=3, which is no text"),
    "no questions": (lines({**SEVERAL, "questions": []}), "has questions=[]: give one question or more"),
    "too few answers": (
        lines({**SEVERAL, "answers": ["A"]}),
        "has 2 questions and answers=['A']: give as many answers",
    ),
    "a question of no form": (lines({**SEVERAL, "questions": ["a", 2]}), "has 2 as question 2: give a text, or {"),
    "no answers": (lines(GOOD, without("answers")), "line 2 of mine.jsonl has no answers: give "),
    "no answer to one of several": (
        lines({"context": "a", "questions": [{"question": "b?"}]}),
        "question 1 of line 1 of mine.jsonl has no answers",
    ),
    "an empty list of answers": (lines({**GOOD, "answers": []}), "has answers=[]: give one answer or more"),
    "an empty answer": (lines({**GOOD, "answers": ["a", " "]}), "has an empty answer in answers=['a', ' ']"),
    "an answer that is no text": (
        lines({**GOOD, "answers": [True]}),
        "has answers=[True], which is neither a text nor",
    ),
    "choices that are a text": (lines({**CHOICE, "choices": "ab"}), "has choices='ab', which is no list of texts"),
    "one choice": (lines({**CHOICE, "choices": ["a"]}), "has 1 choices: give 2 to 26"),
    "a choice twice": (lines({**CHOICE, "choices": ["a", "a"]}), "has a text twice in choices=['a', 'a']"),
    "a letter too far": (
        lines({**CHOICE, "answers": "C"}),
        "has answers='C', which is none of its choices: give a lett",
    ),
    "a place too far": (lines({**CHOICE, "answers": 2}), "has answers=2, but its 2 choices have the places 0 to 1"),
    "a letter that is another choice": (
        lines({**CHOICE, "choices": ["B", "A"], "answers": "A"}),
        "has answers='A', which is both a letter and the text of another choice: give the place, from 0",
    ),
    "a limit of nothing": (
        lines({**GOOD, "max_new_tokens": 0}),
        "has max_new_tokens=0: give a whole number, 1 or more",
    ),
    "a limit above the task's": (
        lines({**GOOD, "max_new_tokens": 65}),
        "has max_new_tokens=65, above task.max_new_tokens=64: use task.max_new_tokens=65",
    ),
    "a begun answer that is no text": (lines({**GOOD, "answer_prefix": 1}), "has answer_prefix=1, which is no text"),
    "an id twice": (
        lines({**GOOD, "id": "2"}, GOOD),
        "line 2 of mine.jsonl has the id '2', as has line 1 of mine.jsonl: give each its own",
    ),
    "an id that is none": (
        lines({**GOOD, "id": [1]}),
        "has id=[1]: give a text of 1 to 200 characters, or a whole num",
    ),
    "a group that is none": (lines({**GOOD, "group": [1]}), "has group=[1]: give a text, a number, or a mapping"),
    "groups of two kinds": (
        lines({**GOOD, "group": "a"}, {**GOOD, "group": {"length": 1}}),
        "line 2 of mine.jsonl is grouped by ['length'], the first record by ['group']: give all records the same",
    ),
    "a log of likelihoods": (
        lines({"doc": {}, "target": 0, "arguments": [["a", " b"], ["a", " c"]]}),
        "is a log of several requests",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_bad_file_is_one_line(
    kind: str, defaults: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, words = FILES[kind]
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_bytes(raw)
    with pytest.raises(DataError) as told:
        build(defaults).settings()
    message = str(told.value)
    assert words in message and "mine.jsonl" in message and "\n" not in message and ": " in message


@pytest.mark.parametrize(
    ("changes", "record", "words"),
    [
        ({"scores": ["number"]}, GOOD, "has the answer 'green', which names no number, as the metric number needs"),
        ({"scores": ["regex"]}, {**GOOD, "answers": "("}, "has the answer '(', which is no regular expression"),
        ({"scores": ["choice"]}, GOOD, "line 1 of mine.jsonl has no choices, which the metric choice needs"),
        (
            {"fields": {"question": "meta.problem"}},
            GOOD,
            "has no field 'meta.problem', which task.fields.question names",
        ),
    ],
)
def test_a_record_that_does_not_fit_the_settings_is_one_line(
    changes: dict[str, Any], record: dict[str, Any], words: str, defaults: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_bytes(lines(record))
    with pytest.raises(DataError) as told:
        build({**defaults, **changes}).settings()
    assert words in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("path", ["missing.jsonl", ".", "~nobody-there/x", "a\0b"])
def test_a_file_that_cannot_be_read_is_one_line(path: str, defaults: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(\w+\): give a file of JSON lines"):
        build({**defaults, "data": path}).settings()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"template": "{question}"}, "task.template='{question}' has no {context}"),
        ({"template": "{context} {qestion}"}, "task.template has {qestion}: did you mean {question}?"),
        ({"chat": "yes"}, "task.chat='yes' is neither true nor false nor auto"),
        ({"fields": {"title": "a"}}, "task.fields has 'title': its fields are context, question"),
        ({"fields": {"context": 3}}, "task.fields.context=3 is not a text"),
        ({"answer_prefix": 3}, "task.answer_prefix=3 is not a text"),
        ({"scores": ["bleu"]}, "task.scores has 'bleu', which is no metric"),
        ({"show": "choice"}, "task.show='choice' is not in task.scores"),
        ({"max_new_tokens": 0}, "task.max_new_tokens is 0"),
        ({"max_context_tokens": 1}, "task.max_context_tokens is 1"),
        ({"stop_at_newline": 1}, "task.stop_at_newline=1 is neither true nor false"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(
    changes: dict[str, Any], words: str, defaults: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(lines(GOOD))
    assert build({**defaults, "data": str(file)}).settings()
    task: OwnData = build({**defaults, "data": str(file), **changes})
    with pytest.raises(ConfigError) as told:
        task.settings()
    assert words in str(told.value) and "\n" not in str(told.value)
