"""``kvgauge leaderboard``: the methods of a model ranked over all tasks of a results folder."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from harness.cli.commands import add_results_path
from harness.errors import StoreError
from harness.report.leaderboard import groups, leaderboard, parse_retentions, shared_retentions, write_leaderboard
from harness.report.method_costs import read_costs
from harness.report.overview import print_left_out, print_paths
from harness.report.terminal import show
from harness.store.reader import read_results, suites

HELP = "Rank the methods of a results folder over all of its tasks, at equal retention."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a results folder or a model's, where methods are compared, and where to write."""
    add_results_path(parser)
    parser.add_argument("--at", help="where to compare, such as 10%%,25%% (default: the shares that are budgets)")
    parser.add_argument("--against", default="", metavar="METHOD", help="hold methods against this one, too")
    parser.add_argument("--to", type=Path, help="where to write (default: report in the results folder)")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Write and print one leaderboard per model at or below the path.

    Raises:
        StoreError: there are no results to rank, or a file cannot be written.
        ConfigError: ``--at`` names no retentions.
    """
    from harness.report.page.write import write_board_page  # Jinja and matplotlib take their time

    asked = parse_retentions(arguments.at) if arguments.at is not None else None
    found = read_results(arguments.path)
    together = suites(found.grids)
    for model in dict.fromkeys(grid.result.model for grid in found.grids):
        grids = [grid for grid in found.grids if grid.result.model == model]
        of_model = [suite for suite in together if suite.model == model]
        named, notes = groups([grid.result for grid in grids], of_model)
        members = [result for parts in named.values() for result in parts]
        retentions = asked or shared_retentions(members)
        costs = read_costs(found.root, model)
        board = leaderboard(model, named, retentions, arguments.against, costs, notes)
        folder = (arguments.to or found.root / "report") / model
        try:
            files = write_leaderboard(board, folder)
            files.append(write_board_page(board, model, grids, of_model, folder / "leaderboard.html"))
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be written ({error.strerror}): choose another folder with --to"
            ) from error
        # Those of single tasks are in the files.
        show(replace(board.document, tables=board.document.tables[:1]), console)
        print_paths(files, console)
    print_left_out(found.left_out, console)
