"""InfiniteBench: prompts to the byte, scores as the official code gives them, generated records, bad files."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.config.build import build, task_config
from harness.errors import ConfigError, DataError
from tasks.infinitebench.generate import GENERATORS, NOISE, generate
from tasks.infinitebench.prompts import KINDS, MAX_NEW_TOKENS, fill, templates
from tasks.infinitebench.scores import METRICS, label_of, score
from tasks.infinitebench.suite import FIELDS, RECORDS, InfiniteBench, InfiniteBenchTask
from tests.tasks.goldens import golden
from tests.tasks.longbench.test_suite import tokenizer

FIXTURE = golden("infinitebench/fixture.json", "infinitebench_fixture.json")
CASES = golden("infinitebench/scorer_cases.json", "infinitebench_scores.json")


def suite(**changes: Any) -> InfiniteBench:
    values: dict[str, Any] = {
        "name": "infinitebench",
        "data": None,
        "datasets": "generated",
        "template": "yarn_mistral",
        "max_prompt_tokens": 131_072,
        "chat": False,
        "chat_arguments": {},
        "max_new_tokens": None,
        "clean_up": "installed",
        "seed": 0,
        "share": 0.01,
    }
    return InfiniteBench(**values | changes)


def one(dataset: str, **changes: Any) -> InfiniteBenchTask:
    (task,) = suite(datasets=[dataset], **changes).tasks()
    return task


def write(folder: Path, dataset: str, *records: dict[str, Any]) -> str:
    text = "\n".join(json.dumps(record) for record in records)
    (folder / f"{dataset}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


# --- prompts and scores


def test_prompts_of_all_templates_equal_the_official_ones() -> None:
    for golden_prompt in FIXTURE["prompts"]:
        kind, task = golden_prompt["template"].replace("-", "_"), golden_prompt["task"]
        record = FIXTURE["records"][task][golden_prompt["id"]]
        if golden_prompt["prompt"] is None:
            with pytest.raises(DataError, match="cannot be filled, officially either"):
                fill(kind, task, record)
            continue
        context, question = fill(kind, task, record)
        assert context + question == golden_prompt["prompt"]
        assert record["context"] in context and record["context"] not in question


def test_scores_are_the_official_ones_but_where_the_official_code_fails() -> None:
    for case in CASES:
        got = score(case["task"], case["prediction"], case["label"], case["model"] == "gpt4")
        assert got == pytest.approx(case["score"] or 0.0, abs=1e-12), case


def test_a_brace_in_a_record_stays_what_it_is() -> None:
    record = {"context": "{input} {0}", "input": "{context}", "answer": "1", "options": []}
    assert fill("yarn_mistral", "kv_retrieval", record).question == "{context}"


# --- generated records


def solve(task: str, context: str, asked: str) -> list[Any]:
    """The answer, found in another way than the generator made it."""
    match task:
        case "passkey" | "number_string":
            return [re.findall(r" is (\d+)\. Remember", context)[0]]
        case "kv_retrieval":
            return [json.loads(context.removeprefix("JSON data:\n"))[asked.split('"')[1]]]
        case "math_find":
            numbers = ast.literal_eval(context)
            kind = re.findall("largest|smallest|median", asked)[0]
            place = 1 if "second" in asked else 2 if "third" in asked else 0
            if kind == "median":
                return [sorted(numbers)[len(numbers) // 2]]
            return [sorted(set(numbers), reverse=kind == "largest")[place]]
        case "math_calc":
            total, values = 0, []
            for sign, number in re.findall(r"([+-]?) ?(\d+)", context):
                total += -int(number) if sign == "-" else int(number)
                values.append(total)
            assert 0 <= min(values) <= max(values) <= 99
            return values[1:]
    space: dict[str, Any] = {}
    exec(context.partition(":\n\n")[2], space)
    return [eval(re.findall(r"func_\d+\(-?\d+\)", asked)[0], space)]


@pytest.mark.parametrize("task", GENERATORS)
def test_a_generated_record_has_its_answer_and_depends_on_its_seed_alone(task: str) -> None:
    records = [generate(task, index, 0, 0.02) for index in range(12)]
    assert records == [generate(task, index, 0, 0.02) for index in range(12)]
    assert generate(task, 3, 1, 0.02) != records[3]
    for record in records:
        assert solve(task, record["context"], record["input"]) == record["answer"]
        said = str(record["answer"]) if task == "math_calc" else str(record["answer"][0])
        assert score(task, said, label_of(task, record)) == 1.0
        assert fill("yarn_mistral", task, record).question


def test_a_whole_share_has_the_published_size() -> None:
    sizes = {task: generate(task, 58, 0, 1.0) for task in ("passkey", "number_string", "kv_retrieval", "code_run")}
    assert sizes["passkey"]["context"].count(NOISE) == sizes["number_string"]["context"].count(NOISE) == 5220
    assert not sizes["passkey"]["context"].endswith(NOISE)  # the last of 59 places
    assert re.fullmatch(r"\d{10}", sizes["number_string"]["answer"][0])
    assert sizes["kv_retrieval"]["context"].count(": ") == 2500
    assert sizes["code_run"]["context"].count("def ") == 550


# --- tasks


def test_every_task_makes_examples_of_its_files(tmp_path: Path) -> None:
    made = tokenizer()
    for dataset, records in FIXTURE["records"].items():
        task = one(dataset, data=write(tmp_path, dataset, *records))
        for index, (record, example) in enumerate(zip(records, task.examples(made)[:], strict=True)):
            context, question = fill("yarn_mistral", dataset, record)
            assert made.decode(list(example.prompt)) == f"<s>{context}{question}"
            assert made.decode(list(example.prompt[example.question_at :])) == question
            assert example.id == str(index)
            said = {"math_calc": str(example.details["label"]), "code_debug": f"{example.references[-1]}."}
            assert task.score(example, said.get(dataset, example.references[0])) == {"score": pytest.approx(1.0)}
        assert task.max_new_tokens == MAX_NEW_TOKENS[dataset] and task.metrics[0].title == METRICS[dataset]


def test_generated_tasks_need_no_files_and_say_so() -> None:
    tasks = suite().tasks()
    assert [task.dataset for task in tasks] == list(GENERATORS)
    for task in tasks:
        examples = task.examples(tokenizer())
        assert len(examples) == RECORDS[task.dataset] == task.published_examples
        assert examples[5].question_at
        assert task.departures == "Not as published: records are generated, of 0.01 of the published size."
        assert task.settings() != one(task.dataset, seed=1).settings()
    assert one("passkey", data="x").departures == ""


def test_a_prompt_without_a_question_is_all_context(tmp_path: Path) -> None:
    record = {"id": 0, "context": "word " * 9, "input": "", "answer": ["x"], "options": []}
    task = one("longbook_sum_eng", data=write(tmp_path, "longbook_sum_eng", record), template="gpt4")
    example = task.examples(tokenizer())[0]
    assert example.question_at == len(example.prompt)


def test_the_suite_is_what_its_file_says() -> None:
    built = build(task_config("infinitebench"))
    assert isinstance(built, InfiniteBench) and len(built.tasks()) == 6
    names = [f"infinitebench-{dataset}" for dataset in RECORDS]
    assert built.ordered(names[::-1]) == names
    assert [average.title for average in built.averages(names)] == ["average of 12"]
    assert built.averages(names[1:]) == ()
    assert len(suite(datasets="all").tasks()) == 12
    assert {kind: len(tasks) for kind, tasks in templates().items()} == dict.fromkeys(KINDS, 12)


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": "half"}, "task.datasets has 'half', which is no dataset of InfiniteBench: use all, generated"),
        ({"datasets": []}, "task.datasets is empty"),
        ({"template": "gpt5"}, "task.template='gpt5' is unknown: use one of yarn_mistral"),
        ({"share": 0}, "task.share=0 is no share"),
        ({"seed": "x"}, "task.seed='x' is not a whole number"),
        ({"max_new_tokens": 0}, "task.max_new_tokens is 0"),
        ({"data": 1}, "task.data=1 is not a path"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        suite(**changes).tasks()
    assert message in str(caught.value) and "\n" not in str(caught.value)


GOOD = {"id": 0, "context": "c", "input": "i", "answer": ["A"], "options": ["A", "B", "C", "D"]}


@pytest.mark.parametrize(
    ("dataset", "record", "message"),
    [
        ("longbook_choice_eng", {"options": ["A"]}, "record 1 of longbook_choice_eng.jsonl has 1 options, not 4"),
        ("code_debug", {"answer": "x"}, "has the answer 'x', which is none of its options"),
        ("math_find", {}, "record 1 of math_find.jsonl asks for no number in input='i'"),
        ("code_run", {}, "record 1 of code_run.jsonl calls no function in input='i'"),
        ("passkey", {"answer": []}, "record 1 of passkey.jsonl has no answer"),
        *(("passkey", {field: None}, f"line 1 of passkey.jsonl has {field}=None") for field in FIELDS),
    ],
)
def test_a_bad_record_is_one_line(tmp_path: Path, dataset: str, record: dict[str, Any], message: str) -> None:
    task = one(dataset, data=write(tmp_path, dataset, GOOD | record))
    with pytest.raises(DataError) as caught:
        task.settings()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_are_named_with_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"come from nowhere else: use InfiniteBench's own \.jsonl files, from https"):
        one("code_debug").settings()
    with pytest.raises(DataError, match=r"lacks 2 of 2 files, passkey\.jsonl, code_run\.jsonl"):
        suite(data=str(tmp_path), datasets=["passkey", "code_run"]).tasks()[0].settings()
