"""``kvgauge report``: tables, plots and the page from records, at any time, without a model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness.cli.commands.compare import beside_published, write_sheets
from harness.errors import StoreError
from harness.report.page.write import write_page
from harness.report.suite_tables import print_suite, write_suite_report
from harness.report.task_tables import print_table, write_report
from harness.results import SuiteResult
from harness.store.reader import Grid, read_grids, suites

HELP = "Write the tables and plots of a results folder again, from its records."


def arguments(parser: argparse.ArgumentParser) -> None:
    """A results folder, or a part of one."""
    parser.add_argument(
        "path", nargs="?", type=Path, default=Path("results"), help="a results folder, a model's, or a task's (default: results)"
    )
    parser.add_argument("--to", type=Path, help="where to write (default: PATH/report)")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Everything at or below the path.

    Raises:
        StoreError: there are no results, or the report cannot be written.
    """
    rebuild(arguments.path, arguments.to or arguments.path / "report", console)


def rebuild(path: Path, to: Path, console: Console) -> None:
    """Write and print the report of every grid and suite at or below a folder.

    Raises:
        StoreError: there are no results, or the report cannot be written.
    """
    grids = read_grids(path)
    together = suites(grids)
    parts = {(suite.model, task.task) for suite in together for task in suite.tasks}
    files: list[Path] = []
    try:
        for grid in (grid.result for grid in grids):
            written = write_report(grid, to / grid.model / grid.task)
            if (grid.model, grid.task) not in parts:
                print_table(grid, console)
                files += written
        for suite in together:
            files += write_suite_report(suite, to / suite.model / suite.suite)
            print_suite(suite, console)
        files += write_overview(grids, together, to)
    except OSError as error:
        raise StoreError(f"{to} cannot be written ({error.strerror}): choose another folder with --to") from error
    for file in files:
        console.print(str(file), markup=False, soft_wrap=True)


def write_overview(grids: Sequence[Grid], together: Sequence[SuiteResult], to: Path, model: str | None = None) -> list[Path]:
    """Write what spans models and tasks: comparisons with published numbers, and the page.

    Args:
        grids: one per model and task.
        together: the suites they belong to.
        to: the report's folder.
        model: whose comparisons are files of their own; None for all. The page has all in any case.

    Raises:
        OSError, StoreError: a file cannot be written.
    """
    sheets = beside_published(grids)
    asked = [sheet for sheet in sheets if model in (None, sheet[0].parts[0])]
    return [*write_sheets(asked, to), write_page(grids, together, sheets, to / "index.html")]
