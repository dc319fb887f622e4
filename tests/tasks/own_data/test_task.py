"""Records of a user's own file become prompts with their answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import kvgauge
from harness.config.build import build, task_config
from tasks.own_data.draft import drafted
from tasks.own_data.task import OwnData
from tests.conftest import ROOT
from tests.tasks.needle.test_form import chatting
from tests.tasks.needle.test_task import byte_level

__all__ = ["chatting"]  # a fixture

EXAMPLES = sorted((ROOT / "examples").glob("*.jsonl"))
CONTEXT = "The harbour is green. The mill is red."
QUESTION = "Which colour has the mill?"
Make = Callable[..., OwnData]


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return task_config("jsonl", "task.data=mine.jsonl")


@pytest.fixture
def make(defaults: dict[str, Any], tmp_path: Path) -> Make:
    def made(*records: dict[str, Any], **changes: Any) -> OwnData:
        file = tmp_path / "mine.jsonl"
        file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        task: OwnData = build({**defaults, "data": str(file), **changes})
        task.settings()
        return task

    return made


@pytest.fixture(scope="module")
def tiny() -> kvgauge.Engine:
    return kvgauge.Engine.load(ROOT / "models/tiny", dtype="float32")


@pytest.fixture
def plain() -> PreTrainedTokenizerFast:
    """A tokenizer without a chat template."""
    return byte_level()


@pytest.mark.parametrize(
    "record",
    [
        {"context": CONTEXT, "question": QUESTION, "answers": ["red"]},
        {"context": CONTEXT, "question": QUESTION, "answer": "red", "task": "qa_1"},  # kvpress
        {"context": CONTEXT, "input": QUESTION, "answers": ["red"], "all_classes": None, "length": 9},  # LongBench
        {"context": CONTEXT, "question": QUESTION, "answers": {"text": ["red"], "answer_start": [34]}},  # SQuAD
        {"context": CONTEXT, "query": QUESTION, "target": "red"},
        {"instruction": QUESTION, "input": CONTEXT, "output": "red"},  # Alpaca
        {"instructions": [QUESTION], "input": CONTEXT, "outputs": ["red"], "source": "a"},  # L-Eval
        {"context": CONTEXT, "questions": [QUESTION], "answers": ["red"]},
        {"context": CONTEXT, "questions": [{"question": QUESTION, "ideal": "red"}]},
    ],
)
def test_a_context_with_a_question_is_understood_by_many_names(
    record: dict[str, Any], make: Make, plain: PreTrainedTokenizerFast
) -> None:
    (example,) = make(record).examples(plain)
    assert example.prompt == f"{CONTEXT}\n\n{QUESTION}\nAnswer:"
    assert example.question_at == len(CONTEXT)
    assert example.references == ("red",)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "The mill is", "answers": ["red"]},
        {"input": "The mill is", "ideal": "red"},  # OpenAI evals
        {"input": "The mill", "answer_prefix": " is", "outputs": ["red"], "index": 0},  # RULER
        {"doc": {}, "doc_id": 7, "target": "red", "arguments": {"gen_args_0": {"arg_0": "The mill is", "arg_1": {}}}},
        {"doc": {}, "doc_id": 7, "target": "red", "arguments": [["The mill is", {"until": ["\n"]}]]},
    ],
)
def test_a_whole_prompt_stays_as_it_is(record: dict[str, Any], make: Make, plain: PreTrainedTokenizerFast) -> None:
    (example,) = make(record).examples(plain)
    assert (example.prompt, example.question_at, example.references) == ("The mill is", None, ("red",))
    assert example.id == ("7" if "doc_id" in record else "1")


@pytest.mark.parametrize(
    ("choices", "answer"),
    [
        ({"choices": ["green", "red"]}, "B"),
        ({"choices": ["green", "red"]}, "(B)"),
        ({"choices": ["green", "red"]}, 1),
        ({"choices": ["green", "red"]}, "red"),
        ({"choice_A": "green", "choice_B": "red"}, "B"),  # LongBench v2
        ({"options": {"A": "green", "B": "red"}}, "B"),
        ({"choices": {"text": ["green", "red"], "label": ["A", "B"]}}, "B"),  # ARC
    ],
)
def test_choices_are_lettered_and_an_answer_is_a_letter_a_place_or_a_text(
    choices: dict[str, Any], answer: object, make: Make, plain: PreTrainedTokenizerFast
) -> None:
    task = make({"context": CONTEXT, "question": QUESTION, **choices, "answer": answer}, scores=["choice"])
    (example,) = task.examples(plain)
    assert example.prompt == f"{CONTEXT}\n\n{QUESTION}\nA. green\nB. red\nAnswer:"
    assert [task.score(example, text) for text in ("B", " red.", "A")] == [{"choice": n} for n in (1.0, 1.0, 0.0)]


def test_several_questions_share_their_context_and_what_the_record_says_of_all(
    make: Make, plain: PreTrainedTokenizerFast
) -> None:
    record = {
        "id": "town",
        "context": CONTEXT,
        "group": "a",
        "answer_prefix": "It is",
        "questions": [{"question": QUESTION, "answers": "red"}, {"id": "own", "question": "Why?", "answers": [1, 2]}],
    }
    task = make(record, {"context": "C", "question": "D?", "answers": "E", "group": "b"})
    first, second, _ = task.examples(plain)
    assert (first.id, second.id) == ("town-1", "own")
    assert first.prompt[: first.question_at] == second.prompt[: second.question_at] == CONTEXT
    assert second.prompt == f"{CONTEXT}\n\nWhy?\nIt is" and second.references == ("1", "2")
    assert first.group == {"group": "a"} and task.breakdown == "group"


def test_in_a_chat_template_the_question_begins_where_the_context_ends(
    make: Make, chatting: PreTrainedTokenizerFast
) -> None:
    record = {"context": CONTEXT, "question": QUESTION, "answers": ["red"], "answer_prefix": "It is"}
    (example,) = make(record).examples(chatting)
    assert not isinstance(example.prompt, str) and example.question_at is not None
    assert chatting.decode(list(example.prompt[: example.question_at])) == f"<s>[user] {CONTEXT}"
    assert chatting.decode(list(example.prompt[example.question_at :])) == f"\n\n{QUESTION}\n[assistant]\nIt is"
    (plain_example,) = make(record, chat=False).examples(chatting)
    assert plain_example.prompt == f"{CONTEXT}\n\n{QUESTION}\nIt is"


def test_a_template_may_ask_first_and_then_nothing_stands_before_the_question(
    make: Make, plain: PreTrainedTokenizerFast
) -> None:
    record = {"context": CONTEXT, "question": QUESTION, "answers": ["red"]}
    (example,) = make(record, template="{question}\n{context}", before_answer="", answer_prefix=" So").examples(plain)
    assert (example.prompt, example.question_at) == (f"{QUESTION}\n{CONTEXT} So", None)


def test_a_long_context_loses_its_middle_and_never_its_question(make: Make, plain: PreTrainedTokenizerFast) -> None:
    record = {"context": CONTEXT * 50, "question": QUESTION, "answers": ["red"]}
    (whole,) = make(record).examples(plain)
    (cut,) = make(record, max_context_tokens=20).examples(plain)
    assert cut.tokens_before_truncation == len(plain.encode(whole.prompt))
    assert cut.prompt[cut.question_at :] == whole.prompt[whole.question_at :]
    assert 18 <= len(plain.encode(cut.prompt[: cut.question_at], add_special_tokens=False)) <= 22


def test_settings_are_those_of_the_file_and_of_what_writes_and_scores(make: Make) -> None:
    record = {"context": CONTEXT, "question": QUESTION, "answers": ["red"]}
    former = make(record).settings()
    assert make({**record, "answers": ["green"]}).settings() != former
    assert make(record, template="{context} {question}").settings() != former
    assert make(record, show="f1").settings() == former
    assert make(record, scores=["f1"]).settings() != former
    assert former["metrics"] == ["contains", "exact_match", "f1"]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_file_runs_with_the_settings_that_are_drafted_for_it(file: Path, tiny: kvgauge.Engine) -> None:
    settings, seen = drafted(file)
    knobs = {"data": str(file), **settings, "max_new_tokens": 16}
    made = kvgauge.run(
        tiny, "jsonl", "snapkv", 32, limit=1, settings={f"task.{knob}": value for knob, value in knobs.items()}
    )
    (record,) = made.records()
    assert record["task"] == file.stem and record["text"] and next(iter(record["scores"])) == settings["show"]
    assert str(len(file.read_text(encoding="utf-8").splitlines())) in seen[0]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"article": CONTEXT * 9, "id": 1, "highlights": "Green."}, {"context": "article", "answers": "highlights"}),
        ({"document": CONTEXT * 9, "problem": QUESTION, "solution": CONTEXT * 20, "answer": "red"},
         {"context": "document", "question": "problem"}),
        ({"problem": QUESTION, "solution": CONTEXT * 20, "answer": "red"}, {"prompt": "problem"}),  # MATH
        ({"question": QUESTION, "answer": "It is 3 + 4.\n#### 7"}, {"prompt": "question"}),  # GSM8K
        ({"context": CONTEXT, "question": QUESTION, "answers": ["red"]}, {}),
    ],
)  # fmt: skip
def test_a_draft_names_the_fields_that_have_no_usual_name(
    record: dict[str, Any], expected: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({**record, "level": 3}), encoding="utf-8")
    settings, seen = drafted(file)
    assert settings.get("fields", {}) == expected
    assert "level" in seen[-1] and not any(name in seen[-1] for name in expected.values())
    assert settings["show"] == ("number" if "####" in str(record) else "contains")
    build({**task_config("jsonl", "task.data=x"), "data": str(file), **settings}).settings()


def test_a_record_with_a_smaller_limit_gets_the_beginning_of_the_same_answer(make: Make, tiny: kvgauge.Engine) -> None:
    record = {"context": CONTEXT, "question": QUESTION, "answers": ["red"]}
    task = make({**record, "id": "long"}, {**record, "id": "short", "max_new_tokens": 3}, max_new_tokens=8)
    long, short = kvgauge.run(tiny, task, "snapkv", 16).records()
    assert (len(long["tokens"]), short["tokens"]) == (8, long["tokens"][:3])
    assert long["text"].startswith(short["text"])
