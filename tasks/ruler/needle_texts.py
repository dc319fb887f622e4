"""Texts with needles: sentences that give a key its value, among noise, essays or other needles."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence

from tasks.ruler.recipe import DEPTHS, FORMS, NEEDLE, NOISE, Needles
from tasks.ruler.text import Text
from tasks.ruler.words import Pairs
from tasks.sentences import sentences


class NeedleTexts:
    """Makes the texts of one needle task, with all that is drawn in RULER's order.

    A size is a number of words of the essays, or of lines of noise or other needles.
    """

    def __init__(self, needles: Needles, seed: int, short: bool, pairs: Pairs, essay: tuple[str, ...]) -> None:
        """Begin to draw.

        Args:
            needles: what is hidden, and in what.
            seed: seed of all that is drawn.
            short: whether the length is below 4096 tokens, where sizes change by smaller steps.
            pairs: the keys.
            essay: the words of the essays; empty unless they are the haystack.
        """
        self.step = 500 if needles.haystack == "essay" else 5 if short else 25
        self._needles, self._seed, self._pairs, self._essay = needles, seed, pairs, essay
        self._rng = random.Random(seed)
        form = FORMS["niah"]
        self._single = needles.queries * needles.values == 1
        self._message, self._prefix = (
            (_singular(form.message), _singular(form.answer_prefix))
            if self._single
            else (form.message, form.answer_prefix)
        )

    def make(self, size: int, index: int) -> Text:
        """A text of a size.

        Args:
            size: see the class.
            index: number of the record; every record is drawn in the same way.
        """
        needles = self._needles
        keys, values, lines = [], [], []
        for _ in range(needles.keys):
            keys.append(self._drawn(needles.key))
            values.append([self._drawn(needles.value) for _ in range(needles.values)])
            lines += [self._line(keys[-1], value) for value in values[-1]]
        random.Random(self._seed).shuffle(lines)
        context = self._among_essays(lines, size) if needles.haystack == "essay" else self._among_lines(lines, size)
        asked = self._rng.sample(range(needles.keys), needles.queries)
        query = _listed([keys[i] for i in asked])
        kind = needles.value[:-1] if self._single else needles.value
        return Text(
            self._message.format(kind=kind, context=context, query=query),
            self._prefix.format(kind=kind, query=query),
            tuple(value for i in asked for value in values[i]),
        )

    def _drawn(self, kind: str) -> str:
        if kind == "numbers":
            return str(self._rng.randint(10**6, 10**7 - 1))
        return (
            self._pairs.draw(self._rng)
            if kind == "words"
            else str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        )

    def _line(self, key: str, value: str) -> str:
        return NEEDLE.format(kind=self._needles.value, key=key, value=value)

    def _among_essays(self, lines: Sequence[str], size: int) -> str:
        repeats = -(-size // len(self._essay))
        parts = sentences(" ".join((self._essay * repeats)[:size]).strip())
        places = sorted(int(len(parts) * (depth / 100)) for depth in self._rng.sample(DEPTHS, len(lines)))
        written = []
        for line, start, end in zip(lines, (0, *places), places, strict=False):
            written += [" ".join(parts[start:end]), line]
        return " ".join([*written, " ".join(parts[places[-1] :])])

    def _among_lines(self, lines: Sequence[str], size: int) -> str:
        needles = self._needles
        if needles.haystack == "noise":
            context = [NOISE] * size
        else:
            context = [self._line(self._drawn(needles.key), self._drawn(needles.value)) for _ in range(size)]
        places = sorted(self._rng.sample(range(size), len(lines)), reverse=True)
        for place, line in zip(places, lines, strict=True):
            context.insert(place, line)
        return "\n".join(context)


def _singular(template: str) -> str:
    for plural, singular in (("Some", "A"), ("are all", "is"), ("are", "is"), ("answers", "answer")):
        template = template.replace(plural, singular)
    return template


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + ", and " + names[-1] if len(names) > 1 else names[0]
