"""Texts fitted to a length: the size that RULER finds for a task, and records of about this size.

Calls made while the size is sought draw, too, so that their order decides what the records say. RULER's program goes on
for ever where no text fits; here it is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tasks.ruler.text import Text, Undrawable

_MOST_TRIES = 100
"""How often a text of the smallest size is drawn anew before it counts as one that never fits."""


class Texts(Protocol):
    """Makes the texts of one task, each by draws that go on from those before it.

    Attributes:
        step: the smallest size, and the step by which a record that is too long becomes smaller.
    """

    step: int

    def make(self, size: int, index: int) -> Text:
        """A text of a size.

        Args:
            size: what is counted depends on the task: words, lines, documents.
            index: number of the record.

        Raises:
            Undrawable: no text came of this draw.
        """
        ...


@dataclass(frozen=True)
class Length:
    """The room for a text.

    Attributes:
        tokens: number of tokens for text and answer.
        answer: how many of them are the answer's.
        count: number of tokens of a text.
        more: number of tokens of what will be added to every text.
    """

    tokens: int
    answer: int
    count: Callable[[str], int]
    more: int = 0

    def taken(self, text: Text) -> int:
        """Number of tokens that a text takes with its answer and what will be added."""
        return self.count(text.whole) + self.answer + self.more


def fitted_size(texts: Texts, length: Length, first: int | None = None) -> int:
    """The largest size that a search by halves finds to fit; the smallest if none does.

    Args:
        texts: what makes the texts.
        length: the room.
        first: size of the text from which the search's upper end is estimated; None for the smallest size.

    Raises:
        Undrawable: no text came of a draw.
    """
    if first is None:
        per_unit = length.count(texts.make(texts.step, 0).whole) / texts.step
        highest = int(length.tokens / per_unit * 3)
    else:
        per_unit = length.count(texts.make(first, 0).whole) / first
        highest = int(length.tokens // per_unit) * 2
    low, high, best = texts.step, max(highest, 2 * texts.step), texts.step
    while low <= high:
        middle = (low + high) // 2
        if length.taken(texts.make(middle, 0)) <= length.tokens:
            best, low = middle, middle + 1
        else:
            high = middle - 1
    return best


def fitting(texts: Texts, length: Length, size: int, index: int) -> tuple[Text, int]:
    """A text that fits, and the tokens that it takes with its answer.

    Args:
        texts: what makes the texts.
        length: the room.
        size: the size to begin with.
        index: number of the record.

    Raises:
        NeverFits: no text of the smallest size fits.
    """
    tries, shortest = 0, None
    while tries < _MOST_TRIES:
        tries += size <= texts.step
        try:
            text = texts.make(size, index)
            taken = length.taken(text)
        except Undrawable:
            taken = None
        if taken is not None and taken <= length.tokens:
            return text, taken
        shortest = min(filter(None, (shortest, taken)), default=None)
        if size > texts.step:
            size -= texts.step
    raise NeverFits(index, shortest)


class NeverFits(Exception):
    """No text of the smallest size fits; RULER's program would try for ever.

    Attributes:
        index: number of the record.
        shortest: tokens of the shortest text with its answer; None if no text could be made.
    """

    def __init__(self, index: int, shortest: int | None) -> None:
        """Keep what an error says."""
        super().__init__(index, shortest)
        self.index, self.shortest = index, shortest
