"""Records of RULER: a text in three parts, context, question and beginning of the answer, and what it is scored by."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.ruler.recipe import kind_of

_QUESTION: Mapping[str, str] = {
    "niah": r"What (?:is|are all) the special magic",
    "vt": r"Question: Find all variables that are assigned the value",
    "cwe": r"Question: What are the 10 most common words in the above list\?",
    "fwe": r"Question: Do not provide any explanation\.",
    "qa": r"Answer the question based on the given documents\.",
}
_ANSWER: Mapping[str, str] = {
    "niah": "The special magic", "vt": "Answer:", "cwe": "Answer:", "fwe": "Answer:", "qa": "Answer:",
}  # fmt: skip
"""Where kvpress splits a text: the question begins at the last match of the first pattern, the answer at the first
match of the second after it.

Source: ``create_huggingface_dataset.py`` of https://github.com/NVIDIA/kvpress at 8bb29b9 (Apache-2.0).
"""


_AROUND_CHARACTERS = 120
"""What is shown on each side of a needle's value."""


@dataclass(frozen=True)
class Record:
    """A text in kvpress's three parts, which together are RULER's text.

    Attributes:
        context: what is compressed before the question is known; it ends in a line break.
        question: the question; it ends in a space.
        answer_prefix: the beginning of the answer.
        answers: what a response must contain.
    """

    context: str
    question: str
    answer_prefix: str
    answers: tuple[str, ...]

    @property
    def text(self) -> str:
        """The text that a model goes on with."""
        return self.context + self.question + self.answer_prefix


def split(task: str, text: str, answers: Iterable[str]) -> Record:
    """The record of a text.

    Args:
        task: one of ``tasks.ruler.recipe.TASKS``.
        text: the text, with the beginning of the answer.
        answers: what a response must contain.

    Raises:
        ValueError: the text has no such question, or no beginning of an answer after it.
    """
    questions = list(re.finditer(_QUESTION[kind_of(task)], text))
    start = questions[-1].start() if questions else -1
    answer = text.find(_ANSWER[kind_of(task)], questions[-1].end()) if questions else -1
    if answer < 0:
        raise ValueError(task)
    return Record(text[:start], text[start:answer], text[answer:], tuple(answers))


def needles_of(record: Record) -> tuple[str, ...]:
    """The passages of a record's context that hold its answers, for readers, each in the order of the context."""
    places = sorted(
        (place, place + len(answer)) for answer in record.answers if (place := record.context.find(answer)) >= 0
    )
    spans: list[list[int]] = []
    for start, stop in places:
        if spans and start - _AROUND_CHARACTERS <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], stop + _AROUND_CHARACTERS)
        else:
            spans.append([max(0, start - _AROUND_CHARACTERS), stop + _AROUND_CHARACTERS])
    return tuple(record.context[start:stop] for start, stop in spans)


def records_hash(records: Iterable[Record]) -> str:
    """A hash of all that records say, whatever file they come from."""
    digest = hashlib.sha256()
    for record in records:
        said = [record.context, record.question, record.answer_prefix, record.answers]
        digest.update(json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def record_id(question: str, answers: Iterable[str], seen: Counter[str]) -> str:
    """The id of a record: what kvpress's tables say of it too, which have no contexts.

    Args:
        question: the question.
        answers: what a response must contain.
        seen: how often the records before had each id; it is counted on, and doubled ids get a number.
    """
    said = json.dumps([question.strip(), list(answers)]).encode()
    name = hashlib.sha256(said).hexdigest()[:16]
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}-{seen[name]}"
