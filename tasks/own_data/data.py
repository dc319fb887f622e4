"""The records of a file: contexts with their questions, or whole prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import DataError
from tasks.checks import short
from tasks.jsonl import read_lines
from tasks.own_data.fields import NAMES, Fields

REMEDY = 'give one record per line, as {"context": "…", "question": "…", "answers": ["…"]}'


@dataclass(frozen=True)
class Asked:
    """A question with its answers.

    Attributes:
        id: the record's id, or the number of its line; of one with several questions, ``3-1``, ``3-2``, … unless the
            question has an id.
        where: position in the file, for errors.
        context: the text that is asked about; None if ``question`` is a whole prompt.
        question: the question; "" if the record has none.
        answers: acceptable answers.
        choices: the texts of the choices; empty if there are none.
        answer_prefix: the beginning of the answer; None if the record has none.
        max_new_tokens: limit of new tokens; None if the record has none.
        group: what tables group it by.
        place: its place among the questions of its record, from 1.
        before: the questions of its record before it.
    """

    id: str
    where: str
    context: str | None
    question: str
    answers: tuple[str, ...]
    choices: tuple[str, ...]
    answer_prefix: str | None
    max_new_tokens: int | None
    group: Mapping[str, str | int | float]
    place: int = 1
    before: tuple[Asked, ...] = ()


@dataclass(frozen=True)
class Data:
    """A file that was read.

    Attributes:
        asked: its questions, in order.
        records: number of its records.
        sha256: hash of its bytes.
    """

    asked: tuple[Asked, ...]
    records: int
    sha256: str

    @property
    def group(self) -> str | None:
        """The first name by which its records are grouped; None if they are not."""
        return next(iter(self.asked[0].group), None)


def load(data: str, named: Mapping[str, str | None], scored: bool = True) -> Data:
    """Read and check a file; what was read is kept as long as the file is the same.

    Args:
        data: path of the file.
        named: the setting ``task.fields``, see ``Fields``.
        scored: whether every question needs an answer.

    Raises:
        DataError: the file cannot be read, holds no record, or a record is wrong.
    """
    try:
        path = Path(data).expanduser()
        stat = path.stat()
        return _load(path, data, stat.st_mtime_ns, stat.st_size, tuple(sorted(named.items())), scored)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"task.data={short(data)} cannot be read ({type(error).__name__}): give a file of JSON lines"
        ) from error


@lru_cache(maxsize=4)
def _load(
    path: Path, shown: str, _modified: int, _size: int, named: tuple[tuple[str, str | None], ...], scored: bool
) -> Data:
    raw = path.read_bytes()
    asked, count, first = [], 0, None
    seen: dict[str, str] = {}
    for where, values in records(raw, shown):
        number = where.split()[1]
        for one in questions(Fields(_unlogged(values, where), where, dict(named)), number, scored):
            if other := seen.get(one.id):
                raise DataError(f"{one.where} has the id {short(one.id)}, as has {other}: give each its own")
            seen[one.id] = one.where
            first = first or one
            if one.group.keys() != first.group.keys():
                raise DataError(
                    f"{one.where} is grouped by {short(list(one.group))}, the first record by "
                    f"{short(list(first.group))}: give all records the same"
                )
            asked.append(one)
        count += 1
    if not asked:
        raise DataError(f"task.data={short(shown)} holds no record: {REMEDY}")
    return Data(tuple(asked), count, hashlib.sha256(raw).hexdigest())


def records(raw: bytes, shown: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects of a file, each with its position.

    Args:
        raw: contents of the file.
        shown: its path, for errors.

    Raises:
        DataError: a line is no JSON object.
    """
    if raw.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        raise DataError(
            f"task.data={short(shown)} is one JSON list, not JSON lines: write a record per line, no commas between"
        )
    yield from read_lines(raw, shown, "record", REMEDY)


