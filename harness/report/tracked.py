"""What a tracker shows of grids: cells and examples as tables, scores as curves, numbers to compare runs by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.report.stats.curves import Curves, score_curves
from harness.report.stats.table import table
from harness.report.suite_tables import headline, suite_table
from harness.report.tracker import Finished
from harness.results import Cell, CellResult, SuiteResult, TaskResult
from harness.store.run_log import RunLine
from harness.task import Metric


@dataclass(frozen=True)
class Series:
    """Scores over budgets or retentions, one line per method with a score.

    Attributes:
        name: ``by_budget`` or ``by_retention``.
        across: what the axis is called.
        lines: by method, its points, from left to right. A method that has no place on the axis, as it keeps
            everything, is a line from the first point of the others to the last.
    """

    name: str
    across: str
    lines: dict[str, list[tuple[float, float]]]


def cells_frame(finished: Finished) -> pd.DataFrame:
    """One row per cell, as in ``table`` or ``suite_table``, and what the processes that computed it took."""
    raw = _raw(finished.result)
    costs = [
        cost(Cell(method, budget), finished.runs[task] if (task := _task(finished, column)) else ())
        for method, budget, column in zip(raw["method"], raw["budget"], raw.get("column", raw["method"]), strict=True)
    ]
    frame = pd.concat([raw, pd.DataFrame(costs, index=raw.index)], axis="columns")
    return frame.astype(object).where(frame.notna(), None)


def headline_rows(result: TaskResult | SuiteResult) -> pd.DataFrame:
    """One row per cell, of the column of a suite that stands for it."""
    raw = _raw(result)
    return raw[raw["column"] == headline(result)] if isinstance(result, SuiteResult) else raw


def summary(finished: Finished) -> dict[str, float | int]:
    """What runs of several models or settings are compared by: scores by cell, and counts over all of them."""
    rows, cells = headline_rows(finished.result), [cell for task in finished.tasks for cell in task.cells]
    runs = [run for task in finished.tasks for run in finished.runs[task.task] if run.seconds]
    values: dict[str, float | int] = {}
    if "score" in rows:
        named = zip(rows["method"], rows["budget"], rows["score"], strict=True)
        values = {f"score/{Cell(method, budget).name}": score for method, budget, score in named if not pd.isna(score)}
    values |= {"results": sum(len(cell.done) for cell in cells), "errors": sum(cell.errors for cell in cells)}
    return values | ({"peak_bytes": max(run.peak_bytes for run in runs), **_speed(runs)} if runs else {})


def series(drawn: Curves) -> Series:
    """The points of curves, without intervals."""
    lines = {
        line.label: sorted(
            (x, y) for x, y in zip(line.across, line.scores, strict=True) if x is not None and not pd.isna([x, y]).any()
        )
        for line in drawn.lines
    }
    ends = [x for points in lines.values() for x, _ in points]
    for line in drawn.lines:
        if None in line.across and ends:
            place = list(line.across).index(None)
            if not pd.isna(line.scores[place]):
                lines[line.label] = [(x, line.scores[place]) for x in sorted({min(ends), max(ends)})]
    return Series(drawn.stem, drawn.across, {label: points for label, points in lines.items() if points})


def all_series(result: TaskResult | SuiteResult) -> list[Series]:
    """Scores by budget and by retention; none where there is no score."""
    rows = headline_rows(result)
    if "score" not in rows or rows["score"].isna().all():
        return []
    return [shown for drawn in score_curves(rows) if (shown := series(drawn)).lines]


def curve_images(result: TaskResult, folder: Path) -> list[Path]:
    """The same with intervals, as images of a task; those of a suite are among its plots."""
    from harness.report.plots import curves  # matplotlib takes its time

    raw = table(result)
    if not result.metrics or raw["score"].isna().all():
        return []
    paths = []
    for drawn in score_curves(raw):
        paths.append(folder / f"{drawn.stem}.png")
        curves(drawn, result.title, f"{result.metrics[0].title} (0-100)", paths[-1])
    return paths


def examples_frame(result: TaskResult) -> pd.DataFrame:
    """Every example with the texts of all cells below each other, so that a viewer's limit cuts no example in two."""
    frames = [cell_examples(cell, result.metrics) for cell in result.cells]
    for cell, frame in zip(result.cells, frames, strict=True):
        frame.insert(0, "budget", cell.cell.budget)
        frame.insert(0, "method", cell.cell.label)
        frame.insert(0, "task", result.task)
    whole = pd.concat(frames, ignore_index=True)
    order = {name: place for place, name in enumerate(dict.fromkeys(whole["example_id"]))}
    return whole.sort_values("example_id", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def cell_examples(cell: CellResult, metrics: Sequence[Metric]) -> pd.DataFrame:
    """What each example is, what the cell made of it, and what that scored."""
    groups = dict.fromkeys(key for record in cell.records for key in record.group)
    columns = ["example_id", *groups, "references", "text", "error", *(metric.name for metric in metrics), "retention"]
    rows = [
        {**record.to_json(), "references": list(record.references), **record.group, **record.scores}
        for record in cell.records
    ]
    return pd.DataFrame(rows).reindex(columns=columns)


def cost(cell: Cell, runs: Iterable[RunLine]) -> dict[str, Any]:
    """What the processes that wrote a cell took, for all cells that they wrote together."""
    ended = [run for run in runs if cell.name in run.cells and run.seconds]
    if not ended:
        return {}
    largest = max(ended, key=lambda run: run.peak_bytes)
    return {"peak_bytes": largest.peak_bytes, "peak_of": largest.peak_of, **_speed(ended)}


def _speed(runs: Sequence[RunLine]) -> dict[str, float]:
    tokens = sum(run.prefilled_tokens + run.generated_tokens for run in runs)
    return {"tokens_per_second": tokens / sum(run.seconds for run in runs)}


def _raw(result: TaskResult | SuiteResult) -> pd.DataFrame:
    return suite_table(result) if isinstance(result, SuiteResult) else table(result)


def _task(finished: Finished, column: str) -> str | None:
    """The task that a row is of; None for an average of several."""
    if isinstance(finished.result, TaskResult):
        return finished.result.task
    names = {task.task.removeprefix(f"{finished.result.suite}-"): task.task for task in finished.result.tasks}
    return names.get(column)
