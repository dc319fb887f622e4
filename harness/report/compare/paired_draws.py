"""Resamples of one task of two results folders, which take the same examples from both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from harness.errors import ConfigError
from harness.report.stats.bootstrap import NONE, Floats, TaskDraws
from harness.results import Cell, CellResult, Record
from harness.store.reader import Grid

_OTHER = " (other prompt)"


class PairedDraws:
    """One task of both folders, with resamples that take the same examples from both.

    An example with another prompt is another example.
    """

    def __init__(self, a: Grid, b: Grid) -> None:
        """Pair one task of two folders.

        Raises:
            ConfigError: the folders show different metrics of it.
        """
        metric, other = a.result.metrics[:1], b.result.metrics[:1]
        if metric != other:
            raise ConfigError(
                f"task {a.result.task} shows {title_of(metric)} in one folder and {title_of(other)} in the other: "
                "score one as the other, with kvgauge score PATH --set task.show=… or --set task.code_similarity=…"
            )
        first = {cell.cell: cell for cell in a.result.cells}
        second = {cell.cell: _apart(cell, first.get(cell.cell)) for cell in b.result.cells}
        self._cells = {("A", name): cell for name, cell in first.items()} | {
            ("B", name): cell for name, cell in second.items()
        }
        named = tuple(replace(cell, cell=_named(side, cell.cell)) for (side, _), cell in self._cells.items())
        self._draws = TaskDraws(replace(a.result, cells=named))

    def score(self, side: str, cell: Cell) -> Floats:
        """One folder's mean and its resamples."""
        return self._draws.score(_named(side, cell)) if (side, cell) in self._cells else NONE

    def difference(self, cell: Cell) -> Floats:
        """B minus A over the pairs."""
        if ("A", cell) not in self._cells or ("B", cell) not in self._cells:
            return NONE
        return self._draws.difference(_named("B", cell), _named("A", cell))

    def counts(self, cell: Cell) -> tuple[int, int, int, int]:
        """``n``, ``expected``, ``other_prompts`` and ``errors`` of a ``Pair``."""
        sides = [self._cells[side, cell] for side in ("A", "B") if (side, cell) in self._cells]
        errors = sum(side.errors for side in sides)
        names = {r.example_id.removesuffix(_OTHER) for side in sides for r in side.records}
        if len(sides) < 2:
            return 0, len(names), 0, errors
        first, second = ({r.example_id for r in side.done} for side in sides)
        other = sum(f"{name}{_OTHER}" in second for name in first)
        return len(first & second), len(names), other, errors


def _named(side: str, cell: Cell) -> Cell:
    return Cell(f"{side}/{cell.label}", cell.budget)


def _apart(ours: CellResult, others: CellResult | None) -> CellResult:
    """A cell whose examples have other names where their prompts differ from those of the other folder's cell."""
    prompts = {r.example_id: r.prompt_sha256 for r in others.records} if others else {}

    def named(record: Record) -> Record:
        here, there = record.prompt_sha256, prompts.get(record.example_id)
        return (
            record
            if None in (here, there) or here == there
            else structs.replace(record, example_id=record.example_id + _OTHER)
        )

    return replace(ours, records=tuple(map(named, ours.records)))


def title_of(metrics: Sequence[object]) -> str:
    """The name of the metric that is shown, for messages."""
    return str(getattr(metrics[0], "name", "")) if metrics else "nothing"
