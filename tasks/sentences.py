"""Sentences of an English text, as NLTK's Punkt splitter cuts them with its published parameters.

The parameters are in ``punkt/`` beside this file, so that nothing is downloaded.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nltk.tokenize.punkt import PunktSentenceTokenizer

_FOLDER = Path(__file__).with_name("punkt")


@lru_cache(maxsize=16)  # the records of all tasks at one length are cut from a few sizes of the same text
def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text, in order, without the white space between them."""
    return tuple(_splitter().tokenize(text))


@lru_cache
def _splitter() -> PunktSentenceTokenizer:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(_lines("abbrev_types.txt"))
    parameters.sent_starters = set(_lines("sent_starters.txt"))
    parameters.collocations = {(first, second) for first, _, second in map(_parted, _lines("collocations.tab"))}
    for word, _, flags in map(_parted, _lines("ortho_context.tab")):
        parameters.ortho_context[word] = int(flags)
    return PunktSentenceTokenizer(parameters)


def _lines(name: str) -> list[str]:
    return [line for line in (_FOLDER / name).read_text(encoding="utf-8").split("\n") if line]


def _parted(line: str) -> tuple[str, str, str]:
    return line.partition("\t")
