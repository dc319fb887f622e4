"""The report of a whole results folder: what ``kvgauge report`` and the end of a run share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from rich.console import Console

from harness.errors import StoreError
from harness.printing import say
from harness.report.compare.match import beside_published
from harness.report.document import Document
from harness.report.render import write
from harness.report.suite_tables import print_suite, print_suite_end, write_suite_report
from harness.report.task_tables import print_end, print_table, write_report
from harness.results import SuiteResult, TaskResult
from harness.store.places import LeftOut, same_folder
from harness.store.reader import Grid, Results, read_results, suites


def rebuild(paths: Sequence[Path], to: Path | None, console: Console, wide: bool = False) -> None:
    """Write and print the report of every grid and suite at or below some folders.

    In the report of the results folder, a task and a suite are always written whole, and the page has everything that
    the results folder holds, whatever part of it is asked for. A report that is written elsewhere has this part alone.

    Args:
        paths: parts of one results folder.
        to: where to write; None for the results folder's own ``report``.
        console: where to print.
        wide: whether all columns of the tables are printed.

    Raises:
        StoreError: there are no results, or the report cannot be written.
    """
    parts = [read_results(path) for path in paths]
    home = parts[0].root / "report"
    results = at_home(parts) if to is None or same_folder(to, home) else parts[0]
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
        print_table(result, console, wide)
    for suite in shown:
        print_suite(suite, console, wide)
    print_left_out(results.left_out, console)
    print_places(files, console)


def at_home(parts: Sequence[Results]) -> Results:
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
        say(console, f"left out: {one.reason}", indent="  ")


def print_paths(files: Iterable[Path], console: Console) -> None:
    """Print one path a line, however long."""
    for file in files:
        console.print(str(file), markup=False, soft_wrap=True)


def print_ends(results: Path, since: float, console: Console) -> None:
    """Print the end of the runs that other processes have made in a results folder: scores, and where the rest is.

    Of several tasks it shows the first one or the first suite.

    Args:
        results: the results folder, whose report they have written.
        since: only tasks that were worked on since then, in seconds since 1970; all of them if there are none.
        console: where to print.
    """
    grids = read_results(results, skip_broken=True).grids
    worked_on = [grid for grid in grids if any(run.stat().st_mtime >= since - 1 for run in _logs(grid))]
    chosen = [grid.result for grid in worked_on or grids]
    together = [suite for suite in suites(grids) if any(task in chosen for task in suite.tasks)]
    parts = {(suite.model, task.task) for suite in together for task in suite.tasks}
    places = [results / "report" / suite.model / suite.suite for suite in together]
    alone = [result for result in chosen if (result.model, result.task) not in parts]
    places += [results / "report" / result.model / result.task for result in alone]
    if together:
        print_suite_end(together[0], console)
    elif alone:
        print_end(alone[0], console)
    if len(places) == 1:
        print_places([places[0] / "table.md"], console)
    else:
        say(console, f"tables and plots of this and of {len(places) - 1} more: kvgauge report {results}")
    print_places([results / "report/index.html"], console)


def _logs(grid: Grid) -> list[Path]:
    return sorted(next(iter(grid.folders.values())).parent.glob("runs.*.jsonl"))


def print_places(files: Sequence[Path], console: Console) -> None:
    """Print the folders of written files, and the page with its whole path."""
    pages = [file for file in files if file.suffix == ".html"]
    for folder in dict.fromkeys(file.parent for file in files if file not in pages):
        console.print(f"tables and plots: {folder}", markup=False, soft_wrap=True)
    for page in pages:
        console.print(f"page: {page}", markup=False, soft_wrap=True)
