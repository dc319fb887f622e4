"""``kvgauge list``: the names that ``method=``, ``model=``, ``task=`` and the other groups accept."""

from __future__ import annotations

import argparse

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.commands import add_own_paths
from harness.config.catalog import GROUPS, choices
from harness.config.outside import used

HELP = "List the methods, models, tasks, experiments or trackers that a run can name."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``list [GROUP] [--method-path FOLDER] [--task-path FOLDER]``."""
    parser.add_argument("what", nargs="?", choices=[*GROUPS.values()], help="leave it out for all")
    add_own_paths(parser, "method", "task")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print a table of names and descriptions for each group."""
    for group, plural in GROUPS.items():
        if arguments.what not in (None, plural):
            continue
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column(f"{group}=", no_wrap=True)
        table.add_column("")
        for choice in choices(group, used()):
            table.add_row(Text(choice.name), Text(choice.about))
        console.print(table)
        console.print()
    console.print("kvgauge show method pyramidkv: all knobs of one, with their sources", markup=False)
