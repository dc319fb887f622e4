"""The end of a run: tables, plots and the page, and the lines that tell what was computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from rich.console import Console

from harness.errors import StoreError
from harness.report.overview import print_left_out, write_overview
from harness.report.suite_tables import print_suite, write_suite_report
from harness.report.task_tables import print_table, write_report
from harness.report.tracker import Tracker
from harness.results import SuiteResult
from harness.run.execute import Counts, has_more, result
from harness.run.prepare import Prepared
from harness.store.reader import read_results, suites
from harness.store.run_log import read_runs
from harness.task import Suite


def report(tasks: Sequence[Prepared], suite: Suite | None, tracker: Tracker, console: Console) -> list[Path]:
    """Print and write everything that is derived from records.

    Args:
        tasks: the tasks of a run, each with all of its records.
        suite: the suite that they belong to, if any.
        tracker: logs the tables and plots, too.
        console: where to print.

    Returns:
        The written files that are meant for readers.

    Raises:
        StoreError: a file cannot be written.
    """
    folder = tasks[0].run.folder_of_results / "report"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # two shards may both find the cells complete
            return _report(tasks, suite, tracker, console)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written ({error.strerror}): make room; the records are kept, run the same command "
            "again"
        ) from error


def print_end(tasks: Sequence[Prepared], counts: Counts, files: Sequence[Path], console: Console) -> None:
    """Print what was computed, the files written, and what is missing.

    Args:
        tasks: the tasks of a run, each with its records.
        counts: the work done by this process.
        files: the written files that are meant for readers.
        console: where to print.
    """
    prompts, cells = sum(len(task.own) for task in tasks), sum(len(task.manifests) for task in tasks)
    known = sum(prompt.example.id in by_id for task in tasks for by_id in task.records.values() for prompt in task.own)
    console.print(
        f"prompts: {prompts}; prefills: {counts.prefills}; cells: {cells}; new records: {counts.records}, decoded as "
        f"{counts.decoded_rows} rows; from earlier runs: {known - counts.records}",
        soft_wrap=True,
    )
    if counts.prefilled_tokens < counts.prompt_tokens:
        console.print(
            f"prefilled tokens: {counts.prefilled_tokens:,} of {counts.prompt_tokens:,}, the others shared",
            soft_wrap=True,
        )
    for path in files:
        console.print(str(path), markup=False, soft_wrap=True)
    run = tasks[0].run
    if waiting := [task for task in tasks if not task.whole]:
        console.print(
            f"shard {run.shard.index} of {run.shard.count} is done; scores come with the other shards "
            f"({len(waiting)} of {len(tasks)} tasks wait): kvgauge status {run.results}",
            markup=False,
            soft_wrap=True,
        )
    elif any(has_more(task) for task in tasks):
        console.print(
            f"these hold what this command asked for; {run.results} has more: kvgauge report {run.results}",
            markup=False,
            soft_wrap=True,
        )


def _report(tasks: Sequence[Prepared], suite: Suite | None, tracker: Tracker, console: Console) -> list[Path]:
    grids = [result(prepared) for prepared in tasks]
    report = tasks[0].run.folder_of_results / "report" / grids[0].model
    files: list[Path] = []
    for prepared, grid in zip(tasks, grids, strict=True):
        written = write_report(grid, report / grid.task)
        tracker.log(
            grid, prepared.manifests, [path for path in written if path.suffix == ".png"], read_runs(prepared.folder)
        )
        files += written
    if suite is not None:
        by_name = {grid.task: grid for grid in grids}
        ordered = tuple(by_name[name] for name in suite.ordered(list(by_name)))
        whole = SuiteResult(grids[0].model, suite.name, ordered, tuple(suite.averages(list(by_name))))
        files = write_suite_report(whole, report / suite.name)
        print_suite(whole, console)
    else:
        print_table(grids[0], console)
    everything = read_results(report.parents[1], skip_broken=True)
    print_left_out(everything.left_out, console)
    return files + write_overview(everything.grids, suites(everything.grids), report.parent, grids[0].model)
