"""``kvgauge compare``: results beside published numbers, or two results folders paired by example."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness.cli.commands import add_results_path
from harness.errors import ConfigError, StoreError
from harness.printing import say
from harness.report.compare.gist import gist
from harness.report.compare.match import match
from harness.report.compare.paired import paired_documents
from harness.report.overview import print_left_out, print_paths, write_documents
from harness.report.terminal import show
from harness.store.places import same_folder
from harness.store.reader import Grid, Results, read_results

HELP = "Put results beside published numbers, or two results folders side by side, paired by example."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare one or two results folders, and the published model and table."""
    add_results_path(parser)
    parser.add_argument(
        "other", nargs="?", type=Path, help="a second one, to be held against the first instead of published numbers"
    )
    parser.add_argument("--model", help="the published model (default: the one that is called as ours)")
    parser.add_argument(
        "--table", help="the published table, a file of results/published (default: the first that has the model)"
    )
    parser.add_argument("--to", type=Path, help="where to write (default: the results folder's own report)")
    parser.add_argument("--wide", action="store_true", help="print all tables (default: their gist)")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Compare everything at or below the path that has a counterpart.

    Raises:
        ConfigError: there is nothing to compare with, or it is ambiguous.
        StoreError: there are no results, or the files cannot be written.
    """
    results = read_results(arguments.path)
    grids = results.grids
    not_read = [*results.left_out]
    left_out: list[str] = []
    if arguments.other is None:
        documents, left_out = match(_whole_suites(results), arguments.model, arguments.table)
    elif arguments.model or arguments.table:
        raise ConfigError(
            "--model and --table choose published numbers, and two results folders were given: leave them out, or "
            "one folder"
        )
    else:
        other = read_results(arguments.other)
        not_read += other.left_out
        documents = list(paired_documents(grids, other.grids, arguments.path, arguments.other))
    for reason in left_out:
        say(console, f"left out: {reason}", indent="  ")
    to = arguments.to or results.root / "report"
    try:
        files = write_documents(documents, to)
    except OSError as error:
        raise StoreError(f"{to} cannot be written ({error.strerror}): choose another folder with --to") from error
    for _, document in documents:
        if arguments.wide:
            show(document, console, wide=True)
            console.print()
        else:
            console.print(gist(document), markup=False, soft_wrap=True)
    print_left_out(not_read, console)
    print_paths([file for file in files if file.suffix == ".md"], console)


def _whole_suites(results: Results) -> Sequence[Grid]:
    """The grids that were read, with the other tasks of their suites, so that a sheet never has a part of a suite."""
    if same_folder(results.path, results.root):
        return results.grids
    asked = {(grid.result.model, grid.task_config["name"]) for grid in results.grids}
    everything = read_results(results.root, skip_broken=True).grids
    return [grid for grid in everything if (grid.result.model, grid.task_config["name"]) in asked]
