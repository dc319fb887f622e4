"""Texts of words that occur more or less often: RULER's common words and its coded words."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from string import ascii_lowercase

import numpy as np

from tasks.ruler.fitting import Length, NeverFits
from tasks.ruler.recipe import FORMS
from tasks.ruler.text import Text, Undrawable

_COMMON = 10
_LETTERS = 6
_ALPHA = 2.0
_ZETA = 1.6449340668482264
"""Riemann's zeta of 2."""


class CommonWords:
    """Makes numbered lists in which ten words occur more often than the others. A size is a number of words.

    Attributes:
        step: see ``tasks.ruler.fitting.Texts``.
    """

    first = 4096
    """The size of the text from which the size of the others is estimated."""

    def __init__(self, seed: int, short: bool, words: Sequence[str]) -> None:
        """Begin to draw.

        Args:
            seed: seed of all that is drawn.
            short: whether the length is below 4096 tokens, where words occur less often.
            words: every word, sorted.
        """
        self.step = 10
        self._seed, self._short, self._rng = seed, short, random.Random(seed)
        self._words = list(words)
        random.Random(seed).shuffle(self._words)

    def make(self, size: int, index: int) -> Text:
        """A text of a size, after a worked example.

        Args:
            size: number of different words.
            index: number of the record; every record is drawn in the same way.

        Raises:
            Undrawable: there are not as many words.
        """
        example, its_answers = self._listed(*((20, 3, 1) if self._short else (40, 10, 3)))
        context, answers = self._listed(size, *((6, 1) if self._short else (30, 3)))
        form = FORMS["cwe"]
        worked = f"{form.message.format(context=example)}{form.answer_prefix} {_numbered(its_answers)}"
        return Text(f"{worked}\n{form.message.format(context=context)}", form.answer_prefix, tuple(answers))

    def _listed(self, size: int, common_times: int, other_times: int) -> tuple[str, list[str]]:
        if size > len(self._words):
            raise Undrawable(f"there are only {len(self._words)} words")
        drawn = self._rng.sample(self._words, size)
        common, others = drawn[:_COMMON], drawn[_COMMON:]
        every = common * common_times + others * other_times
        random.Random(self._seed).shuffle(every)
        return _numbered(every), common


class CodedWords:
    """Makes texts of made-up words, the k-th of which occurs in proportion to ``k**-2``."""

    def __init__(self, seed: int, length: Length) -> None:
        """Begin to draw, and find the number of words.

        Args:
            seed: seed of all that is drawn.
            length: the room.

        Raises:
            NeverFits: the room is too small for as many different words as are asked for.
        """
        self._seed, self._rng, self._length = seed, random.Random(seed), length
        self._room = length.tokens - length.answer
        self._step = self._room // 32
        if self._room // 50 < 4 or self._step < 1:
            raise NeverFits(0, None)
        vocabulary, size = self._vocabulary(), self._room // _LETTERS
        while length.count(self._text(vocabulary, size).whole) < self._room:
            size += self._step
        self._size = size - self._step

    def records(self) -> Iterator[tuple[Text, int]]:
        """Texts without end, each with the tokens that it takes with its answer.

        Raises:
            NeverFits: a text without any word is too long.
        """
        index = 0
        while True:
            vocabulary, size = self._vocabulary(), self._size
            text = self._text(vocabulary, size)
            while (tokens := self._length.count(text.whole)) > self._room:
                size -= self._step
                if size <= 0:
                    raise NeverFits(index, tokens + self._length.answer)
                text = self._text(vocabulary, size)
            yield text, tokens + self._length.answer
            index += 1

    def _vocabulary(self) -> list[str]:
        size = self._room // 50
        words = [self._word() for _ in range(size)]
        while len(set(words)) < size:
            words.append(self._word())
        vocabulary = sorted(set(words))
        random.Random(self._seed).shuffle(vocabulary)
        return ["...", *vocabulary[1:]]

    def _word(self) -> str:
        return "".join(self._rng.choices(ascii_lowercase, k=_LETTERS))

    def _text(self, vocabulary: Sequence[str], size: int) -> Text:
        counts = (size * (np.arange(1, len(vocabulary) + 1) ** -_ALPHA) / _ZETA).astype(int)
        words = [word for word, count in zip(vocabulary, counts, strict=True) for _ in range(count)]
        random.Random(self._seed).shuffle(words)
        form = FORMS["fwe"]
        return Text(form.message.format(context=" ".join(words)), form.answer_prefix, tuple(vocabulary[1:4]))


def _numbered(words: Sequence[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, start=1))