def questions(record: Fields, number: str, scored: bool) -> Iterator[Asked]:
    """The questions of a record.

    Args:
        record: its fields.
        number: the number of its line, which is its id if it has none.
        scored: whether every question needs an answer.

    Raises:
        DataError: the record is wrong.
    """
    context, own = record.text("context"), record.id() or number
    if context is None:
        prompt = _prompt(record)
        if record.has_question and record.named.get("prompt") is None:
            record.refuse(
                "has a prompt and a question, but no context",
                "say what it is, as task.fields.prompt=prompt or task.fields.context=prompt",
            )
        yield _one(record, own, None, prompt, scored)
        return
    if record.values.get("prompt") is not None and record.named.get("context") is None:
        record.refuse("has a context and a prompt", "give a context with a question, or a whole prompt alone")
    found = record.find("question")
    if found is None or not isinstance(found[1], list):
        yield _one(record, own, context, record.text("question") or "", scored)
        return
    name, several = found
    if not several:
        record.refuse(f"has {name}=[]", "give one question or more, or leave the record out")
    before: tuple[Asked, ...] = ()
    for place, question in enumerate(_several(record, name, several), start=1):
        asked = _one(question, question.id() or f"{own}-{place}", context, question.text("question") or "", scored)
        asked = replace(asked, place=place, before=before)
        before = (*before, replace(asked, before=()))
        yield asked


def _several(record: Fields, name: str, several: Sequence[object]) -> Iterator[Fields]:
    """The questions of a record with several, each with what the record says of all.

    Args:
        record: its fields.
        name: the field that has the questions.
        several: the questions: texts, or objects with the fields of a record.
    """
    answers = record.find("answers")
    if answers is not None and (not isinstance(answers[1], list) or len(answers[1]) != len(several)):
        record.refuse(
            f"has {len(several)} questions and {answers[0]}={short(answers[1])}",
            "give as many answers as questions, each a text or a list",
        )
    taken = {name, *NAMES["answers"], *NAMES["question"], *NAMES["id"]}
    shared = {key: value for key, value in record.values.items() if key not in taken}
    for place, item in enumerate(several):
        values = {"question": item} if isinstance(item, str) else item
        if not isinstance(values, Mapping):
            record.refuse(
                f"has {short(item)} as question {place + 1}", 'give a text, or {"question": "…", "answers": ["…"]}'
            )
        answer = {} if answers is None else {"answers": answers[1][place]}
        yield Fields({**shared, **answer, **values}, f"question {place + 1} of {record.where}", {})


def _one(fields: Fields, id: str, context: str | None, question: str, scored: bool) -> Asked:
    choices = fields.choices()
    return Asked(
        id=id,
        where=fields.where,
        context=context,
        question=question,
        answers=fields.answers(choices) if scored or fields.find("answers") else (),
        choices=choices,
        answer_prefix=_prefix(fields),
        max_new_tokens=fields.limit(),
        group=fields.group(),
    )


def _prefix(fields: Fields) -> str | None:
    """The beginning of the answer, which may be nothing but white space."""
    found = fields.find("answer_prefix")
    if found is not None and not isinstance(found[1], str):
        fields.refuse(f"has {found[0]}={short(found[1])}, which is no text", "give a text, or leave it out")
    return None if found is None else str(found[1])


def _prompt(record: Fields) -> str:
    """The whole prompt of a record without a context."""
    prompt = None
    if not isinstance(record.values.get("input"), list):
        prompt = record.text("prompt")
    if prompt is not None:
        return prompt
    there = ", ".join(map(str, list(record.values)[:8])) or "nothing"
    if isinstance(record.values.get("messages") or record.values.get("input"), list):
        record.refuse(
            "has chat messages, which are not read",
            "give a context and a question, or a prompt; task.chat puts it into the chat template",
        )
    record.refuse(
        f"has no context and no prompt, but {short(there)}", "name its fields, as in task.fields.context=article"
    )


def _unlogged(values: dict[str, Any], where: str) -> Mapping[str, Any]:
    """A record as it is, or what a line of lm-evaluation-harness's log of samples says: prompt, target and id."""
    if not {"doc", "arguments", "target"} <= values.keys():
        return values
    arguments = values["arguments"]
    calls = list(arguments.values()) if isinstance(arguments, Mapping) else arguments
    if not isinstance(calls, list) or len(calls) != 1:
        raise DataError(f"{where} is a log of several requests, as of likelihoods: give one that generates")
    first = list(calls[0].values())[:1] if isinstance(calls[0], Mapping) else calls[0][:1]
    return {"prompt": next(iter(first), None), "answers": values["target"], "id": values.get("doc_id")}
