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
from harness.errors import StoreError
from harness.report.overview import print_left_out
from harness.report.task_tables import write_report
from harness.report.tracker import Tracker
from harness.store.reader import read_results
from harness.store.run_log import read_runs

HELP = "Build or repair the W&B runs of a results folder, from its records."
_SETTINGS = ("project", "entity", "mode", "dir")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a results folder or a part of one, and the settings of ``tracker=wandb``."""
    add_results_path(parser)
    settings = {
        "--project": "the W&B project",
        "--entity": "a team or user",
        "--mode": "online, offline or disabled",
        "--dir": "for W&B's files",
    }
    for flag, what in settings.items():
        parser.add_argument(flag, help=f"{what} (default: as in conf/tracker/wandb.yaml)")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Write one W&B run per cell at or below the path.

    Raises:
        StoreError: there are no results, or W&B's folder cannot be written.
        ConfigError: W&B refuses the settings.
    """
    results = read_results(arguments.path)
    tracker = _tracker(arguments, results.root)
    print_left_out(results.left_out, console)
    for grid in results.grids:
        result = grid.result
        try:
            with TemporaryDirectory() as folder:
                plots = [path for path in write_report(result, Path(folder)) if path.suffix == ".png"]
                tracker.log(result, grid.manifests, plots, read_runs(next(iter(grid.folders.values())).parent))
        except OSError as error:
            raise StoreError(
                f"W&B's files cannot be written ({error.strerror}): choose another folder with --dir"
            ) from error
        console.print(f"{result.model}/{result.task}: {len(result.cells)} W&B runs", markup=False, soft_wrap=True)


def _tracker(arguments: argparse.Namespace, results: Path) -> Tracker:
    """The tracker of ``conf/tracker/wandb.yaml``, with the settings given on the command line."""
    config = OmegaConf.create(
        {"results_dir": str(results), "tracker": OmegaConf.load(ROOT / "conf/tracker/wandb.yaml")}
    )
    given = {name: value for name in _SETTINGS if (value := getattr(arguments, name)) is not None}
    return cast(Tracker, build(OmegaConf.merge(config, {"tracker": given}).tracker))
