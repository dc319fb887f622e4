"""LongBench's prompts, byte for byte, and the number of tokens that an answer may have.

Protocol strings and numbers: ``config/dataset2prompt.json`` and ``config/dataset2maxlen.json`` of
https://github.com/THUDM/LongBench (MIT), the same in ``run_longbench.py`` of
https://github.com/Zefan-Cai/KVCache-Factory at 485af3c (MIT). Their slips are kept: "asconcisely" (narrativeqa; pull
request 76 there would correct it), " Answer" after the article (qasper), "news. " (multi_news), the space at the end of
"The final answer is: " and "The answer is: ", the line break at the end of the code prompts. A test checks their
hashes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_PASSAGES = (
    "Answer the question based on the given passages. Only give me the answer and do not output any other words.\n\n"
    "The following are given passages.\n"
    "{context}\n\n"
    "Answer the question based on the given passages. Only give me the answer and do not output any other words.\n\n"
    "Question: {input}\n"
    "Answer:"
)

TEMPLATES: Mapping[str, str] = {
    "narrativeqa": (
        "You are given a story, which can be either a novel or a movie script, and a question. Answer the question "
        "asconcisely as you can, using a single phrase if possible. Do not provide any explanation.\n\n"
        "Story: {context}\n\n"
        "Now, answer the question based on the story asconcisely as you can, using a single phrase if possible. Do not "
        "provide any explanation.\n\n"
        "Question: {input}\n\n"
        "Answer:"
    ),
    "qasper": (
        "You are given a scientific article and a question. Answer the question as concisely as you can, using a "
        "single phrase or sentence if possible. If the question cannot be answered based on the information in the "
        'article, write "unanswerable". If the question is a yes/no question, answer "yes", "no", or "unanswerable". '
        "Do not provide any explanation.\n\n"
        "Article: {context}\n\n"
        " Answer the question based on the above article as concisely as you can, using a single phrase or sentence if "
        'possible. If the question cannot be answered based on the information in the article, write "unanswerable". '
        'If the question is a yes/no question, answer "yes", "no", or "unanswerable". Do not provide any '
        "explanation.\n\n"
        "Question: {input}\n\n"
        "Answer:"
    ),
    "multifieldqa_en": (
        "Read the following text and answer briefly.\n\n"
        "{context}\n\n"
        "Now, answer the following question based on the above text, only give me the answer and do not output any "
        "other words.\n\nQuestion: {input}\n"
        "Answer:"
    ),
    "multifieldqa_zh": (
        "阅读以下文字并用中文简短回答：\n\n"
        "{context}\n\n"
        "现在请基于上面的文章回答下面的问题，只告诉我答案，不要输出任何其他字词。\n\n"
        "问题：{input}\n"
        "回答："
    ),
    "hotpotqa": _PASSAGES,
    "2wikimqa": _PASSAGES,
    "musique": _PASSAGES,
    "dureader": (
        "请基于给定的文章回答下述问题。\n\n文章：{context}\n\n请基于上述文章回答下面的问题。\n\n问题：{input}\n回答："
    ),
    "gov_report": (
        "You are given a report by a government agency. Write a one-page summary of the report.\n\n"
        "Report:\n"
        "{context}\n\n"
        "Now, write a one-page summary of the report.\n\n"
        "Summary:"
    ),
    "qmsum": (
        "You are given a meeting transcript and a query containing a question or instruction. Answer the query in one "
        "or more sentences.\n\n"
        "Transcript:\n"
        "{context}\n\n"
        "Now, answer the query based on the above meeting transcript in one or more sentences.\n\n"
        "Query: {input}\n"
        "Answer:"
    ),
    "multi_news": (
        "You are given several news passages. Write a one-page summary of all news. \n\n"
        "News:\n"
        "{context}\n\n"
        "Now, write a one-page summary of all the news.\n\n"
        "Summary:"
    ),
    "vcsum": "下面有一段会议记录，请你阅读后，写一段总结，总结会议的内容。\n会议记录：\n{context}\n\n会议总结：",
    "trec": (
        "Please determine the type of the question below. Here are some examples of questions.\n\n{context}\n{input}"
    ),
    "triviaqa": (
        "Answer the question based on the given passage. Only give me the answer and do not output any other words. "
        "The following are some examples.\n\n"
        "{context}\n\n"
        "{input}"
    ),
    "samsum": (
        "Summarize the dialogue into a few short sentences. The following are some examples.\n\n{context}\n\n{input}"
    ),
    "lsht": "请判断给定新闻的类别，下面是一些例子。\n\n{context}\n{input}",
    "passage_count": (
        "There are some paragraphs below sourced from Wikipedia. Some of them may be duplicates. Please carefully read "
        "these paragraphs and determine how many unique paragraphs there are after removing duplicates. In other "
        "words, how many non-repeating paragraphs are there in total?\n\n"
        "{context}\n\n"
        "Please enter the final count of unique paragraphs after removing duplicates. The output format should only "
        "contain the number, such as 1, 2, 3, and so on.\n\n"
        "The final answer is: "
    ),
    "passage_retrieval_en": (
        "Here are 30 paragraphs from Wikipedia, along with an abstract. Please determine which paragraph the "
        "abstract is from.\n\n{context}\n\n"
        "The following is an abstract.\n\n"
        "{input}\n\n"
        'Please enter the number of the paragraph that the abstract is from. The answer format must be like "Paragraph '
        '1", "Paragraph 2", etc.\n\n'
        "The answer is: "
    ),
    "passage_retrieval_zh": (
        "以下是若干段落文字，以及其中一个段落的摘要。请确定给定的摘要出自哪一段。\n\n"
        "{context}\n\n"
        "下面是一个摘要\n\n"
        "{input}\n\n"
        '请输入摘要所属段落的编号。答案格式必须是"段落1"，"段落2"等格式\n\n'
        "答案是："
    ),
    "lcc": "Please complete the code given below. \n{context}Next line of code:\n",
    "repobench-p": "Please complete the code given below. \n{context}{input}Next line of code:\n",
}
"""Prompt templates; ``{context}`` and ``{input}`` are fields of the record.

