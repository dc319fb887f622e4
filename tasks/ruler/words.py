"""The words that RULER draws: those of the Python package wonderwords, and pairs of them as keys of needles.

The lists are in ``words/`` beside this file, with their licence.
"""

from __future__ import annotations

import random
from bisect import bisect
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

VERSIONS = ("3.0.1", "2.2.0")
"""The releases of wonderwords whose lists are here; the data that kvpress publishes was made with the older."""
_ONLY_IN_THE_OLDER = frozenset(("abortion", "brocolli", "idiot", "pray"))
_FOLDER = Path(__file__).with_name("words")


@lru_cache
def _read(kind: str, version: str) -> tuple[str, ...]:
    words = (_FOLDER / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
    left_out = _ONLY_IN_THE_OLDER if kind == "nouns" and version == "3.0.1" else frozenset()
    return tuple(word for word in words if word not in left_out)


@lru_cache
def every_word(version: str) -> tuple[str, ...]:
    """All nouns, adjectives and verbs, sorted, each once.

    Args:
        version: one of ``VERSIONS``.
    """
    return tuple(sorted({word for kind in ("nouns", "adjectives", "verbs") for word in _read(kind, version)}))


@lru_cache
def pairs(version: str) -> Pairs:
    """The pairs of a release.

    Args:
        version: one of ``VERSIONS``.
    """
    return Pairs(_read("adjectives", version), _read("nouns", version))


class Pairs:
    """All texts ``adjective-noun`` as one sorted list, of which only the parts that are asked for are ever made.

    The whole list has 6 million texts. It falls into parts in which one adjective, or one and those that go on from it
    with a hyphen, come first; parts are sorted among themselves.
    """

    def __init__(self, adjectives: tuple[str, ...], nouns: tuple[str, ...]) -> None:
        """Prepare the list.

        Args:
            adjectives: first words, in any order.
            nouns: second words, in any order.
        """
        self._nouns = sorted(set(nouns))
        self._parts: list[list[str]] = []
        for adjective in sorted({f"{adjective}-" for adjective in adjectives}):
            if self._parts and adjective.startswith(self._parts[-1][0]):
                self._parts[-1].append(adjective)
            else:
                self._parts.append([adjective])
        # Of several adjectives, two pairs can be the same text.
        self._whole = {i: self._written(part) for i, part in enumerate(self._parts) if len(part) > 1}
        sizes = [len(self._whole.get(i, self._nouns)) for i in range(len(self._parts))]
        self._ends = list(accumulate(sizes))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> str:
        """One text, by its place in the sorted list, 0 or more."""
        part = bisect(self._ends, index)
        within = index - (self._ends[part - 1] if part else 0)
        if part in self._whole:
            return self._whole[part][within]
        return self._parts[part][0] + self._nouns[within]

    def draw(self, rng: random.Random) -> str:
        """One text by chance, as ``choice`` draws from the list."""
        return self[rng.choice(range(len(self)))]

    def _written(self, part: list[str]) -> list[str]:
        return sorted({adjective + noun for adjective in part for noun in self._nouns})
