"""Whether a text gives an answer: the same words, the answer within it, a choice, a number, a pattern.

Each is 1 or 0 of one prediction against one reference. The texts of small models rarely end where the answer does, so
all but ``exact_match`` look for the answer within the text.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from decimal import Decimal

from tasks.scores.text import words

LETTERS = string.ascii_uppercase
"""The names of choices, in order."""
_NUMBER = re.compile(
    r"(?:(?<![A-Za-z\d.])[-\u2212])?(?:(?<![A-Za-z\d])(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
)
# "A" and "I" are words, too: where another follows, they are no letter of a choice.
_SAID = re.compile(r"(?i:answer|option|choice)(?i:\s+is)?\W{0,6}([A-Z])\b(?!')(?!(?<=[AI])\s+[a-z])")
_ALONE = re.compile(r"[\s\"'*(\[]*([A-Za-z])(?:\s*$|\s*\n|[).:,\]*\"]|'(?![A-Za-z]))")
_FIRST = re.compile(r"\s*([B-HJ-Z])\s")
_BRACKETED = re.compile(r"\(([A-Z])\)")


def exact_match(prediction: str, reference: str) -> float:
    """1 if both texts have the same words in the same order.

    As in SQuAD, texts are lower-cased, and ASCII punctuation and the words a, an, the are removed. A reference of
    nothing else is compared as it is, but for case and white space at its ends.
    """
    wanted = words(reference)
    if not wanted:
        return float(prediction.strip().lower() == reference.strip().lower())
    return float(words(prediction) == wanted)


def contains(prediction: str, reference: str) -> float:
    """1 if the prediction holds the reference, but for case and for white space and punctuation at its ends."""
    return float(bare(reference.lower()) in prediction.lower())


def bare(text: str) -> str:
    """A text without white space and ASCII punctuation at its ends; one of nothing else stays as it is."""
    return text.strip(string.whitespace + string.punctuation) or text


def number(prediction: str, reference: str) -> float:
    """1 if the last number of the prediction equals the last number of the reference: 1,234.50 is 1234.5."""
    found, wanted = last_number(prediction), last_number(reference)
    return float(found is not None and found == wanted)


def last_number(text: str) -> Decimal | None:
    """The last number that a text names; None if it names none. Digits within a word, as in CO2, are no number."""
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "").replace("\u2212", "-")) if found else None


def pattern(prediction: str, reference: str) -> float:
    """1 if the reference, a regular expression of Python's ``re``, is found in the prediction."""
    return float(re.search(reference, prediction) is not None)


def choice(prediction: str, reference: str, choices: Sequence[str]) -> float:
    """1 if the prediction takes the choice that the reference is.

    Args:
        prediction: the generated text.
        reference: one of the choices, as its text.
        choices: the texts of the choices, which are called A, B, … in this order.
    """
    place = chosen(prediction, choices)
    return float(place is not None and choices[place] == reference)


def chosen(prediction: str, choices: Sequence[str]) -> int | None:
    """The place of the choice that a text takes; None if it takes none, or several.

    The first of these that is there counts: the last "answer is B" or "Answer: (B)"; a letter that the text begins
    with, "B.", "(b)" or "B because"; the first letter in brackets; the text of one choice and no other, where a choice
    that is part of another one's text gives way to it.

    Args:
        prediction: the generated text.
        choices: the texts of the choices, which are called A, B, … in this order.
    """
    letters = LETTERS[: len(choices)]
    said = [letter for letter in _SAID.findall(prediction) if letter in letters]
    first = [found[1].upper() for found in (_ALONE.match(prediction), _FIRST.match(prediction)) if found]
    bracketed = _BRACKETED.findall(prediction)
    for letter in (*said[-1:], *first, *bracketed[:1]):
        if letter in letters:
            return letters.index(letter)
    lowered = prediction.lower()
    texts = [bare(text.lower()) for text in choices]
    named = [place for place, text in enumerate(texts) if text in lowered]
    named = [place for place in named if not any(texts[place] in texts[other] for other in named if other != place)]
    return named[0] if len(named) == 1 else None
