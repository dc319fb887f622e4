"""The report of a whole results folder: what ``kvgauge report`` and the end of a run share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from harness.errors import StoreError
from harness.report.compare.match import beside_published
from harness.report.document import Document
from harness.report.render import write
from harness.report.suite_tables import print_suite, write_suite_report
from harness.report.task_tables import print_table, write_report
from harness.results import SuiteResult
from harness.store.places import LeftOut
from harness.store.reader import Grid, read_results, suites
from harness.text import plain


def rebuild(path: Path, to: Path, console: Console) -> None:
    """Write and print the report of every grid and suite at or below a folder.

    Raises:
        StoreError: there are no results, or the report cannot be written.
    """
    results = read_results(path)
    grids, together = results.grids, suites(results.grids)
    parts = {(suite.model, task.task) for suite in together for task in suite.tasks}
    alone = [grid.result for grid in grids if (grid.result.model, grid.result.task) not in parts]
    files: list[Path] = []
    try:
        for result in (grid.result for grid in grids):
            written = write_report(result, to / result.model / result.task)
            files += written if result in alone else []
        for suite in together:
            files += write_suite_report(suite, to / suite.model / suite.suite)
        files += write_overview(grids, together, to)
    except OSError as error:
        raise StoreError(f"{to} cannot be written ({error.strerror}): choose another folder with --to") from error
    for result in alone:
        print_table(result, console)
    for suite in together:
        print_suite(suite, console)
    print_left_out(results.left_out, console)
    print_paths(files, console)


def write_overview(
    grids: Sequence[Grid], together: Sequence[SuiteResult], to: Path, model: str | None = None
) -> list[Path]:
    """Write what spans models and tasks: comparisons with published numbers, and the page.

    Args:
        grids: one per model and task.
        together: the suites they belong to.
        to: the report's folder.
        model: whose comparisons are files of their own; None for all. The page has all in any case.

    Raises:
        OSError: a file cannot be written.
    """
    from harness.report.page.write import write_page  # Jinja and matplotlib take their time

    beside = beside_published(grids)
    asked = [(folder, document) for folder, document in beside if model in (None, folder.parts[0])]
    return [*write_documents(asked, to), write_page(grids, together, beside, to / "index.html")]


def write_documents(documents: Iterable[tuple[Path, Document]], to: Path) -> list[Path]:
    """Write documents, each into its folder below the report's.

    Raises:
        OSError: a file cannot be written.
    """
    return [file for folder, document in documents for file in write(document, to / folder)]


def print_left_out(left_out: Iterable[LeftOut], console: Console) -> None:
    """Print one line for each folder that is not among the results."""
    for one in left_out:
        console.print(plain(f"left out: {one.reason}"), markup=False, soft_wrap=True)


def print_paths(files: Iterable[Path], console: Console) -> None:
    """Print one path a line, however long."""
    for file in files:
        console.print(str(file), markup=False, soft_wrap=True)
