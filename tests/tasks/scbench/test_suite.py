"""SCBench: prompts to the byte in both modes, shared contexts, official scores, contexts of ours, bad files."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from harness.config.build import build, task_config
from harness.errors import ConfigError, DataError
from tasks.conversation import between_turns
from tasks.prompting import Frame
from tasks.scbench.generate import GENERATORS, TURNS, generate
from tasks.scbench.prompts import MAX_NEW_TOKENS, turns
from tasks.scbench.scores import label_of, score
from tasks.scbench.suite import SCBench, SCBenchTask
from tests.tasks.goldens import HERE, SHARED, golden, needs_shared
from tests.tasks.longbench.test_suite import tokenizer

FIXTURE = golden("scbench/fixture.json", "scbench_fixture.json")
CASES = golden("scbench/scorer_cases.json", "scbench_scores.json")
SMOLLM2 = Frame(
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n",
    "<|im_end|>\n<|im_start|>assistant\n",
)
CHATS = "{% for m in messages %}<|turn|>{{ m['role'] }}:{{ m['content'] }}{% endfor %}<|turn|>assistant:"


def suite(**changes: Any) -> SCBench:
    values: dict[str, Any] = {
        "name": "scbench",
        "data": None,
        "datasets": "generated",
        "mode": "scdq",
        "max_prompt_tokens": 160_000,
        "chat": False,
        "chat_arguments": {},
        "max_new_tokens": None,
        "clean_up": "installed",
        "seed": 0,
        "entries": 10,
    }
    return SCBench(**values | changes)


def one(dataset: str, **changes: Any) -> SCBenchTask:
    (task,) = suite(datasets=[dataset], **changes).tasks()
    return task


def write(folder: Path, dataset: str, *records: dict[str, Any]) -> str:
    text = "\n".join(json.dumps(record) for record in records)
    (folder / f"{dataset}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


# --- prompts and scores


def test_prompts_of_every_mode_equal_the_official_ones() -> None:
    modes = {"golden": "multi_turn", "no_golden": "own_answers", "scdq": "scdq"}
    for case in FIXTURE["prompts"]:
        record, frame = FIXTURE["records"][case["task"]], SMOLLM2 if case["chat_template"] else None
        between = "<|im_end|>\n<|im_start|>user\n"
        assert turns(modes[case["mode"]], case["task"], record, frame, between) == case["prompts"], case["task"]


def test_scores_are_the_official_ones() -> None:
    cases = CASES["cases"] if HERE else CASES
    assert len(cases) == 35
    for case in cases:
        assert score(case["task"], case["prediction"], case["label"]) == pytest.approx(case["score"], abs=1e-12), case


@needs_shared
def test_a_whole_file_gives_the_official_means_by_turn_and_over_all() -> None:
    rule = CASES["file_rule"]
    by_turn = defaultdict(list)
    for row in rule["rows"]:
        by_turn[row["turn_idx"]].append(score(rule["task"], row["prediction"], row["ground_truth"]))
    means = [f"{100 * sum(part) / len(part):.3f}" for _, part in sorted(by_turn.items())]
    assert ",".join(means) == rule["multi_turn"]
    every = [value for part in by_turn.values() for value in part]
    assert f"{100 * sum(every) / len(every):.3f}" == rule["same_context_different_query"]
    assert SHARED.is_dir()


# --- examples


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("mode", ["scdq", "multi_turn"])
def test_questions_of_a_record_share_the_ids_of_its_context(tmp_path: Path, mode: str, chat: bool) -> None:
    made = tokenizer()
    template = made.chat_template
    try:
        made.chat_template = CHATS
        between = between_turns(made, {}, "task.mode=scdq")
        assert between == "<|turn|>user:"
        frame = Frame("<|turn|>user:", "<|turn|>assistant:") if chat else None
        for dataset, record in FIXTURE["records"].items():
            task = one(dataset, data=write(tmp_path, dataset, record), mode=mode, chat=chat)
            first, *rest = turns(mode, dataset, record, frame, between)
            examples = task.examples(made)[:]
            assert len(examples) == len(record["multi_turns"])
            for turn, example in enumerate(examples):
                at = example.question_at
                before = "" if chat else "<s>"
                assert made.decode(list(example.prompt[:at])) == before + first
                added = rest[turn] if mode == "scdq" else "".join(rest[:turn])
                assert made.decode(list(example.prompt[at:])) == added
                assert example.group == {"turn": turn + 1} and example.id == f"0-{turn + 1}"
                label = label_of(dataset, record["multi_turns"][turn])
                assert task.score(example, " ".join(map(str, label)) if isinstance(label, list) else str(label)) == {
                    "score": pytest.approx(1.0)
                }
            assert task.breakdown == "turn"
    finally:
        made.chat_template = template


def test_a_turn_on_own_answers_adds_an_end_token_and_its_official_prompt_to_the_turn_before(tmp_path: Path) -> None:
    made = tokenizer()
    end = made.eos_token_id
    for dataset, record in FIXTURE["records"].items():
        task = one(dataset, data=write(tmp_path, dataset, record), mode="own_answers")
        first, *following = task.examples(made)[:]
        golden = one(dataset, data=write(tmp_path, dataset, record), mode="multi_turn").examples(made)[0]
        assert (first.prompt, first.question_at, first.follows) == (golden.prompt, golden.question_at, None)
        _, *texts = turns("own_answers", dataset, record, None, "")
        for turn, (example, text) in enumerate(zip(following, texts, strict=True), start=1):
            assert (example.id, example.follows) == (f"0-{turn + 1}", f"0-{turn}")
            assert example.question_at is None and example.tokens_before_truncation is None
            ids = list(example.prompt)
            assert (ids[:1], made.decode(ids[1:])) == ([end] if end is not None else [], text)


def test_a_context_beyond_the_limit_loses_its_middle_and_no_question_does() -> None:
    # 10 numbers in about 110 bytes; 5 answers of 5 tokens and the benchmark's own 1000 are left free.
    task = one("scbench_mf", max_prompt_tokens=1085)
    whole, cut = one("scbench_mf").examples(tokenizer())[1], task.examples(tokenizer())[1]
    assert cut.question_at == 60 and whole.question_at is not None and whole.question_at > 100
    assert cut.prompt[:30] == whole.prompt[:30] and cut.prompt[30:] == whole.prompt[whole.question_at - 30 :]
    assert cut.tokens_before_truncation == len(whole.prompt)
    with pytest.raises(ConfigError, match=r"leaves no room for a context of scbench_mf: use 1027 or more"):
        one("scbench_mf", max_prompt_tokens=100).examples(tokenizer())[0]


def test_a_template_without_a_second_turn_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"does not write each turn once: use task\.mode=scdq"):
        between_turns(tokenizer(), {}, "task.mode=scdq")


# --- contexts of ours


def solve(task: str, context: str, asked: str) -> Any:
    """The answer, found in another way than the generator made it."""
    if task == "scbench_kv":
        return json.loads(context.removeprefix("JSON data:\n"))[asked.split('"')[1]]
    if task == "scbench_prefix_suffix":
        begin, end = re.findall('"(.+?)"', asked)
        return next(text for text in context.split()[1:] if text.startswith(begin) and text.endswith(end))
    if task == "scbench_vt":
        values: dict[str, str] = {}
        for name, value in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", context):
            values[name] = values.get(value, value)
        return [name for name, value in values.items() if f"value {value}." in asked]
    numbers = sorted(ast.literal_eval(context))
    different = sorted(set(numbers), reverse="largest" in asked)
    return numbers[len(numbers) // 2] if "median" in asked else different["second" in asked]


@pytest.mark.parametrize("task", GENERATORS)
def test_a_generated_record_has_its_answers_and_depends_on_its_seed_alone(task: str) -> None:
    record = generate(task, 3, 0, 40)
    assert record == generate(task, 3, 0, 40) != generate(task, 3, 1, 40)
    assert len(record["multi_turns"]) == TURNS
    for turn in record["multi_turns"]:
        assert solve(task, record["context"], turn["input"]) == turn["answer"]
    examples = one(task).examples(tokenizer())
    assert len(examples) == 100 and examples[7].id == "1-3"
    assert one(task).departures == "Not as published: records are generated, of 10 entries."
    settings = [
        one(task, **changed).settings() for changed in ({}, {"seed": 1}, {"entries": 11}, {"mode": "multi_turn"})
    ]
    assert all(settings.count(each) == 1 for each in settings)


def test_the_suite_is_what_its_file_says() -> None:
    built = build(task_config("scbench"))
    assert isinstance(built, SCBench) and [task.dataset for task in built.tasks()] == list(GENERATORS)
    names = [f"scbench-{dataset}" for dataset in MAX_NEW_TOKENS]
    assert built.ordered(names[::-1]) == names and built.averages(names) == ()


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": "scbench_repoqa"}, "task.datasets has 'scbench_repoqa', which is no dataset of SCBench: use all"),
        ({"mode": "golden"}, "task.mode='golden' is unknown: use one of scdq, multi_turn, own_answers"),
        ({"entries": 9}, "task.entries is 9"),
        ({"seed": None}, "task.seed=None is not a whole number"),
        ({"max_new_tokens": 0}, "task.max_new_tokens is 0"),
        ({"data": 1}, "task.data=1 is not a path"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        suite(**changes).tasks()
    assert message in str(caught.value) and "\n" not in str(caught.value)


TURN = {"input": "The x is: ", "answer": "a", "options": ["a", "b", "c", "d"], "task": "scbench_summary"}


@pytest.mark.parametrize(
    ("dataset", "changes", "message"),
    [
        ("scbench_kv", {"input": 1}, "turn 1 of record 1 of scbench_kv.jsonl has input=1, which is not a text"),
        ("scbench_vt", {"answer": []}, "turn 1 of record 1 of scbench_vt.jsonl has no answer"),
        ("scbench_mf", {"input": "?"}, "a turn of scbench_mf asks for no number in input='?'"),
        (
            "scbench_choice_eng",
            {"options": ["a"]},
            "record 1 of scbench_choice_eng.jsonl has 1 options, not 4",
        ),
        ("scbench_choice_eng", {"answer": "x"}, "has the answer 'x', which is none of its options"),
        ("scbench_summary_with_needles", {"task": "x"}, "is of 'x', which scbench_summary_with_needles does not have"),
    ],
)
def test_a_bad_turn_is_one_line(tmp_path: Path, dataset: str, changes: dict[str, Any], message: str) -> None:
    record = {"id": 0, "context": "c", "multi_turns": [TURN | changes]}
    with pytest.raises(DataError) as caught:
        one(dataset, data=write(tmp_path, dataset, record)).settings()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_records_without_turns_and_missing_files_are_named(tmp_path: Path) -> None:
    record = {"id": 0, "context": "c", "multi_turns": []}
    with pytest.raises(DataError, match=r"record 1 of scbench_kv\.jsonl has no turn"):
        one("scbench_kv", data=write(tmp_path, "scbench_kv", record)).settings()
    with pytest.raises(DataError, match=r"come from nowhere else: use SCBench's records as \.jsonl files"):
        one("scbench_qa_eng").settings()
