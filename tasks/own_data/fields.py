"""The fields of a record by their many names, each checked, so that an error names file, line, field and remedy.

Names are those of kvpress, LongBench, RULER, SQuAD, ARC, OpenAI evals and lm-evaluation-harness's logs, beside our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from harness.errors import DataError
from harness.values import LARGEST, fits
from tasks.checks import is_whole, short
from tasks.jsonl import Text
from tasks.scores.answers import LETTERS

NAMES: Mapping[str, tuple[str, ...]] = {
    "context": ("context",),
    "question": ("question", "questions", "query", "instruction", "instructions", "input"),
    "prompt": ("prompt", "input"),
    "answers": (
        "answers", "answer", "outputs", "output", "target", "ideal", "gold", "references", "reference", "answerKey",
    ),
    "choices": ("choices", "options"),
    "answer_prefix": ("answer_prefix",),
    "max_new_tokens": ("max_new_tokens",),
    "id": ("id", "_id", "key", "unique_id"),
    "group": ("group", "task"),
}  # fmt: skip
"""What a record may have, by the names it may have there; the first that is there counts. ``input`` is the question of
a record with a context, the context of one with a question, and else the whole prompt."""
_INPUT = "input"
_CHOICE_COLUMNS = tuple(f"choice_{letter}" for letter in LETTERS)


@dataclass(frozen=True)
class Fields:
    """The fields of one record or question.

    Attributes:
        values: the JSON object.
        where: its position, for errors: ``line 3 of mine.jsonl``.
        named: the setting ``task.fields``: the name of a field, or its path with dots; None for the usual names.
    """

    values: Mapping[str, Any]
    where: str
    named: Mapping[str, str | None]

    def find(self, field: str) -> tuple[str, Any] | None:
        """A field's name in the record and its value; None if it is not there, or null.

        Raises:
            DataError: the field has a name in ``task.fields`` that the record lacks, and it is not optional.
        """
        if (path := self.named.get(field)) is not None:
            value: Any = self.values
            for part in path.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is None and field in ("context", "question", "prompt", "answers"):
                self.refuse(f"has no field {path!r}, which task.fields.{field} names", "give it one, or name another")
            return None if value is None else (path, value)
        for name in NAMES[field]:
            if self.values.get(name) is not None:
                return name, self.values[name]
        if field == "context" and self.has_question and self.values.get(_INPUT) is not None:
            return _INPUT, self.values[_INPUT]
        return None

    @property
    def has_question(self) -> bool:
        """Whether there is a question that is not called ``input``."""
        return any(self.values.get(name) is not None for name in NAMES["question"] if name != _INPUT)

    def refuse(self, fact: str, remedy: str) -> NoReturn:
        """Raise a ``DataError`` of one line about this record."""
        raise DataError(f"{self.where} {fact}: {remedy}")

    def text(self, field: str) -> str | None:
        """A field that is a text; None if it is not there or nothing but white space."""
        found = self.find(field)
        if found is None:
            return None
        name, value = found
        if not fits(value, Text):
            self.refuse(f"has {name}={short(value)}, which is no text", "give a text without lone surrogates")
        return str(value) if str(value).strip() else None

    def choices(self) -> tuple[str, ...]:
        """The texts of the choices, in order; empty if there are none."""
        columns = [name for name in _CHOICE_COLUMNS if name in self.values]
        found = self.find("choices")
        if found is None and not columns:
            return ()
        name, value = found or (columns[0], [self.values[column] for column in columns])
        if isinstance(value, Mapping):  # ARC's, or by letter
            value = value["text"] if "text" in value else [value[key] for key in sorted(value)]
        texts = _texts(value)
        if texts is None:
            self.refuse(f"has {name}={short(value)}, which is no list of texts", 'give ["first", "second"]')
        if not 2 <= len(texts) <= len(LETTERS):
            self.refuse(f"has {len(texts)} {name}", f"give 2 to {len(LETTERS)}")
        if len(set(texts)) < len(texts):
            self.refuse(f"has a text twice in {name}={short(value)}", "give each choice once")
        return texts

    def answers(self, choices: Sequence[str]) -> tuple[str, ...]:
        """The acceptable answers; of a record with choices, their texts.

        Args:
            choices: the texts of the choices; an answer is then one of these, its letter, or its place, from 0.
        """
        found = self.find("answers")
        if found is None:
            self.refuse("has no answers", 'give "answers": ["Paris"], or name the field with task.fields.answers')
        name, value = found
        if isinstance(value, Mapping) and "text" in value:  # SQuAD's
            value = value["text"]
        given = value if isinstance(value, list) else [value]
        texts = _texts(given)
        if texts is None:
            self.refuse(f"has {name}={short(value)}, which is neither a text nor texts", 'give ["Paris", "paris"]')
        if not texts:
            self.refuse(f"has {name}=[]", "give one answer or more, or leave the record out")
        if not all(text.strip() for text in texts):
            self.refuse(f"has an empty answer in {name}={short(value)}", "give a text, or leave the record out")
        if not choices:
            return texts
        return tuple(self._choice(name, one, choices) for one in given)

    def _choice(self, name: str, answer: object, choices: Sequence[str]) -> str:
        """The choice that an answer means."""
        letters = f"{LETTERS[0]} to {LETTERS[len(choices) - 1]}"
        if is_whole(answer):
            if answer not in range(len(choices)):
                self.refuse(
                    f"has {name}={answer}, but its {len(choices)} choices have the places 0 to {len(choices) - 1}",
                    f"give a place, a letter ({letters}) or a choice's text",
                )
            return choices[answer]
        text = str(answer).strip()
        letter = text.strip("().")
        place = LETTERS.find(letter) if len(letter) == 1 else -1
        meant = {choice for choice in choices if choice.strip() == text}
        if 0 <= place < len(choices):
            meant.add(choices[place])
        if len(meant) > 1:
            self.refuse(
                f"has {name}={short(answer)}, which is both a letter and the text of another choice",
                "give the place, from 0",
            )
        if not meant:
            self.refuse(
                f"has {name}={short(answer)}, which is none of its choices", f"give a letter, {letters}, or its text"
            )
        return meant.pop()

    def limit(self) -> int | None:
        """The record's own limit of new tokens; None if it has none."""
        found = self.find("max_new_tokens")
        if found is not None and not (is_whole(found[1]) and 1 <= found[1] <= LARGEST):
            self.refuse(f"has {found[0]}={short(found[1])}", "give a whole number, 1 or more")
        return None if found is None else int(found[1])

    def id(self) -> str | None:
        """The record's id; None if it has none."""
        found = self.find("id")
        if found is None:
            return None
        name, value = found
        if not (is_whole(value) or (fits(value, Text) and len(str(value).strip()) > 0 and len(str(value)) <= 200)):
            self.refuse(f"has {name}={short(value)}", "give a text of 1 to 200 characters, or a whole number")
        return str(value)

    def group(self) -> Mapping[str, str | int | float]:
        """What tables group the record by; empty if it says nothing."""
        found = self.find("group")
        if found is None:
            return {}
        name, value = found
        group = dict(value) if isinstance(value, Mapping) else {name: value}
        if not all(
            fits(one, Text) or (isinstance(one, int | float) and not isinstance(one, bool)) for one in group.values()
        ):
            self.refuse(f"has {name}={short(value)}", 'give a text, a number, or a mapping such as {"length": 4000}')
        return group


def _texts(values: object) -> tuple[str, ...] | None:
    """Texts and numbers as texts; None if there is anything else."""
    if not isinstance(values, list):
        return None
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in values]
    if not all(number or fits(value, Text) for value, number in zip(values, numbers, strict=True)):
        return None
    return tuple(map(str, values))
