"""A run: the composed configuration to objects, records, tables, the page. What is heavy to import is imported here and below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness.cli.commands.report import write_overview
from harness.config.build import build
from harness.engine import tensor_parallel
from harness.errors import StoreError
from harness.report.suite_tables import print_suite, write_suite_report
from harness.report.task_tables import print_table, write_report
from harness.report.tracker import Tracker
from harness.results import SuiteResult
from harness.run.configure import runs
from harness.run.execute import Counts, execute, follow, has_more, result
from harness.run.prepare import Prepared, prepare
from harness.run.preview import print_preview
from harness.run.signals import Relay, Stop
from harness.store.reader import read_grids, suites
from harness.store.run_log import read_runs
from harness.task import Suite


def run(config: DictConfig) -> bool:
    """One run of a composed configuration.

    Returns:
        Whether every example that this process was asked for has a result in every cell.

    Raises:
        KvgaugeError: it cannot be done; what was finished is kept.
    """
    with tensor_parallel.joined(OmegaConf.select(config, "model.tp_plan")):
        if tensor_parallel.is_first():
            with Stop() as stop:
                whole = _run(config, stop)
            tensor_parallel.say(None)
            return whole
        with Relay() as relay:
            asked, _ = tensor_parallel.together(lambda: runs(config))
            follow(asked, relay)
    return True


def _run(config: DictConfig, stop: Stop) -> bool:
    console = Console(highlight=False)
    asked, suite = tensor_parallel.together(lambda: runs(config))
    tracker: Tracker = build(config.tracker)
    tasks = [prepare(run) for run in asked]
    if config.dry_run:
        for prepared in tasks:
            print_preview(prepared, console)
        return True
    tasks, counts = execute(tasks, console, stop)
    results = tasks[0].run.results
    files: list[Path] = []
    if all(prepared.whole for prepared in tasks):
        try:
            (results / "report").mkdir(parents=True, exist_ok=True)
            with FileLock(results / "report" / ".lock"):  # two shards may find the cells whole
                files = _report(tasks, suite, tracker, console)
        except OSError as error:
            raise StoreError(
                f"{results / 'report'} cannot be written ({error.strerror}): make room; the records are kept, run the same command again"
            ) from error
    _print_end(tasks, counts, files, console)
    return all(prepared.done for prepared in tasks)


def _report(tasks: Sequence[Prepared], suite: Suite | None, tracker: Tracker, console: Console) -> list[Path]:
    """Print and write everything that is derived from records.

    Returns:
        The files that matter to a reader.

    Raises:
        OSError: a file cannot be written.
    """
    grids = [result(prepared) for prepared in tasks]
    report = tasks[0].run.results / "report" / grids[0].model
    files: list[Path] = []
    for prepared, grid in zip(tasks, grids, strict=True):
        written = write_report(grid, report / grid.task)
        tracker.log(grid, prepared.manifests, [path for path in written if path.suffix == ".png"], read_runs(prepared.folder))
        files += written
    if suite is not None:
        by_name = {grid.task: grid for grid in grids}
        ordered = tuple(by_name[name] for name in suite.ordered(list(by_name)))
        whole = SuiteResult(grids[0].model, suite.name, ordered, tuple(suite.averages(list(by_name))))
        files = write_suite_report(whole, report / suite.name)
        print_suite(whole, console)
    else:
        print_table(grids[0], console)
    everything = read_grids(report.parents[1])
    return files + write_overview(everything, suites(everything), report.parent, grids[0].model)


def _print_end(tasks: Sequence[Prepared], counts: Counts, files: list[Path], console: Console) -> None:
    prompts, cells = sum(len(task.own) for task in tasks), sum(len(task.manifests) for task in tasks)
    known = sum(prompt.example.id in of for task in tasks for of in task.records.values() for prompt in task.own)
    console.print(
        f"prompts: {prompts}; prefills: {counts.prefills}; cells: {cells}; new records: {counts.records}, decoded as "
        f"{counts.decoded_rows} rows; from earlier runs: {known - counts.records}",
        soft_wrap=True,
    )
    if counts.prefilled_tokens < counts.prompt_tokens:
        console.print(f"prefilled tokens: {counts.prefilled_tokens:,} of {counts.prompt_tokens:,}, the others shared", soft_wrap=True)
    for path in files:
        console.print(str(path), markup=False, soft_wrap=True)
    run = tasks[0].run
    if waiting := [task for task in tasks if not task.whole]:
        console.print(
            f"shard {run.shard.index} of {run.shard.count} is done; scores come with the other shards ({len(waiting)} of {len(tasks)} "
            f"tasks wait): kvgauge status {run.results}",
            markup=False,
            soft_wrap=True,
        )
    elif any(has_more(task) for task in tasks):
        console.print(
            f"these hold what this command asked for; {run.results} has more: kvgauge report {run.results}", markup=False, soft_wrap=True
        )
