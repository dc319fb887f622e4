"""L-Eval: many questions on one document, its prompts and cut, its scores, bad files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.build import build, task_config
from harness.errors import ConfigError, DataError
from tasks.leval.scores import KIND_OF, chosen, exact_match, judged, number, right_choice, score
from tasks.leval.suite import CLOSED, FIELDS, LEval, LEvalTask, cut, fill, system, system_prompts
from tests.tasks.goldens import HERE, SHARED, needs_shared
from tests.tasks.longbench.test_suite import tokenizer

DATA = SHARED / "data/leval"
CHATS = "{% for m in messages %}<|turn|>{{ m['role'] }}:{{ m['content'] }}{% endfor %}<|turn|>assistant:"
RECORD: dict[str, Any] = {
    "input": "Ada lit the red lamp.",
    "instructions": ["Which lamp?", "Who lit it?"],
    "outputs": ["(A) red", "(B) Ada"],
    "evaluation": "exam",
}


def suite(**changes: Any) -> LEval:
    values: dict[str, Any] = {
        "name": "leval",
        "data": None,
        "datasets": "closed",
        "max_document_tokens": 15_488,
        "chat": False,
        "chat_arguments": {},
        "max_new_tokens": None,
        "clean_up": "installed",
    }
    return LEval(**values | changes)


def one(dataset: str, **changes: Any) -> LEvalTask:
    (task,) = suite(datasets=[dataset], **changes).tasks()
    return task


def write(folder: Path, dataset: str, *records: dict[str, Any]) -> str:
    text = "\n".join(json.dumps(record) for record in records)
    (folder / f"{dataset}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


# --- scores


@pytest.mark.parametrize(
    ("prediction", "one", "several"),
    [
        ("C", "C", "C"), ("B. yes", "B", "B"), ("(D) x", "D", "D"), ("", "None", "None"), ("nothing", "A", "A"),
        ("BD", "B", "BD"), ("DBB x", "D", "BD"), ("it is (C).", "C", "C"), ("B. and C. Question D.", "B", "BC"),
    ],
)  # fmt: skip
def test_letters_are_read_from_a_prediction(prediction: str, one: str, several: str) -> None:
    assert (chosen(prediction, False), chosen(prediction, True)) == (one, several)


@pytest.mark.parametrize(
    ("text", "digits"),
    [("The answer is 1,200.5 so", "1200"), ("7 a\n\n8", "7"), ("$12 and 13% of", "13"), ("none", "")],
)
def test_a_number_is_read_from_a_text(text: str, digits: str) -> None:
    assert number(text) == digits


@pytest.mark.parametrize(
    ("dataset", "prediction", "reference", "wanted"),
    [
        ("quality", "B", "(B) Ada", 1.0),
        ("coursera", "BD", "BD", 1.0),
        ("coursera", "B", "BD", 0.25),
        ("coursera", "ABD", "BD", 0.0),
        ("gsm100", "so The answer is 18.", "18", 1.0),
        ("topic_retrieval_longchat", "x\nThe topic is Red  Lamps!", "red lamps", 1.0),
        ("sci_fi", "That is untrue, or false", "True [fact: False]", 1.0),
        ("sci_fi", "maybe", "True [fact: False]", 0.0),
        ("natural_question", "the red lamp", "a red light", 0.5),
        ("gov_report_summ", "one two", "one two", 1.0),
    ],
)
def test_a_dataset_has_its_own_score(dataset: str, prediction: str, reference: str, wanted: float) -> None:
    assert score(dataset, prediction, reference) == pytest.approx(wanted)


@needs_shared
def test_all_cases_are_scored_as_officially() -> None:
    cases = json.loads((SHARED / "leval/scorer_cases.json").read_text(encoding="utf-8"))
    assert len(cases) == 109 and HERE
    for case in cases:
        if case["kind"] == "mc":
            given = chosen(case["output"], case["file"] == "coursera")
            wanted = right_choice(case["gt"])
            assert (given, wanted) == (case["pred"], case["gt_processed"]), case
            assert exact_match(given, wanted) == case["score"] == score(case["file"], case["output"], case["gt"])
        elif case["kind"] == "math":
            assert number(case["output"]) == case["pred"], case
        else:
            assert exact_match(case["pred"], case["gt"]) == case["score"], case


# --- prompts and examples


@pytest.mark.skipif(not HERE, reason="no ../shared")
def test_system_messages_are_the_official_ones() -> None:
    assert (
        system_prompts() == json.loads((SHARED / "leval/protocol.json").read_text(encoding="utf-8"))["system_prompts"]
    )


def test_texts_are_the_official_ones() -> None:
    wish = "Please directly give the answer without any additional output or explanation "
    assert "".join(fill("quality", "D", "Q", "R")) == f"Document is as follows. D \nQuestion: Q.  {wish}"
    assert "".join(fill("gsm100", "D", "Q", "R")) == "D\n\nQ"
    assert "".join(fill("meeting_summ", "D", "Q", "one two three")) == (
        "Document is as follows. D Instruction: Q \nAnswer this question with 3 words."
    )
    assert system("tpo") == system_prompts()["tpo"]
    assert system("meeting_summ") == system_prompts()["open_ended"]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("dataset", KIND_OF)
def test_questions_of_a_document_share_its_ids(tmp_path: Path, dataset: str, chat: bool) -> None:
    made = tokenizer()
    template = made.chat_template
    try:
        made.chat_template = CHATS
        task = one(dataset, data=write(tmp_path, dataset, RECORD), chat=chat)
        examples = task.examples(made)[:]
    finally:
        made.chat_template = template
    assert [example.id for example in examples] == ["0-1", "0-2"]
    assert len({example.prompt[: example.question_at] for example in examples}) == 1
    for at, example in enumerate(examples):
        assert example.references == (RECORD["outputs"][at],)
        context, question = fill(dataset, RECORD["input"], RECORD["instructions"][at], RECORD["outputs"][at])
        before = f"<|turn|>system:{system(dataset)}<|turn|>user:" if chat else f"<s>{system(dataset)}\n\n"
        assert made.decode(list(example.prompt[: example.question_at])) == before + context
        after = "<|turn|>assistant:" if chat and dataset != "gsm100" else ""
        after += "\nAnswer:" if dataset in CLOSED and dataset not in ("gsm100", "topic_retrieval_longchat") else ""
        assert made.decode(list(example.prompt[example.question_at :])) == question + after


def test_a_long_document_loses_its_end_in_steps() -> None:
    made = tokenizer()
    text = "a b c d " * 400
    kept = cut(text, made, 1000)
    assert text.startswith(kept) and len(made.encode(kept)) <= 1000 and len(kept.split(" ")) == 500
    assert cut("x" * 5000, made, 1000) == ""
    assert cut("short", made, 1000) == "short"


def test_a_cut_document_is_told_of(tmp_path: Path) -> None:
    record = RECORD | {"input": "a b c d " * 100}
    cut_short = one("quality", data=write(tmp_path, "quality", record), max_document_tokens=400).examples(tokenizer())[
        0
    ]
    assert cut_short.tokens_before_truncation == len(cut_short.prompt) + 501
    whole = one("quality", data=str(tmp_path)).examples(tokenizer())[0]
    assert whole.tokens_before_truncation == len(whole.prompt)


def test_records_that_a_rule_cannot_score_are_left_out(tmp_path: Path) -> None:
    records = [RECORD | {"evaluation": "LLM"}, RECORD | {"evaluation": "f1"}]
    examples = one("natural_question", data=write(tmp_path, "natural_question", *records)).examples(tokenizer())
    assert [example.id for example in examples] == ["1-1", "1-2"]
    with pytest.raises(DataError, match=r"holds no record that is scored by rule \(exam, f1, rouge\)"):
        one("natural_question", data=write(tmp_path, "natural_question", records[0])).settings()


@needs_shared
def test_the_real_files_are_read_and_their_own_answers_score() -> None:
    found = {}
    for file in sorted(DATA.glob("*.jsonl")):
        task = one(file.stem, data=str(DATA))
        examples = task.examples(tokenizer())
        found[file.stem] = len(examples)
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        asked = [out for row in rows if row["evaluation"] in ("exam", "f1", "rouge") for out in row["outputs"]]
        assert len(examples) == len(asked)
        best = [score(file.stem, answer, answer) for answer in asked[:30] if judged(answer) or answer.strip()]
        assert min(best) == pytest.approx(1.0), file.stem
    assert found["quality"] == 202 and found["topic_retrieval_longchat"] == 150 and found["gsm100"] == 100


def test_the_suite_is_what_its_file_says() -> None:
    built = build(task_config("leval"))
    assert isinstance(built, LEval) and [task.dataset for task in built.tasks()] == list(CLOSED)
    names = [f"leval-{dataset}" for dataset in KIND_OF]
    assert built.ordered(names[::-1]) == names
    (average,) = built.averages(names)
    assert average.title == "average of 6 closed" and built.averages(names[:1]) == ()
    assert len(suite(datasets=["all"]).tasks()) == 19 and len(suite(datasets="open").tasks()) == 13
    assert one("gsm100", max_new_tokens=5).departures == "Not as published: task.max_new_tokens=5."
    assert one("gsm100").departures == "" and one("gsm100").max_new_tokens == 512


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": "codeU"}, "task.datasets has 'codeU', which is no dataset of L-Eval: use all, closed, open"),
        ({"max_document_tokens": 0}, "task.max_document_tokens is 0"),
        ({"max_new_tokens": 0}, "task.max_new_tokens is 0"),
        ({"data": 1}, "task.data=1 is not a path"),
        ({"clean_up": "x"}, "task.clean_up='x' is unknown"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        suite(**changes).tasks()
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": ["a"]}, "record 1 of quality.jsonl has 2 instructions and 1 outputs: use L-Eval's own"),
        *(({field: 1}, f"line 1 of quality.jsonl has {field}=1") for field in FIELDS),
    ],
)
def test_a_bad_record_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        one("quality", data=write(tmp_path, "quality", RECORD | changes)).settings()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"come from nowhere else: use L-Eval's own \.jsonl files"):
        one("quality").settings()
    write(tmp_path, "quality", RECORD)
    with pytest.raises(DataError, match=r"holds no tpo\.jsonl: add it, or leave tpo out of task\.datasets"):
        one("tpo", data=str(tmp_path)).settings()
