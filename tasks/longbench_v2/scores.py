"""The answer in a response, and its score.

Facts: ``pred.py`` and ``result.py`` of https://github.com/THUDM/LongBench at 2e00731 (MIT); the code is our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_ANSWERS = (re.compile(r"The correct answer is \(([A-D])\)"), re.compile(r"The correct answer is ([A-D])"))
COLUMNS = ("overall", "easy", "hard", "short", "medium", "long")
"""The columns of the published table."""
CHANCE = 0.25
"""What the published table calls compensated: a response without an answer counts as much as a guess."""


def extract(response: str) -> str | None:
    """The letter that a response answers with, or None; asterisks are ignored, case is not."""
    plain = response.replace("*", "")
    found = next((match for pattern in _ANSWERS if (match := pattern.search(plain))), None)
    return found[1] if found else None


def official(response: str, answer: str, compensated: bool) -> float:
    """1 for the right letter, else 0, or ``CHANCE`` for none if that is asked for."""
    letter = extract(response)
    return CHANCE if letter is None and compensated else float(letter == answer)


def kvpress(response: str, answer: str) -> float:
    """1 if the response contains the right answer's sentence, also beside another's."""
    plain = response.replace("*", "")
    return float(any(f"The correct answer is {written}" in plain for written in (f"({answer})", answer)))


def columns(scored: Iterable[tuple[Mapping[str, str], float]]) -> dict[str, float | None]:
    """The published columns, in percent to one decimal; None where there is no record.

    As in the official code, what is not easy is hard, and what is neither short nor medium is long.

    Args:
        scored: pairs of a record, with ``difficulty`` and ``length``, and its score.
    """
    parts: dict[str, list[float]] = {column: [] for column in COLUMNS}
    for record, score in scored:
        length = record["length"] if record["length"] in ("short", "medium") else "long"
        for column in ("overall", "easy" if record["difficulty"] == "easy" else "hard", length):
            parts[column].append(score)
    return {name: round(100 * sum(part) / len(part), 1) if part else None for name, part in parts.items()}
