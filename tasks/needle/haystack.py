"""The built-in haystack: generated English about a small harbour town, which ships with the project.

It is not a published haystack: the published experiments hide their needle in Paul Graham's essays, which are not ours
to ship. Numbers made with this text compare methods with each other; to compare with published ones, give the essays
as ``task.haystack``.

The words and sentence templates lie in ``haystack_words.json``. The text is the same everywhere: it draws only on
``random.Random(SEED).random()``, which Python guarantees not to change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from msgspec import Struct, json

SEED = 1789
CHARACTERS = 200_000


class _Words(Struct, frozen=True):
    """What sentences are made of.

    Attributes:
        women: first names.
        men: first names.
        themes: word lists of one paragraph: where it happens, what is at hand, what people do there, what is learnt.
        words: word lists that fit every theme, by slot.
        openings: templates of a paragraph's first sentence.
        bodies: templates of the sentences between.
        closings: templates of a paragraph's last sentence.
    """

    women: tuple[str, ...]
    men: tuple[str, ...]
    themes: tuple[dict[str, tuple[str, ...]], ...]
    words: dict[str, tuple[str, ...]]
    openings: tuple[str, ...]
    bodies: tuple[str, ...]
    closings: tuple[str, ...]


class _Draw:
    """Random choices that are the same under every Python version: only the generator's ``random()`` is used."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        return int(self._random.random() * bound)

    def distinct(self, choices: Sequence[str], count: int) -> list[str]:
        """``count`` different entries, in random order."""
        left = list(choices)
        return [left.pop(self.below(len(left))) for _ in range(count)]


@lru_cache(maxsize=1)
def _words() -> _Words:
    return json.decode(Path(__file__).with_name("haystack_words.json").read_bytes(), type=_Words)


def _sentence(template: str, draw: _Draw, fixed: Mapping[str, str], theme: Mapping[str, tuple[str, ...]]) -> str:
    """One sentence. A slot is a word list's name; the same name followed by 2 is another entry of that list."""
    names = set(re.findall(r"\{(\w+)\}", template))
    filled = dict(fixed)
    for name in sorted({n.rstrip("2") for n in names} - set(fixed)):
        choices = theme.get(name) or _words().words.get(name)
        if choices is not None:
            filled[name], filled[name + "2"] = draw.distinct(choices, 2)
    filled["when2"] = filled.get("when2", "").lower()
    text = re.sub(r"\{(\w+)\}", lambda match: filled[match[1]], template)
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return text[0].upper() + text[1:]


def _paragraph(draw: _Draw) -> str:
    words = _words()
    people = [(name, "she", "her") for name in words.women] + [(name, "he", "his") for name in words.men]
    theme = words.themes[draw.below(len(words.themes))]
    first = draw.below(len(people))
    second = (first + 1 + draw.below(len(people) - 1)) % len(people)
    name, they, their = people[first]
    fixed = {"name": name, "they": they, "They": they, "Their": their, "other": people[second][0], "a": "a", "A": "a"}
    fixed |= {"other_their": people[second][2], "place": draw.distinct(theme["place"], 1)[0]}
    templates = [
        *draw.distinct(words.openings, 1),
        *draw.distinct(words.bodies, 3 + draw.below(5)),
        *draw.distinct(words.closings, 1),
    ]
    return " ".join(_sentence(template, draw, fixed, theme) for template in templates)


@lru_cache(maxsize=1)
def builtin_text() -> str:
    """The built-in haystack: ``generated_text`` of ``SEED``."""
    return generated_text(SEED, CHARACTERS)


def generated_text(seed: int, characters: int) -> str:
    """Paragraphs separated by blank lines: ASCII without digits, the same for the same seed.

    Args:
        seed: another seed gives another text about the same town.
        characters: the least length; the text ends with the first paragraph that reaches it.
    """
    draw = _Draw(seed)
    paragraphs: list[str] = []
    written = 0
    while written < characters:
        paragraphs.append(_paragraph(draw))
        written += len(paragraphs[-1]) + 2
    return "\n\n".join(paragraphs) + "\n\n"
