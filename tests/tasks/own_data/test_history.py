"""Questions of a record behind each other: with reference answers, or with what the model answered."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from harness.errors import ConfigError, DataError
from harness.task import Example
from tests.tasks.needle.test_form import chatting
from tests.tasks.own_data.test_task import CONTEXT, Make, defaults, make, plain

__all__ = ["chatting", "defaults", "make", "plain"]  # fixtures

RECORD: dict[str, Any] = {
    "context": CONTEXT,
    "questions": ["Which colour has the mill?", "And the harbour?", "Which is larger?"],
    "answers": [["red", "it is red"], "green", "the mill"],
}
CHATS = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ '<end>' if m['role'] == 'assistant' }}{{ '\n' }}"
    "{% endfor %}{{ '[assistant]\n' }}"
)


def texts(examples: list[Example], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [e.prompt if isinstance(e.prompt, str) else str(tokenizer.decode(list(e.prompt))) for e in examples]


def test_references_stand_between_the_questions_of_a_record(make: Make, plain: PreTrainedTokenizerFast) -> None:
    task = make(RECORD, history="references")
    *_, third = task.examples(plain)[:]
    assert third.prompt == (
        f"{CONTEXT}\n\nWhich colour has the mill?\nAnswer: red\n\nAnd the harbour?\nAnswer: green"
        "\n\nWhich is larger?\nAnswer:"
    )
    assert third.question_at == len(CONTEXT) and third.follows is None and third.group == {"turn": 3}
    assert task.breakdown == "turn"


def test_a_question_behind_the_models_own_answer_is_what_stands_behind_that_answer(
    make: Make, plain: PreTrainedTokenizerFast
) -> None:
    first, second, third = make(RECORD, history="own_answers").examples(plain)[:]
    assert first == make(RECORD, history="references").examples(plain)[0]
    assert second.prompt == "\n\nAnd the harbour?\nAnswer:" and second.references == ("green",)
    assert [e.follows for e in (first, second, third)] == [None, "1-1", "1-2"]
    assert [e.question_at for e in (second, third)] == [None, None]


def test_in_a_chat_each_question_has_a_message_of_its_own(
    make: Make, chatting: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatting, "chat_template", CHATS)
    told = texts(make(RECORD, history="references").examples(chatting)[:], chatting)
    assert told[1] == (
        f"[user] {CONTEXT}\n\nWhich colour has the mill?\n[assistant]\nred<end>\n[user] And the harbour?\n[assistant]\n"
    )
    own = texts(make(RECORD, history="own_answers").examples(chatting)[:], chatting)
    assert own == [
        f"[user] {CONTEXT}\n\nWhich colour has the mill?\n[assistant]\n",
        "<end>\n[user] And the harbour?\n[assistant]\n",
        "<end>\n[user] Which is larger?\n[assistant]\n",
    ]


def test_the_history_is_one_of_the_settings_unless_there_is_none(make: Make) -> None:
    assert "history" not in make(RECORD).settings()
    kinds = [make(RECORD, history=history).settings() for history in ("none", "references", "own_answers")]
    assert all(kinds.count(kind) == 1 for kind in kinds)


@pytest.mark.parametrize(
    ("record", "changes", "words"),
    [
        (RECORD, {"history": "golden"}, "task.history='golden' is unknown: use one of none, references, own_answers"),
        (
            RECORD,
            {"history": "own_answers", "template": "{question}\n{context}"},
            "task.history=own_answers needs {question} behind {context}, and task.template='{question}\\n{context}'",
        ),
        (
            {"context": CONTEXT, "questions": ["a?", "b?"]},
            {"history": "references", "scores": []},
            "question 2 of line 1 of",
        ),
    ],
)
def test_a_history_that_cannot_be_is_one_line(
    record: dict[str, Any], changes: dict[str, Any], words: str, make: Make
) -> None:
    with pytest.raises((ConfigError, DataError)) as told:
        make(record, **changes)
    assert words in str(told.value) and "\n" not in str(told.value)
