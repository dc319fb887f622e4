"""Texts of variable tracking: variables that are assigned each other's value, among noise, after a worked example."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from string import ascii_uppercase

import numpy as np

from tasks.ruler.fitting import Length, Texts, fitted_size, fitting
from tasks.ruler.recipe import FORMS, NOISE
from tasks.ruler.text import Text, Undrawable

_HOPS = 4
_EXAMPLE_TOKENS = 500
_EXAMPLE_VALUE = "12345"


class VariableTexts:
    """Makes the texts of variable tracking, with all that is drawn in RULER's order. A size is a number of lines.

    Attributes:
        example_tokens: length of the worked example, which comes on top of that of a text.
    """

    def __init__(self, seed: int, short: bool, count: Callable[[str], int]) -> None:
        """Begin to draw, and make the worked example.

        Args:
            seed: seed of all that is drawn.
            short: whether the length is below 4096 tokens, where sizes change by smaller steps.
            count: number of tokens of a text.
        """
        self._rng, self._numbers = random.Random(seed), np.random.RandomState(seed)
        self._example, self._letters, self.step = "", 3, 5
        room = Length(_EXAMPLE_TOKENS, 0, count)
        example, _ = fitting(self, room, fitted_size(self, room), 0)
        self._example = f"{example.whole} {' '.join(example.answers)}\n"
        self.example_tokens = count(self._example)
        self._letters, self.step = 5, 5 if short else 10

    def make(self, size: int, index: int) -> Text:
        """A text of a size, without the worked example.

        Args:
            size: number of lines of noise.
            index: number of the record; every record is drawn in the same way.

        Raises:
            Undrawable: two variables were drawn with one name, which a record draws again, or there are more of them
                than lines of noise, each of which takes one.
        """
        names = [self._name(self._letters) for _ in range(_HOPS + 1)]
        while len(set(names)) <= _HOPS:
            names.append(self._name(self._letters))
        # Further names begin a chain of their own, for which a value is drawn before it turns out to be too short.
        values = [_EXAMPLE_VALUE if not self._example else self._number() for _ in range(0, len(names), _HOPS + 1)]
        if len(names) > _HOPS + 1:
            raise Undrawable("two variables get the same name")
        if size < len(names):
            raise Undrawable(f"{size} lines of noise are fewer than {len(names)} variables")
        lines = [NOISE] * size
        assignments = [f"VAR {names[0]} = {values[0]}"]
        assignments += [f"VAR {new} = VAR {old} " for old, new in pairwise(names)]
        for offset, place in enumerate(sorted(self._rng.sample(range(size), len(assignments)))):
            lines.insert(place + offset, assignments[offset])
        form = FORMS["vt"]
        return Text(
            form.message.format(context="\n".join(lines), query=values[0]),
            form.answer_prefix.format(count=len(names), query=values[0]),
            tuple(names),
        )

    def after_example(self) -> Texts:
        """The same texts, each after the worked example with other names and another value."""
        return _AfterExample(self)

    def example(self) -> str:
        """The worked example, with names and a value that are drawn for it."""
        example = self._example
        for name in example.split()[-_HOPS - 1 :]:
            example = example.replace(name, self._name(len(name)))
        return example.replace(_EXAMPLE_VALUE, self._number()) + "\n"

    def _name(self, letters: int) -> str:
        return "".join(self._rng.choices(ascii_uppercase, k=letters))

    def _number(self) -> str:
        return str(self._numbers.randint(10000, 99999))


class _AfterExample:
    def __init__(self, texts: VariableTexts) -> None:
        self.step, self._texts = texts.step, texts

    def make(self, size: int, index: int) -> Text:
        text = self._texts.make(size, index)
        return replace(text, message=self._texts.example() + text.message)
