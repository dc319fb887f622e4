"""LongBench's prompts in three parts: context, question, beginning of the answer, and where the question begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.text import shared_tokens
from tasks.longbench.data import RECORDS, RECORDS_E
from tasks.longbench.templates import fill, split
from tasks.needle.haystack import builtin_text
from tasks.prompting import chat_frame, fit
from tests.tasks.longbench.test_prompt import KINDS, tokenizer
from tests.tasks.longbench.test_prompt import RECORDS as TEXTS
from tests.tasks.longbench.test_suite import data, record, suite
from tests.tasks.longbench.test_suite import tokenizer as bytes_alone

__all__ = ["data"]  # a fixture

REAL = Path(__file__).parents[4] / "shared/benchmarks/data/longbench"
# The question and the beginning of the answer in the data of NVIDIA/kvpress (Apache-2.0), of the input "IN".
ASKED = {
    "narrativeqa": ("Question: IN\n\n", "Answer:"),
    "qasper": ("Question: IN\n\n", "Answer:"),
    "multifieldqa_en": ("Question: IN\n", "Answer:"),
    "multifieldqa_zh": ("问题：IN\n", "回答："),
    "hotpotqa": ("Question: IN\n", "Answer:"),
    "2wikimqa": ("Question: IN\n", "Answer:"),
    "musique": ("Question: IN\n", "Answer:"),
    "dureader": ("问题：IN\n", "回答："),
    "gov_report": ("Now, write a one-page summary of the report.\n\n", "Summary:"),
    "qmsum": ("Query: IN\n", "Answer:"),
    "multi_news": ("Now, write a one-page summary of all the news.\n\n", "Summary:"),
    "vcsum": ("", "会议总结："),
    "trec": ("IN\n", "Type:"),
    "triviaqa": ("IN\n", "Answer:\n"),
    "samsum": ("IN\n", "Summary: "),
    "lsht": ("IN\n", "类别："),
    "passage_count": (
        "Please enter the final count of unique paragraphs after removing duplicates. The output format should only "
        "contain the number, such as 1, 2, 3, and so on.\n\n",
        "The final answer is: ",
    ),
    "passage_retrieval_en": (
        "IN\n\nPlease enter the number of the paragraph that the abstract is from. The answer format must be like "
        '"Paragraph 1", "Paragraph 2", etc.\n\n',
        "The answer is: ",
    ),
    "passage_retrieval_zh": (
        'IN\n\n请输入摘要所属段落的编号。答案格式必须是"段落1"，"段落2"等格式\n\n',
        "答案是：",
    ),
    "lcc": ("", "Next line of code:\n"),
    "repobench-p": ("IN", "Next line of code:\n"),
}
FEW_SHOT = {"trec": "IN\nType:", "triviaqa": "IN\nAnswer:\n", "samsum": "IN\nSummary: ", "lsht": "IN\n类别："}


@pytest.mark.parametrize("dataset", RECORDS)
def test_parts_are_the_fields_own_and_together_the_official_prompt(dataset: str) -> None:
    asked = FEW_SHOT.get(dataset, "IN")
    parts = split(dataset, "{input} of {context}", asked)
    assert (parts.question, parts.answer_prefix) == ASKED[dataset]
    assert "{input} of {context}" in parts.context
    assert "".join(parts) == fill(dataset, "{input} of {context}", asked)
    if f"{dataset}_e" in RECORDS_E:
        assert split(f"{dataset}_e", "{input} of {context}", asked) == parts


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared")
def test_parts_of_the_real_records_of_all_21_datasets_are_their_prompts_byte_for_byte() -> None:
    seen = 0
    for dataset in RECORDS:
        for line in (REAL / f"{dataset}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            parts = split(dataset, row["context"], row["input"])
            assert "".join(parts) == fill(dataset, row["context"], row["input"])
            assert parts.answer_prefix and row["context"] in parts.context
            assert parts.answer_prefix.rstrip() == ASKED[dataset][1].rstrip()
            seen += 1
    assert seen == 272


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@given(context=TEXTS, question=TEXTS, max_tokens=st.integers(2, 300), dataset=st.sampled_from(list(RECORDS)))
@settings(max_examples=15, deadline=None)
def test_the_question_of_random_records_begins_where_the_context_ends_and_changes_no_id(
    kind: str, chat: bool, context: str, question: str, max_tokens: int, dataset: str
) -> None:
    made = tokenizer(kind)
    frame = chat_frame(made, {}) if chat else None
    parts = split(dataset, context, question)
    text, end = "".join(parts), len(parts.context)
    fitted = fit(text, made, max_tokens, frame, None, end)
    assert fitted.ids == fit(text, made, max_tokens, frame).ids
    assert fit(text, made, max_tokens, frame).question_at is None
    assert fitted.question_at is not None and 0 <= fitted.question_at <= len(fitted.ids)
    if fitted.tokens_before_truncation <= max_tokens:
        before = (frame.before if frame else "") + parts.context
        alone = made.encode(before, add_special_tokens=frame is None)
        assert fitted.question_at == shared_tokens(fitted.ids, alone)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("dataset", RECORDS)
def test_a_prompt_that_lost_its_middle_still_says_where_its_question_begins(dataset: str, chat: bool) -> None:
    made = tokenizer("byte_level")
    frame = chat_frame(made, {}) if chat else None
    parts = split(dataset, builtin_text()[:2000], FEW_SHOT.get(dataset, "Who is it?"))
    fitted = fit("".join(parts), made, 240, frame, None, len(parts.context))
    assert fitted.tokens_before_truncation > 300
    asked = made.decode(list(fitted.ids[fitted.question_at :]))
    whole = parts.question + parts.answer_prefix + (frame.after if frame else "")
    # A token that reaches from the context into the question is the question's.
    assert asked.endswith(whole) and len(asked) - len(whole) <= 4


@pytest.mark.parametrize("words", [5, 100])
def test_a_question_that_lost_its_own_beginning_begins_after_what_is_left_of_the_context(words: int) -> None:
    made = tokenizer("byte_level")
    context = "word " * words
    fitted = fit(context + "query " * 400, made, 100, None, None, len(context))
    kept, asked = (
        made.decode(list(part)) for part in (fitted.ids[: fitted.question_at], fitted.ids[fitted.question_at :])
    )
    assert "word" in kept and "query" not in kept
    assert "word" not in asked and asked.count("query") > 20


@pytest.mark.parametrize(("limit", "chat"), [(160, True), (10_000, False)])
def test_every_example_says_where_its_question_begins(data: str, limit: int, chat: bool) -> None:
    made = bytes_alone()
    for task in suite(
        data=data, datasets=["all", "e"], max_prompt_tokens=limit, protocol="longbench", chat=chat
    ).tasks():
        example = task.examples(made)[1]
        row = record(task.dataset, 1)
        asked = "".join(split(task.dataset, row["context"], row["input"])[1:]).encode()
        ids = example.prompt[example.question_at :]
        # Bytes have no tokens that reach from the context into the question.
        written = made.decode(list(ids)).removesuffix("<|turn|>A:").encode()
        assert written == (asked if len(asked) < limit // 2 else asked[-(limit // 2) :])
