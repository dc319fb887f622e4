"""The report of a whole results folder: what ``kvgauge report`` and the end of a run share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from harness.errors import StoreError
from harness.report.compare.match import beside_published
from harness.report.document import Document
from harness.report.render import write
from harness.report.suite_tables import print_suite, print_suite_end, write_suite_report
from harness.report.task_tables import print_end, print_table, write_report
from harness.results import SuiteResult
from harness.store.reader import Grid, read_grids, suites


def rebuild(path: Path, to: Path, console: Console, wide: bool = False) -> None:
    """Write and print the report of every grid and suite at or below a folder.

    Raises:
        StoreError: there are no results, or the report cannot be written.
    """
    grids = read_grids(path)
    together = suites(grids)
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
        print_table(result, console, wide)
    for suite in together:
        print_suite(suite, console, wide)
    print_places(files, console)


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


def print_paths(files: Iterable[Path], console: Console) -> None:
    """Print one path a line, however long."""
    for file in files:
        console.print(str(file), markup=False, soft_wrap=True)


def print_ends(results: Path, since: float, console: Console) -> None:
    """Print the ends of the runs that other processes have made in a results folder: scores, and where the rest is.

    Args:
        results: the results folder, whose report they have written.
        since: only tasks that were worked on since then, in seconds since 1970; all of them if there are none.
        console: where to print.
    """
    grids = read_grids(results)
    worked_on = [grid for grid in grids if any(run.stat().st_mtime >= since - 1 for run in _logs(grid))]
    chosen = [grid.result for grid in worked_on or grids]
    together = [suite for suite in suites(grids) if any(task in chosen for task in suite.tasks)]
    parts = {(suite.model, task.task) for suite in together for task in suite.tasks}
    places = [results / "report" / suite.model / suite.suite for suite in together]
    for suite in together:
        print_suite_end(suite, console)
    for result in chosen:
        if (result.model, result.task) not in parts:
            print_end(result, console)
            places.append(results / "report" / result.model / result.task)
    print_places([*(place / "table.md" for place in places), results / "report/index.html"], console)


def _logs(grid: Grid) -> list[Path]:
    return sorted(next(iter(grid.folders.values())).parent.glob("runs.*.jsonl"))


def print_places(files: Sequence[Path], console: Console) -> None:
    """Print the folders of written files, and the page with its whole path."""
    pages = [file for file in files if file.suffix == ".html"]
    for folder in dict.fromkeys(file.parent for file in files if file not in pages):
        console.print(f"tables and plots: {folder}", markup=False, soft_wrap=True)
    for page in pages:
        console.print(f"page: {page}", markup=False, soft_wrap=True)
