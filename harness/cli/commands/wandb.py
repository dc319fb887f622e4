"""``kvgauge wandb``: the W&B runs of a results folder, created or repaired from its records."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from omegaconf import OmegaConf
from rich.console import Console

from harness.cli.commands import add_results_path
from harness.config.build import build
from harness.config.catalog import ROOT
from harness.printing import say
from harness.report.overview import at_home, print_left_out
from harness.report.suite_tables import write_suite_report
from harness.report.task_tables import write_report
from harness.report.tracker import Finished, Tracked
from harness.report.wandb import Wandb
from harness.results import SuiteResult, TaskResult
from harness.store.reader import Grid, read_results, suites
from harness.store.run_log import read_runs

HELP = "Build or repair the W&B runs of a results folder, from its records."
_SETTINGS = ("project", "entity", "mode", "per", "dir")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a results folder or a part of one, and the settings of ``tracker=wandb``."""
    add_results_path(parser)
    settings = {
        "--project": "the W&B project",
        "--entity": "a team or user",
        "--mode": "online, offline or disabled",
        "--per": "grid or cell: what a W&B run is",
        "--dir": "for W&B's files",
    }
    for flag, what in settings.items():
        parser.add_argument(flag, help=f"{what} (default: as in conf/tracker/wandb.yaml)")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Write the W&B runs of what is at or below the path: cells, or the whole of every grid that has some there.

    Raises:
        StoreError: there are no results, or W&B's folder cannot be written.
        ConfigError: a setting that cannot be used.
        TrackerError: W&B cannot be reached, or refuses the results.
    """
    part = read_results(arguments.path)
    tracker = _tracker(arguments, part.root)
    results = at_home([part]) if tracker.per == "grid" else part
    asked = {(grid.result.model, grid.result.task) for grid in part.grids}
    print_left_out(results.left_out, console)
    together = suites(results.grids) if tracker.per == "grid" else []
    in_suites = {(suite.model, task.task) for suite in together for task in suite.tasks}
    alone = [grid.result for grid in results.grids if (grid.result.model, grid.result.task) not in in_suites]
    by_task = {(grid.result.model, grid.result.task): grid for grid in results.grids}
    everything: list[TaskResult | SuiteResult] = [*alone, *together]
    for result in everything:
        tasks = result.tasks if isinstance(result, SuiteResult) else (result,)
        grids = {task.task: by_task[task.model, task.task] for task in tasks}
        if asked.isdisjoint((result.model, name) for name in grids):
            continue
        name = result.suite if isinstance(result, SuiteResult) else result.task
        manifests = {task: grid.manifests for task, grid in grids.items()}
        with TemporaryDirectory() as folder:
            tracker.log(Tracked(result.model, name, manifests), _finished(result, grids, Path(folder)))
        runs = 1 if tracker.per == "grid" else sum(map(len, manifests.values()))
        say(console, f"{result.model}/{name}: {runs} W&B run{'s' * (runs > 1)}")
    if tracker.is_offline:
        say(
            console, f"offline, in {tracker.dir}/wandb: `wandb sync <folder>` sends the newest of each run", indent="  "
        )


def _finished(result: TaskResult | SuiteResult, grids: dict[str, Grid], folder: Path) -> Finished:
    """The results with their plots, which are drawn into a folder."""
    written = {name: write_report(grid.result, folder / name) for name, grid in grids.items()}
    if isinstance(result, SuiteResult):
        written[result.suite] = write_suite_report(result, folder / result.suite)
    plots = {name: [file for file in files if file.suffix == ".png"] for name, files in written.items()}
    runs = {name: read_runs(next(iter(grid.folders.values())).parent) for name, grid in grids.items()}
    return Finished(result, plots, runs)


def _tracker(arguments: argparse.Namespace, results: Path) -> Wandb:
    """The tracker of ``conf/tracker/wandb.yaml``, with the settings given on the command line."""
    config = OmegaConf.create(
        {"results_dir": str(results), "tracker": OmegaConf.load(ROOT / "conf/tracker/wandb.yaml")}
    )
    given = {name: value for name in _SETTINGS if (value := getattr(arguments, name)) is not None}
    return cast(Wandb, build(OmegaConf.merge(config, {"tracker": given}).tracker))