In few-shot datasets the record's input already ends in "Type:", "Answer:" or "Summary:".
"""

MAX_NEW_TOKENS: Mapping[str, int] = {
    "narrativeqa": 128,
    "qasper": 128,
    "multifieldqa_en": 64,
    "multifieldqa_zh": 64,
    "hotpotqa": 32,
    "2wikimqa": 32,
    "musique": 32,
    "dureader": 128,
    "gov_report": 512,
    "qmsum": 512,
    "multi_news": 512,
    "vcsum": 512,
    "trec": 64,
    "triviaqa": 32,
    "samsum": 128,
    "lsht": 64,
    "passage_count": 32,
    "passage_retrieval_en": 32,
    "passage_retrieval_zh": 32,
    "lcc": 64,
    "repobench-p": 64,
}

NO_CHAT = frozenset({"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"})
"""Datasets whose prompts are never put into a chat template, because few-shot examples and code are to be continued."""


_PLACES: Mapping[str, tuple[str, str]] = {
    "narrativeqa": ("Question: {input}", "Answer:"),
    "qasper": ("Question: {input}", "Answer:"),
    "multifieldqa_en": ("Question: {input}", "Answer:"),
    "multifieldqa_zh": ("问题：{input}", "回答："),
    "hotpotqa": ("Question: {input}", "Answer:"),
    "2wikimqa": ("Question: {input}", "Answer:"),
    "musique": ("Question: {input}", "Answer:"),
    "dureader": ("问题：{input}", "回答："),
    "gov_report": ("Now, write", "Summary:"),
    "qmsum": ("Query: {input}", "Answer:"),
    "multi_news": ("Now, write", "Summary:"),
    "vcsum": ("会议总结：", "会议总结："),
    "trec": ("{input}", ""),
    "triviaqa": ("{input}", ""),
    "samsum": ("{input}", ""),
    "lsht": ("{input}", ""),
    "passage_count": ("Please enter", "The final answer is: "),
    "passage_retrieval_en": ("{input}", "The answer is: "),
    "passage_retrieval_zh": ("{input}", "答案是："),
    "lcc": ("Next line of code:", "Next line of code:"),
    "repobench-p": ("{input}", "Next line of code:"),
}
"""Where the question begins in each template, and where the beginning of the answer does; "" if the input ends in that.

So NVIDIA/kvpress splits its LongBench (Apache-2.0): an instruction that is repeated after the context belongs to the
context, as it is the same for every question.
"""
_BEGUN = re.compile(r"(?:Type|Answer|Summary|类别)[:：]\s*\Z")
"""How the input of a few-shot dataset ends, white space included."""


class Parts(NamedTuple):
    """A prompt in three parts, which are the whole prompt one after the other; question and prefix may be empty."""

    context: str
    question: str
    answer_prefix: str


def split(dataset: str, context: str, question: str) -> Parts:
    """The prompt of a record in its parts; braces in its texts stay as they are.

    Args:
        dataset: a dataset of LongBench or LongBench-E.
        context: the record's context.
        question: the record's input.
    """
    base = dataset.removesuffix("_e")
    template, (asks, answers) = TEMPLATES[base], _PLACES[base]
    question_at = template.rindex(asks)
    prefix_at = template.rindex(answers) if answers else len(template)
    asked = template[question_at:prefix_at].format(input=question)
    prefix = template[prefix_at:]
    if not answers and (begun := _BEGUN.search(asked)):
        asked, prefix = asked[: begun.start()], begun[0]
    return Parts(template[:question_at].format(context=context), asked, prefix)


def fill(dataset: str, context: str, question: str) -> str:
    """The prompt of a record; braces in its texts stay as they are."""
    return "".join(split(dataset, context, question))
