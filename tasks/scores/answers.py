"""Answers of benchmarks, read as InfiniteBench's code and what grew out of it read them; each 0-1.

Facts: ``src/compute_scores.py`` of https://github.com/OpenBMB/InfiniteBench at 88b3daa (MIT) and
``scbench/compute_scores.py`` of https://github.com/microsoft/MInference at fb56c91 (MIT); the code is our own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tasks.scores.rouge_l import rouge_score_f
from tasks.scores.text import qa_f1, qa_f1_characters

_DIGITS = re.compile(r"[0-9]+")
_NUMBER = re.compile(r"\d+\.\d+|\d+")
_MARKS = str.maketrans(dict.fromkeys("\n:\"'.,?!{}", " "))
_MARKS_OF_CHOICE = str.maketrans(dict.fromkeys("\n\"'.,?!{}", " "))
_SPACES = re.compile("  +")
_CHOICE_BEGINS = ("answer is:", "answer:", "answer is", "option is")
LETTERS = "ABCD"


def words(prediction: str) -> list[str]:
    """The words of a prediction, without some punctuation marks."""
    return prediction.translate(_MARKS).split()


def first_digits(prediction: str) -> str:
    """The first run of digits, or "" if there is none."""
    found = _DIGITS.search(prediction)
    return found[0] if found else ""


def first_number(prediction: str) -> str | None:
    """The first number, with its fraction and without its sign; None if there is none."""
    found = _NUMBER.search(prediction)
    return found[0] if found else None


def after(prediction: str, beginnings: Sequence[str]) -> str | None:
    """What follows the first of these beginnings that is in the prediction, and a space; None if none is.

    Nothing follows if the prediction ends with it.
    """
    for beginning in beginnings:
        at = prediction.find(beginning)
        if at >= 0:
            return prediction[at + len(beginning) + 1 :]
    return None


def choice(prediction: str, labels: Sequence[str]) -> float:
    """Whether a prediction names the right one of four choices.

    Its first letter counts if it is one of A to D; else whether it is the choice's text; else what follows "answer is"
    and the like; else the first word that is a part of "ABCD".

    Args:
        prediction: the generated text.
        labels: the right choice's letter and text, in any order.
    """
    stripped = prediction.strip()
    if stripped[:1] and stripped[0] in LETTERS:
        return float(stripped[0] in labels)
    if stripped in labels:
        return 1.0
    text = _SPACES.sub(" ", stripped.translate(_MARKS_OF_CHOICE))
    answer = after(text, _CHOICE_BEGINS)
    if answer is not None:
        return float(bool(answer) and any(answer.startswith(label) for label in labels))
    word = next((word for word in text.split() if word in LETTERS), None)
    return float(word is not None and word in labels)


def best_f1(prediction: str, references: Sequence[str]) -> float:
    """The best F1 over words of any reference."""
    return max((qa_f1(prediction, reference) for reference in references), default=0.0)


def best_f1_characters(prediction: str, references: Sequence[str]) -> float:
    """The best F1 over characters of any reference."""
    return max((qa_f1_characters(prediction, reference) for reference in references), default=0.0)


def best_rouge_lsum(prediction: str, references: Sequence[str]) -> float:
    """The best rougeLsum of Google's rouge-score of any reference."""
    return max((rouge_score_f(prediction, reference)["rougeLsum"] for reference in references), default=0.0)
