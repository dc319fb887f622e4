"""A comparison with a published table as a document: averages, then every number in the layout of the papers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from harness.report.compare.differences import RAW, ComparedMethod, Comparison, Contrast, method_class
from harness.report.compare.published import AVERAGE, Number, related_models, tables
from harness.report.document import (
    Column,
    Document,
    Table,
    TableCell,
    budgets,
    count_cell,
    grouped,
    interval_cell,
    number_cell,
    texts,
)
from harness.report.format import DASH, counted, number, percent, signed
from harness.report.notes import few_notes, method_knobs
from harness.report.stats.bootstrap import LEVEL


def comparison_document(comparison: Comparison) -> Document:
    """What ``kvgauge compare`` shows of one published table."""
    marks = _marks(comparison)
    title = f"{comparison.suite} on {comparison.ours} beside {comparison.table.title}, {comparison.theirs}"
    tables = [_summary(comparison, marks), layout(comparison, marks)]
    notes = [*_notes(comparison), *(f"[{mark}] {note}" for note, mark in marks.items())]
    return Document(title, "compare", tables, notes, {"compare": raw_table(comparison)})


def raw_table(comparison: Comparison) -> pd.DataFrame:
    """One line per method, budget and column, unrounded; NaN where something is missing.

    Columns: ``method`` (as published), ``label`` (ours), ``budget``, ``column``, ``ours`` with ``ours_low`` and
    ``ours_high``, ``theirs``, ``difference`` (ours minus theirs), ``theirs_is`` (inside or outside our interval, or
    that ours is a trial), ``n``, ``errors``, ``expected``, ``source``, ``note``.
    """
    return pd.DataFrame(
        [
            {
                "method": row.method,
                "label": row.cell.label if row.cell else None,
                "budget": row.budget,
                "column": name,
                "ours": entry.ours,
                "ours_low": entry.low,
                "ours_high": entry.high,
                "theirs": entry.theirs.value if entry.theirs else math.nan,
                "difference": entry.difference,
                "theirs_is": entry.verdict or None,
                "n": entry.n,
                "errors": entry.errors,
                "expected": entry.expected,
                "source": entry.theirs.source if entry.theirs else None,
                "note": entry.theirs.note if entry.theirs else None,
            }
            for row in comparison.rows
            for name, entry in row.numbers.items()
        ]
    )


def layout(comparison: Comparison, marks: Mapping[str, int]) -> Table:
    """Methods and budgets down, datasets across: ours, its interval, theirs, the difference and where theirs lies."""
    groups = [(_name(row), row.budget, dict(_lines(row, marks))) for row in comparison.rows]
    return grouped(
        "By dataset", list(comparison.titles.values()), [("examples", "", {"": _examples(comparison)}), *groups]
    )


def _lines(row: ComparedMethod, marks: Mapping[str, int]) -> Iterator[tuple[str, list[str]]]:
    numbers = list(row.numbers.values())
    yield "ours", [number(n.ours, 2) for n in numbers]
    if any(math.isfinite(n.ours) for n in numbers):
        yield f"{LEVEL} % low", [number(n.low, 2) for n in numbers]
        yield f"{LEVEL} % high", [number(n.high, 2) for n in numbers]
    yield "theirs", [_theirs(n.theirs, marks) for n in numbers]
    if any(n.verdict for n in numbers):
        yield "difference", [signed(n.difference) for n in numbers]
        yield "theirs is", [n.verdict.partition(":")[0] or DASH for n in numbers]
    if row.cell and any(n.n < max(n.expected, n.published) for n in numbers):
        yield "n", [counted(n.n, max(n.expected, n.published)) if n.expected else DASH for n in numbers]


def _examples(comparison: Comparison) -> list[str]:
    """The number of examples of each column, the same in all cells."""
    most = {name: max(row.numbers[name].expected for row in comparison.rows) for name in comparison.titles}
    return [DASH if name == AVERAGE or not most[name] else str(most[name]) for name in comparison.titles]


def _summary(comparison: Comparison, marks: Mapping[str, int]) -> Table:
    """One line per method and budget: the average, or the only column; and how many datasets lie inside."""
    rows = comparison.rows
    datasets = [name for name in comparison.titles if name not in (AVERAGE, RAW)]
    head = AVERAGE if AVERAGE in comparison.titles else datasets[0] if len(datasets) == 1 else None
    columns = [texts("method", [_name(row) for row in rows]), budgets([row.budget for row in rows])]
    if head is not None:
        numbers = [row.numbers[head] for row in rows]
        theirs = [TableCell(_theirs(n.theirs, marks), n.theirs.value if n.theirs else None) for n in numbers]
        columns += [
            Column("ours", [number_cell(n.ours, number(n.ours, 2)) for n in numbers]),
            Column(f"{LEVEL} % interval", [interval_cell(n.low, n.high) for n in numbers]),
            Column("theirs", theirs),
            Column("difference", [number_cell(n.difference, signed(n.difference)) for n in numbers]),
            Column("theirs is", [TableCell(n.verdict or DASH, n.verdict or None) for n in numbers]),
        ]
    parts = [[row.numbers[name] for name in datasets] for row in rows]
    if len(datasets) > 1:
        columns.append(Column("datasets inside", [_inside(several) for several in parts]))
    results, errors = [], []
    for row, several in zip(rows, parts, strict=True):
        n, failed = sum(one.n for one in several), sum(one.errors for one in several)
        results.append(count_cell(n, sum(one.expected for one in several)) if row.cell else TableCell(DASH))
        errors.append(number_cell(failed, str(failed)) if row.cell else TableCell(DASH))
    columns += [Column("n", results), Column("errors", errors)]
    columns.append(Column("entries %", [number_cell(row.retention, percent(row.retention)) for row in rows]))
    title = comparison.titles[head] if head is not None else "Datasets inside"
    return Table(title[:1].upper() + title[1:], columns)


def _inside(numbers: Sequence[Contrast]) -> TableCell:
    """How many published numbers lie inside our intervals, of those that can be held against one."""
    held = [n.verdict for n in numbers if n.verdict and not n.is_trial]
    inside = held.count("inside")
    return TableCell(f"{inside} of {len(held)}", float(inside)) if held else TableCell(DASH)


def _name(row: ComparedMethod) -> str:
    """The published method and, where it is another, our label."""
    return (
        row.method
        if row.cell is None or row.cell.label.lower() == row.method.lower()
        else f"{row.method} ({row.cell.label})"
    )


def _marks(comparison: Comparison) -> dict[str, int]:
    """Notes on published numbers, counted as they appear."""
    notes = (
        entry.theirs.note
        for row in comparison.rows
        for entry in row.numbers.values()
        if entry.theirs and entry.theirs.note
    )
    return {note: place for place, note in enumerate(dict.fromkeys(notes), 1)}


def _theirs(theirs: Number | None, marks: Mapping[str, int]) -> str:
    if theirs is None:
        return DASH
    return f"{theirs.text} [{marks[theirs.note]}]" if theirs.note else theirs.text


def _notes(comparison: Comparison) -> list[str]:
    grids = list(comparison.grids.values())
    notes = list(dict.fromkeys(grid.result.note for grid in grids if grid.result.note))
    notes.append(f"theirs: {comparison.table.title}, {comparison.theirs}; {comparison.table.protocol}.")
    notes += [*_elsewhere(comparison), *_settings(comparison)]
    notes.append(
        f"Interval: {LEVEL} % bootstrap over our examples. theirs is inside or outside of it; difference: ours minus "
        f"theirs. "
        "An average needs all of its datasets."
    )
    entries = [entry for row in comparison.rows if row.cell for name, entry in row.numbers.items() if name != AVERAGE]
    for word, amount in (("trial", "fewer"), ("more", "more")):
        if any(entry.verdict.startswith(f"{word}:") and entry.n for entry in entries):
            notes.append(
                f"{word}: {amount} examples than the published number goes over, so that ours is not held against it."
            )
    notes += few_notes(entry.n for entry in entries)
    if comparison.table.scale != "score":
        notes.append(
            "Percent of the full cache: over the examples that both cells have. The last column is ours alone."
        )
        if not any(
            math.isfinite(entry.ours) for row in comparison.rows for name, entry in row.numbers.items() if name != RAW
        ):
            notes.append(
                "Nothing of ours is in percent of the full cache: no cell kept all of it, or the one that did scores 0."
            )
    if any(entry.n < entry.expected for row in comparison.rows if row.cell for entry in row.numbers.values()):
        notes.append("n of N: our numbers cover only the n examples that have a result.")
    notes += _shared(comparison)
    if comparison.left_out:
        notes.append(f"not in the published table: {', '.join(comparison.left_out)}.")
    return notes


def _elsewhere(comparison: Comparison) -> list[str]:
    """What else is published of this model."""
    suite = [table for table in tables() if table.suite == comparison.table.suite]
    others = [table.name for table in suite if comparison.theirs in table.models and table is not comparison.table]
    models = related_models(comparison.theirs, list(dict.fromkeys(model for table in suite for model in table.models)))
    elsewhere = [f"--table {name}" for name in others] + [f"--model {model}" for model in models]
    return [f"also published: {', '.join(elsewhere)}."] if elsewhere else []


def _settings(comparison: Comparison) -> list[str]:
    """What ours were made with: task, model and selection of the first cell, and every method's knobs."""
    if not comparison.grids:
        return []
    first = next(iter(comparison.grids.values()))
    hidden = ("_target_", "name", "data", "datasets")
    knobs = {
        f"task.{name}": value for name, value in first.task_config.items() if name not in hidden and _is_plain(value)
    }
    settings = next(iter(first.manifests.values())).settings
    knobs |= {f"selection.{name}": value for name, value in settings.get("selection", {}).items()}
    if "dtype" in settings.get("model", {}):
        knobs["model.dtype"] = settings["model"]["dtype"]
    notes = ["ours: " + ", ".join(f"{name}={value}" for name, value in knobs.items()) + "."]
    methods = {cell.label: method_knobs(manifest) for cell, manifest in first.manifests.items()}
    return notes + [f"{label}: {knobs}." for label, knobs in methods.items() if knobs]


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= 40)


def _shared(comparison: Comparison) -> list[str]:
    """Where several cells of ours stand beside one published number, and where a label had to do."""
    cells = {row.cell: row.method for row in comparison.rows if row.cell}
    notes = []
    for method in dict.fromkeys(cells.values()):
        labels = list(dict.fromkeys(cell.label for cell, name in cells.items() if name == method))
        if len(labels) > 1:
            notes.append(
                f"{' and '.join(labels)} are all {method} by their class: each stands beside the same published number."
            )
    grids = comparison.grids.values()
    imported = [
        cell.label for cell in cells if any(cell in g.manifests and method_class(g, cell) is None for g in grids)
    ]
    if imported:
        notes.append(f"matched by label, as an imported cell has no class: {', '.join(dict.fromkeys(imported))}.")
    return notes
