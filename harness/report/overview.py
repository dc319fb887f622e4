"""The report of a whole results folder: what ``kvgauge report`` and the end of a run share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from rich.console import Console

from harness.errors import StoreError
from harness.report.compare.match import beside_published
from harness.report.document import Document
from harness.report.render import write
from harness.report.suite_tables import print_suite, write_suite_report
from harness.report.task_tables import print_table, write_report
from harness.results import SuiteResult, TaskResult
from harness.store.places import LeftOut, same_folder
from harness.store.reader import Grid, Results, read_results, suites
from harness.text import plain


def rebuild(paths: Sequence[Path], to: Path | None, console: Console) -> None:
    """Write and print the report of every grid and suite at or below some folders.

    In the report of the results folder, a task and a suite are always written whole, and the page has everything that
    the results folder holds, whatever part of it is asked for. A report that is written elsewhere has this part alone.

    Args:
        paths: parts of one results folder.
        to: where to write; None for the results folder's own ``report``.
        console: where to print.

    Raises:
        StoreError: there are no results, or the report cannot be written.
    """
    parts = [read_results(path) for path in paths]
    home = parts[0].root / "report"
    results = _at_home(parts) if to is None or same_folder(to, home) else parts[0]
    to = to or home
    asked = {(grid.result.model, grid.result.task) for part in parts for grid in part.grids}
    together = suites(results.grids)
    shown = [suite for suite in together if any((suite.model, task.task) in asked for task in suite.tasks)]
    in_suites = {(suite.model, task.task) for suite in shown for task in suite.tasks}
    alone: list[TaskResult] = []
    files: list[Path] = []
    try:
        for result in (grid.result for grid in results.grids):
            task = (result.model, result.task)
            written = write_report(result, to / result.model / result.task) if task in asked else []
            if task in asked - in_suites:
                alone.append(result)
                files += written
        for suite in shown:
            files += write_suite_report(suite, to / suite.model / suite.suite)
        files += write_overview(results.grids, together, to, {model for model, _ in asked})
    except OSError as error:
        raise StoreError(f"{to} cannot be written ({error.strerror}): choose another folder with --to") from error
    for result in alone:
        print_table(result, console)
    for suite in shown:
        print_suite(suite, console)
    print_left_out(results.left_out, console)
    print_paths(files, console)


def _at_home(parts: Sequence[Results]) -> Results:
    """Everything in the results folder that the parts are of; what was not asked for may be broken."""
    root = parts[0].root
    return parts[0] if same_folder(parts[0].path, root) else read_results(root, skip_broken=True)


def write_overview(
    grids: Sequence[Grid], together: Sequence[SuiteResult], to: Path, models: Collection[str]
) -> list[Path]:
    """Write what spans models and tasks: comparisons with published numbers, and the page.

    Args:
        grids: one per model and task.
        together: the suites they belong to.
        to: the report's folder.
        models: whose comparisons are files of their own; the page has those of all.

    Raises:
        OSError: a file cannot be written.
    """
    from harness.report.page.write import write_page  # Jinja and matplotlib take their time

    beside = beside_published(grids)
    asked = [(folder, document) for folder, document in beside if folder.parts[0] in models]
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
