"""``kvgauge score``: all scores computed again, from records alone."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.cli.commands import add_results_path
from harness.config.build import parse_settings
from harness.errors import ConfigError
from harness.report.overview import rebuild
from harness.report.stats.summary import cell_summary
from harness.store.cells import CellWriter, replace_manifests
from harness.store.places import find_cells
from harness.store.reader import read_results
from harness.store.rescoring import recorded_task, rescored, with_scoring

HELP = "Score the records of a results folder again, without a model and without data, and write its report again."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a results folder or a part of one, and scoring settings."""
    add_results_path(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="task.KNOB=VALUE",
        help="score in another way, as task.code_similarity=levenshtein",
    )


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Score every cell at or below the path again, and write the report.

    Raises:
        ConfigError: a setting cannot be changed, or cannot have this value.
        KvgaugeError: there are no results, or a cell's task cannot be built.
    """
    if arguments.set:
        _change(arguments.path, parse_settings(arguments.set))
    total = changed = 0
    for grid in read_results(arguments.path).grids:
        for cell in grid.result.cells:
            manifest, folder = grid.manifests[cell.cell], grid.folders[cell.cell]
            task = recorded_task(manifest, folder)
            again = [rescored(record, task) for record in cell.records]
            different = [new for new, old in zip(again, cell.records, strict=True) if new.scores != old.scores]
            with closing(CellWriter(folder, manifest)) as writer:
                if different:
                    writer.append(different)
                writer.finish(cell_summary(replace(cell, records=tuple(again)), grid.result.metrics))
            total += len(again)
            changed += len(different)
    rebuild(arguments.path, arguments.path / "report", console)
    console.print(f"scored {total} records again: {changed} changed")


def _change(path: Path, values: Mapping[str, Any]) -> None:
    """Write manifests with other scoring settings: for all cells or, if one cannot be changed, for none.

    Cells that already have these settings are left alone, so that the same command finishes one that was stopped.
    """
    manifests = find_cells(path).manifests
    if path in manifests:
        raise ConfigError(f"{path} is one cell, and all cells of a task are scored alike: give {path.resolve().parent}")
    wanted = {folder: with_scoring(manifest, folder, values) for folder, manifest in manifests.items()}
    replace_manifests({folder: manifest for folder, manifest in wanted.items() if manifest != manifests[folder]})
