"""The verdict on one cell, and the comparisons that it rests on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import to_builtins

from harness.results import Cell, Record

_RELATIVE_TOLERANCE = 1e-9


@dataclass
class Verdict:
    """What the checks of one cell found.

    Attributes:
        cell: the cell.
        records: number of its records.
        examples: number of the task's examples; None if its data has not been read.
        checked: what was computed again and agrees.
        wrong: what does not agree.
        open: what could not be checked.
    """

    cell: Cell
    records: int
    examples: int | None = None
    checked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def compare(
        self, what: str, comparisons: Iterable[tuple[Record, bool]], noun: str = "records", sure: bool = True
    ) -> None:
        """Note whether all records agree in one respect; without records, note nothing.

        Args:
            what: what is compared: "scores".
            comparisons: each record, and whether it agrees.
            noun: what the message counts.
            sure: whether records that differ are wrong; if not, nothing is told of them.
        """
        compared = list(comparisons)
        names = [record.example_id for record, agrees in compared if not agrees]
        if names:
            (self.wrong if sure else self.open).append(
                f"{what} of {len(names)} {noun} {'differs' if len(names) == 1 else 'differ'} (the first: {names[0]!r})"
            )
        elif compared:
            self.checked.append(what)


def close(one: float, other: float) -> bool:
    """Whether two numbers are equal but for rounding."""
    return math.isclose(one, other, rel_tol=_RELATIVE_TOLERANCE)


def equal(one: Any, other: Any) -> bool:
    """Whether two values are equal, numbers but for rounding."""
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return close(one, other) if numbers else bool(one == other)


def same_scores(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two mappings have the same keys, and values that are equal but for rounding."""
    return one.keys() == other.keys() and all(close(one[name], other[name]) for name in one)


def as_json(value: object) -> Any:
    """A value as it reads after a round trip through JSON."""
    return json.loads(json.dumps(value, default=to_builtins))
