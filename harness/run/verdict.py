"""The verdict on one cell, and the comparisons it is made of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import to_builtins

from harness.results import Cell, Record

_CLOSE = 1e-9


@dataclass
class Verdict:
    """What was found of one cell.

    Attributes:
        cell: which one.
        records: how many it has.
        checked: what was computed again, in words.
        examples: of the task, where its data could be read.
        wrong: what does not agree.
        open: what could not be told.
    """

    cell: Cell
    records: int
    examples: int | None = None
    checked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def compare(self, what: str, alike: Iterable[tuple[Record, bool]], of: str = "records") -> None:
        """Note whether records agree in something; nothing where there is none to tell it of."""
        found = list(alike)
        names = [record.example_id for record, same in found if not same]
        if names:
            self.wrong.append(
                f"{what} of {len(names)} {of} {'differs' if len(names) == 1 else 'differ'} (the first: {names[0]!r})"
            )
        elif found:
            self.checked.append(what)


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(math.isclose(one[name], other[name], rel_tol=_CLOSE) for name in one)


def _plain(value: object) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value, default=to_builtins))


def _alike(one: Any, other: Any) -> bool:
    return list(one) == list(other) if isinstance(one, list | tuple) else _equal(one, other)


def _equal(one: Any, other: Any) -> bool:
    numbers = all(isinstance(value, int | float) for value in (one, other))
    return math.isclose(one, other, rel_tol=_CLOSE) if numbers else bool(one == other)
