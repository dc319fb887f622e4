"""LongBench v2: prompts to the byte, answers as the official code reads them, the published columns, bad files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.build import build, task_config
from harness.errors import ConfigError, DataError
from harness.report.stats.table import breakdown, table
from harness.results import Cell, CellResult, Record, TaskResult
from tasks.longbench_v2.prompts import KINDS, fill, templates
from tasks.longbench_v2.scores import COLUMNS, columns, extract, kvpress, official
from tasks.longbench_v2.task import FIELDS, LongBenchV2, load
from tests.tasks.goldens import SHARED, golden, needs_shared
from tests.tasks.longbench.test_suite import tokenizer

FIXTURE = golden("longbench_v2/fixture.json", "longbench_v2_fixture.json")
CASES = golden("longbench_v2/extraction_cases.json", "longbench_v2_extraction.json")


def task(**changes: Any) -> LongBenchV2:
    values: dict[str, Any] = {
        "name": "longbench_v2",
        "data": None,
        "prompt": "0shot",
        "max_prompt_tokens": 120_000,
        "chat": False,
        "chat_arguments": {},
        "compensated": False,
        "max_new_tokens": 128,
        "clean_up": "installed",
    }
    return LongBenchV2(**values | changes)


def write(folder: Path, *records: dict[str, Any]) -> Path:
    file = folder / "data.json"
    file.write_text(json.dumps(records), encoding="utf-8")
    return file


RECORD: dict[str, Any] = FIXTURE["records"][0]


# --- prompts


def test_prompts_equal_the_official_ones_and_end_their_context_before_the_question() -> None:
    for record, prompts in zip(FIXTURE["records"], FIXTURE["prompts"], strict=True):
        for kind, prompt in prompts.items():
            reasoning = prompt.split("step by step: ")[-1].split("\n\nBased on")[0] if kind == "0shot_cot_ans" else ""
            context, question = fill(kind, record, reasoning)
            assert context + question == prompt
            assert question.startswith("What is the correct answer") or kind == "0shot_cot_ans"


def test_a_mark_inside_a_text_is_replaced_as_in_the_official_code() -> None:
    record = RECORD | {"context": " What $Q$ says, $C_A$ ", "question": " is $C_B$? "}
    context, question = fill("0shot", record)
    assert context.endswith(f"What is {record['choice_B']}? says, {record['choice_A'].strip()}\n</text>\n\n")
    assert question.startswith(f"What is the correct answer to this question: is {record['choice_B']}?\n")


def test_kvpress_asks_with_its_own_template() -> None:
    context, question = fill("kvpress", RECORD)
    assert context == (
        "Please read the following text and answer the question below.\n<text>\n" + RECORD["context"] + "\n</text>\n\n"
    )
    assert question.endswith('\n\nFormat your response as follows: "The correct answer is (insert answer here).')
    assert f"(A) {RECORD['choice_A']}\n" in question


# --- scores


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["response"][:40])
def test_an_answer_is_read_as_the_official_code_and_as_kvpress_reads_it(case: dict[str, Any]) -> None:
    assert extract(case["response"]) == case["extracted"]
    for letter, right in case["kvpress"].items():
        assert kvpress(case["response"], letter) == right
        assert official(case["response"], letter, False) == (case["extracted"] == letter)
        assert official(case["response"], letter, True) == (
            0.25 if case["extracted"] is None else case["extracted"] == letter
        )


@needs_shared
def test_the_published_columns_of_four_runs_come_out() -> None:
    published = json.loads((SHARED / "data/longbench_v2/published_gpt4o_mini.json").read_text(encoding="utf-8"))
    assert tuple(published["order"]) == COLUMNS
    for run in published["runs"].values():
        rows = [({"difficulty": difficulty, "length": length}, pair) for _, difficulty, length, *pair, _ in run["rows"]]
        scored = [(row, float(answer == letter)) for row, (answer, letter) in rows]
        assert [columns(scored)[column] for column in COLUMNS] == run["published"]
        # And so the tables have them.
        records = tuple(
            Record(str(place), row, (), {}, 10, "00", scores={"accuracy": score})
            for place, (row, score) in enumerate(scored)
        )
        cells = (CellResult(Cell("run", "full"), len(records), records),)
        result = TaskResult("model", "task", task().metrics, None, "", cells, task().breakdown)
        shown = breakdown(result).set_index("part")["score"].round(1).to_dict()
        parts = {"difficulty easy": 1, "difficulty hard": 2, "length short": 3, "length medium": 4, "length long": 5}
        assert shown == {name: run["published"][at] for name, at in parts.items() if run["published"][at] is not None}
        assert round(float(table(result)["score"][0]), 1) == run["published"][0]


def test_columns_without_records_are_none() -> None:
    assert columns([({"difficulty": "odd", "length": "odd"}, 1.0)]) == {
        "overall": 100.0, "easy": None, "hard": 100.0, "short": None, "medium": None, "long": 100.0,
    }  # fmt: skip


# --- the task


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("prompt", [*KINDS, "kvpress"])
def test_examples_carry_the_question_its_place_and_the_letter(tmp_path: Path, prompt: str, chat: bool) -> None:
    made = tokenizer()
    data = str(write(tmp_path, *FIXTURE["records"][:3]).parent)
    for record, example in zip(
        FIXTURE["records"], task(data=data, prompt=prompt, chat=chat).examples(made)[:], strict=False
    ):
        context, question = fill(prompt, record)
        before, after = ("<s>U:", "<|turn|>A:") if chat else ("<s>", "")
        assert made.decode(list(example.prompt)) == before + context + question + after
        if prompt == "0shot_no_context":
            assert example.question_at is None
        else:
            assert made.decode(list(example.prompt[example.question_at :])) == question + after
        assert example.id == record["_id"] and example.references == (record["answer"],)
        assert example.group == {name: record[name] for name in ("difficulty", "length", "domain")}


def test_a_long_prompt_loses_its_middle_and_keeps_its_question(tmp_path: Path) -> None:
    data = str(write(tmp_path, RECORD | {"context": "word " * 500}))
    example = task(data=data, max_prompt_tokens=1000).examples(tokenizer())[0]
    assert example.tokens_before_truncation is not None and example.tokens_before_truncation > 2500
    assert len(example.prompt) <= 1001
    asked = tokenizer().decode(list(example.prompt[example.question_at :]))
    assert asked == fill("0shot", RECORD).question


@needs_shared
def test_the_25_real_records_become_prompts_and_are_scored() -> None:
    records = load(SHARED / "data/longbench_v2/sample.jsonl").rows
    assert len(records) == 25
    made = task(data=str(SHARED / "data/longbench_v2/sample.jsonl"), max_prompt_tokens=2000)
    made.settings()
    example = made.examples(tokenizer())[0]  # the others are as long, and encoding by bytes is slow
    assert 1900 < len(example.prompt) < 2010
    for record in records:
        asked = fill("0shot", record)
        assert record["context"].strip() in asked.context and record["question"].strip() in asked.question
        assert official(f"The correct answer is ({record['answer']})", record["answer"], False) == 1.0


def test_presets_are_the_three_ways_to_ask() -> None:
    built = [build(task_config(name)) for name in ("longbench_v2", "longbench_v2_cot", "longbench_v2_kvpress")]
    assert [(made.prompt, made.max_new_tokens) for made in built] == [
        ("0shot", 128), ("0shot_cot", 1024), ("kvpress", 16),
    ]  # fmt: skip
    assert [bool(made.departures) for made in built] == [False, True, False]
    assert task(prompt="kvpress").departures == "Not as published: task.max_new_tokens=128."


def test_settings_name_what_changes_numbers(tmp_path: Path) -> None:
    data = str(write(tmp_path, RECORD))
    base = task(data=data).settings()
    changes = ({"prompt": "0shot_cot"}, {"max_prompt_tokens": 9}, {"chat": True}, {"compensated": True})
    for changed in changes:
        assert task(data=data, **changed).settings() != base
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps(RECORD | {"other": 1}) + "\n", encoding="utf-8")
    assert task(data=str(lines)).settings() == base
    assert templates().keys() >= set(KINDS)


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "1shot"}, "task.prompt='1shot' is unknown: use one of 0shot"),
        ({"compensated": 1}, "task.compensated=1 is neither true nor false"),
        ({"max_prompt_tokens": 1}, "task.max_prompt_tokens is 1"),
        ({"max_new_tokens": 0}, "task.max_new_tokens is 0"),
        ({"chat": "yes"}, "task.chat='yes' is neither true nor false nor auto"),
        ({"data": 3}, "task.data=3 is not a path"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task(**changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "data.json holds no record"),
        ('[{"_id": "a"', "data.json is not JSON"),
        ("[\n1]", "record 1 of data.json is 1, not a record"),
        (
            json.dumps([RECORD | {"answer": "E"}]),
            "record 1 of data.json has answer='E', which is not one of A, B, C, D",
        ),
        (json.dumps([RECORD, RECORD]), "record 2 of data.json repeats the _id of record 1"),
        *(
            (json.dumps({k: v for k, v in RECORD.items() if k != field}), f"line 1 of data.json has no field '{field}'")
            for field in FIELDS
        ),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        task(data=str(tmp_path)).settings()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_the_file_names_it_and_a_survey_counts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no data\.json: use LongBench v2's own data\.json"):
        task(data=str(tmp_path)).settings()
    write(tmp_path, RECORD)
    (file,) = task().survey(tmp_path)
    assert (file.name, file.expected, file.found) == ("data.json", 503, 1)
    assert (
        file.problem == "data.json holds 1 records, not the 503 that were published: use LongBench v2's own data.json"
    )
