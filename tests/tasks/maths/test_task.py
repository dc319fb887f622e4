"""math500, gsm8k and aime24: their files, prompts and scores, and what is wrong with settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from transformers import AutoTokenizer

from harness.config.build import build, task_config
from harness.errors import ConfigError, DataError, KvgaugeError
from harness.task import DataSource, Example, Published, Rescorable, Task
from tasks.maths.data import BENCHMARKS, digest, load
from tasks.maths.task import Maths

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden/maths"
SHARED = ROOT.parent / "shared/benchmarks"
AIME = {"id": 60, "problem": "What is 200 + 4?", "answer": "204"}


def maths(name: str = "math500", **knobs: Any) -> Maths:
    config = {**task_config(name), "chat": False, "chat_arguments": {}, "data": str(GOLDEN / f"{name}.jsonl"), **knobs}
    task = build(config)
    assert isinstance(task, Maths)
    return task


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(ROOT / "models/tiny")


def test_they_are_tasks_that_can_be_fetched_scored_again_and_have_a_published_size() -> None:
    checked: Task = maths()
    assert isinstance(checked, Rescorable) and isinstance(checked, DataSource) and isinstance(checked, Published)
    assert [maths(name).published_examples for name in BENCHMARKS] == [500, 1319, 30]
    assert [(metric.name, metric.maximum) for metric in checked.metrics] == [("correct", 1.0), ("output_tokens", 8192)]


def test_math500_asks_in_the_field_s_words_and_in_r_kv_s(tokenizer: Any) -> None:
    problem = json.loads((GOLDEN / "math500.jsonl").read_text(encoding="utf-8").splitlines()[0])
    (first, *_) = maths().examples(tokenizer)
    assert first == Example(
        id=problem["unique_id"],
        prompt=problem["problem"] + "\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
        references=(problem["answer"],),
        group={"level": problem["level"], "subject": problem["subject"]},
    )
    assert maths(prompt="Q: {problem}\nA:").examples(tokenizer)[0].prompt == f"Q: {problem['problem']}\nA:"


def test_r_kv_s_prompt_is_byte_for_byte_the_published_one(tokenizer: Any) -> None:
    protocol = SHARED / "math/protocol.json"
    if not protocol.is_file():
        pytest.skip("no protocol of R-KV here")
    published = json.loads(protocol.read_text(encoding="utf-8"))["rkv"]["prompt"]
    task = maths(prompt="rkv")
    for example, problem in zip(task.examples(tokenizer), load(BENCHMARKS["math500"], GOLDEN), strict=True):
        assert example.prompt == published.replace("{question}", problem.text)


def test_answers_of_gsm8k_stand_behind_its_mark_and_those_of_aime_are_numbers_or_texts(
    tokenizer: Any, tmp_path: Path
) -> None:
    assert [example.references for example in maths("gsm8k").examples(tokenizer)] == [("18",), ("3",), ("70000",)]
    (tmp_path / "aime24.jsonl").write_text(json.dumps(AIME) + "\n" + json.dumps({**AIME, "id": "b", "answer": 33}))
    examples = maths("aime24", data=str(tmp_path)).examples(tokenizer)
    assert [(example.id, example.references) for example in examples] == [("60", ("204",)), ("b", ("33",))]


def test_parquet_and_jsonl_have_the_same_problems(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (GOLDEN / "gsm8k.jsonl").read_text(encoding="utf-8").splitlines()]
    pd.DataFrame(rows).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    gsm8k = BENCHMARKS["gsm8k"]
    assert digest(load(gsm8k, tmp_path)) == digest(load(gsm8k, GOLDEN / "gsm8k.jsonl"))
    assert maths("gsm8k", data=str(tmp_path)).settings() == maths("gsm8k").settings()


@pytest.mark.parametrize("name, path", [("math500", "data/math/math500.jsonl"), ("gsm8k", "data/gsm8k/test.jsonl")])
def test_whole_files_hold_what_was_published(name: str, path: str) -> None:
    if not (SHARED / path).is_file():
        pytest.skip(f"no {path} here")
    (state,) = maths(name).survey(SHARED / path)
    assert (state.found, state.problem) == (BENCHMARKS[name].records, None)
    (state,) = maths(name).survey(GOLDEN / f"{name}.jsonl")
    assert state.problem is not None and f"{BENCHMARKS[name].records} were published" in state.problem


@pytest.mark.parametrize(
    "text, boxed, whole",
    [
        ("so it is \\boxed{\\dfrac{14}{3}}.", 1, 1),
        ("\\boxed{1}, no: \\boxed{14/3}", 1, 0),  # to math-verify, two boxes are two answers
        ("<think>\\boxed{14/3}</think> \\boxed{1}", 0, 0),
        ("<think>It is \\boxed{14/3}", 0, 0),
        ("The answer is $\\frac{14}{3}$.", 1, 1),
        ("", 0, 0),
    ],
)
def test_answer_is_the_last_box_or_what_math_verify_finds(text: str, boxed: int, whole: int) -> None:
    example = Example(id="a", prompt="", references=("\\frac{14}{3}",))
    assert maths().score(example, text) == {"correct": boxed}
    assert maths(extraction="math_verify").score(example, text) == {"correct": whole}


def test_box_at_the_end_of_a_sentence_may_hold_its_period() -> None:
    assert maths().score(Example(id="a", prompt="", references=("4",)), "\\boxed{4.}") == {"correct": 1}


@pytest.mark.parametrize(
    "knobs, message",
    [
        ({"benchmark": "math"}, "task.benchmark='math' is not there: use one of math500, gsm8k, aime24"),
        ({"prompt": "Solve it."}, "task.prompt='Solve it.' has no one {problem} in it: use one of reason, rkv"),
        ({"prompt": 3}, "task.prompt=3 has no one {problem} in it"),
        ({"prompt": "{problem} {problem}"}, "has no one {problem} in it"),
        ({"chat": "yes"}, "task.chat='yes' is neither true nor false nor auto"),
        ({"chat": True}, "task.chat=true, but the tokenizer has no chat template"),
        ({"chat_arguments": 1}, "task.chat_arguments=1 is not a mapping"),
        ({"thinking": "<think>"}, "task.thinking='<think>' is not two tags"),
        ({"thinking": ["<think>", ""]}, "is not two tags"),
        ({"extraction": "last"}, "task.extraction='last' is unknown: use one of boxed, math_verify"),
        ({"max_new_tokens": 0}, "task.max_new_tokens is 0: use a whole number, 1 or more"),
        ({"min_new_tokens": -1}, "task.min_new_tokens is -1"),
        ({"data": 5}, "task.data=5 is not a path"),
        ({"data": "/nowhere"}, "task.data='/nowhere' does not exist: use the official file of MATH-500"),
        ({"data": str(ROOT / "methods")}, "holds no test.jsonl or math500.jsonl or math.jsonl: add one"),
        ({"data": str(GOLDEN / "gsm8k.jsonl")}, "line 1 of gsm8k.jsonl has no field 'problem'"),
    ],
)
def test_bad_settings_are_one_line(knobs: dict[str, Any], message: str, tokenizer: Any) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        task = maths(**knobs)
        task.settings()
        task.examples(tokenizer)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "gsm8k",
            b'{"question": "1?", "answer": "1"}',
            "line 1 of f.jsonl: its solution names no answer",
        ),
        ("gsm8k", b'{"question": " ", "answer": "#### 1"}', "line 1 of f.jsonl has an empty problem"),
        ("gsm8k", b'{"question": "1?", "answer": "#### "}', "line 1 of f.jsonl has an empty answer"),
        ("gsm8k", b"", "holds no problem"),
        ("gsm8k", b"{", "line 1 of f.jsonl is not JSON"),
        ("aime24", json.dumps(AIME).encode() + b"\n" + json.dumps(AIME).encode(), "line 2 of f.jsonl has the id '60'"),
        ("aime24", b'{"id": 1, "problem": "1?", "answer": 0.5}', "has answer=0.5, which is not a number or a text"),
    ],
)
def test_bad_files_are_one_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes(content)
    with pytest.raises(KvgaugeError) as caught:
        maths(name, data=str(tmp_path / "f.jsonl")).settings()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_file_that_is_no_parquet_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "f.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="f.parquet is no parquet file"):
        maths("gsm8k", data=str(tmp_path / "f.parquet")).settings()
