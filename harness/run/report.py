"""The end of a run: tables, plots and the page, and the lines that tell what was computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.engine.request import contexts
from harness.errors import KvgaugeError
from harness.lock_files import waited_for
from harness.printing import say
from harness.report.overview import print_left_out, print_places, write_overview
from harness.report.suite_tables import print_suite, print_suite_end, write_suite_report
from harness.report.task_tables import print_end as print_task_end
from harness.report.task_tables import print_table, write_report
from harness.report.tracker import Finished, Tracker
from harness.results import SuiteResult, TaskResult
from harness.run.execute import Counts, has_more
from harness.run.execute import result as result_of
from harness.run.live import Live, tracked
from harness.run.prepare import Prepared
from harness.store.files import failed
from harness.store.reader import read_results, suites
from harness.store.run_log import read_runs
from harness.task import Suite


def report(tasks: Sequence[Prepared], suite: Suite | None, console: Console, wide: bool) -> list[Path]:
    """Write everything that is derived from records, then print the tables.

    Args:
        tasks: the tasks of a run, each with all of its records.
        suite: the suite that they belong to, if any.
        console: where to print.
        wide: print all tables with all columns, and not only what the end of a run has room for.

    Returns:
        The written files that are meant for readers.

    Raises:
        StoreError: a file cannot be written, or a process of another machine keeps others from writing it.
    """
    folder = tasks[0].run.folder_of_results / "report"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with waited_for(folder / ".lock"):  # two shards may both find the cells complete
            files, show = _write(tasks, suite, wide)
    except OSError as error:
        raise failed(folder, "written", error) from error
    show(console)
    return files


def print_end(tasks: Sequence[Prepared], counts: Counts, files: Sequence[Path], console: Console) -> None:
    """Print what was computed, the files written, and what is missing.

    Args:
        tasks: the tasks of a run, each with its records.
        counts: the work done by this process.
        files: the written files that are meant for readers.
        console: where to print.
    """
    prompts, cells = sum(len(task.own) for task in tasks), sum(len(task.manifests) for task in tasks)
    before_question = tasks[0].run.selection.after == "context"
    distinct = sum(len(contexts(task.own)) for task in tasks)
    of_contexts = f" on {distinct} context{'s' * (distinct != 1)}" if before_question else ""
    known = sum(prompt.example.id in by_id for task in tasks for by_id in task.records.values() for prompt in task.own)
    say(
        console,
        f"prompts: {prompts}{of_contexts}; prefills: {counts.prefills}; cells: {cells}; new records: {counts.records}, "
        f"decoded as {counts.decoded_rows} rows; from earlier runs: {known - counts.records}",
    )
    if counts.prefilled_tokens < counts.prompt_tokens:
        say(
            console,
            f"prefilled tokens: {counts.prefilled_tokens:,} of {counts.prompt_tokens:,}, the others shared",
        )
    if counts.question_tokens:
        say(console, f"tokens of questions, each row through its own cache: {counts.question_tokens:,}")
    print_places(files, console)
    run = tasks[0].run
    if waiting := [task for task in tasks if not task.whole]:
        say(
            console,
            f"shard {run.shard.index} of {run.shard.count} is done; scores come with the other shards "
            f"({len(waiting)} of {len(tasks)} tasks wait): kvgauge status {run.results}",
        )
    elif any(has_more(task) for task in tasks):
        say(
            console,
            f"these hold what this command asked for; {run.results} has more: kvgauge report {run.results}",
        )


def send(tasks: Sequence[Prepared], suite: Suite | None, tracker: Tracker, live: Live) -> str | None:
    """Give the grids to a tracker, after everything else: it can cost a run nothing, whatever happens to it.

    Args:
        tasks: the tasks of a run, each with all of its records.
        suite: the suite that they belong to, if any.
        tracker: logs the tables and plots that ``report`` has written.
        live: what the tracker has shown of the run so far.

    Returns:
        What went wrong, in one line; None if nothing did.
    """
    try:
        result = _grid([result_of(prepared) for prepared in tasks], suite)
        folder = tasks[0].run.folder_of_results / "report" / tasks[0].run.model
        names = [prepared.run.task.name for prepared in tasks]
        finished = Finished(
            result,
            {name: sorted((folder / name).glob("*.png")) for name in [*names, *([suite.name] if suite else [])]},
            {name: read_runs(prepared.folder) for name, prepared in zip(names, tasks, strict=True)},
        )
        tracker.log(tracked(tasks, suite), finished, live.hand_over())
    except KvgaugeError as error:
        return str(error)
    except Exception as error:  # of a tracker of one's own
        return f"the tracker failed ({type(error).__name__}: {error}): the records are whole; kvgauge wandb sends them"
    return None


def _grid(grids: Sequence[TaskResult], suite: Suite | None) -> TaskResult | SuiteResult:
    """The only grid, or those of a suite together."""
    if suite is None:
        return grids[0]
    by_name = {grid.task: grid for grid in grids}
    ordered = tuple(by_name[name] for name in suite.ordered(list(by_name)))
    return SuiteResult(grids[0].model, suite.name, ordered, tuple(suite.averages(list(by_name))))


def _write(tasks: Sequence[Prepared], suite: Suite | None, wide: bool) -> tuple[list[Path], Callable[[Console], None]]:
    """Write all files; returns those for readers, and what prints the tables."""
    grids = [result_of(prepared) for prepared in tasks]
    report = tasks[0].run.folder_of_results / "report" / grids[0].model
    files = [file for grid in grids for file in write_report(grid, report / grid.task)]
    whole = _grid(grids, suite)
    if isinstance(whole, SuiteResult):
        files = write_suite_report(whole, report / whole.suite)
        tables = partial(print_suite, whole, wide=True) if wide else partial(print_suite_end, whole)
    else:
        tables = partial(print_table, whole, wide=True) if wide else partial(print_task_end, whole)
    everything = read_results(report.parents[1], skip_broken=True)
    files += write_overview(everything.grids, suites(everything.grids), report.parent, {grids[0].model})

    def show(console: Console) -> None:
        tables(console)
        print_left_out(everything.left_out, console)

    return files, show
