"""``kvgauge list``: the names that ``method=``, ``model=``, ``task=`` and the other groups accept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.commands import add_own_paths
from harness.config.catalog import GROUPS, Choice, choices
from harness.config.outside import used
from harness.printing import lines, width_of

_NEEDS = {
    "nothing": "needs positions alone",
    "keys": "needs keys",
    "values": "needs values",
    "queries": "needs queries",
    "attention": "needs attention",
    "scorer": "around another method's scorer",
    "layers": "needs all layers",
    "replay": "reads the context again",
    "file": "needs a file",
    "": "does not say what it needs",
    "lists": "lists of methods",
}
"""What methods are grouped by, the least demanding first: a word of their line ``# needs:``, and the group's title."""
HELP = "List the methods, storages, models, tasks, experiments or trackers that a run can name."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``list [GROUP] [--method-path FOLDER] [--task-path FOLDER]``."""
    parser.add_argument("what", nargs="?", choices=[*GROUPS.values()], help="leave it out for all")
    add_own_paths(parser, "method", "task")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print a table of names and descriptions for each group."""
    for group, plural in GROUPS.items():
        if arguments.what not in (None, plural):
            continue
        found = choices(group, used())
        if group == "method":
            _print_methods(found, console)
        else:
            console.print(_table(group, found))
        console.print()
    console.print("kvgauge show method pyramidkv: all knobs of one, with their sources", markup=False)


def _table(group: str, found: Sequence[Choice]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(f"{group}=", no_wrap=True)
    table.add_column("")
    for choice in found:
        table.add_row(Text(choice.name), Text(choice.about))
    return table


def _print_methods(found: Sequence[Choice], console: Console) -> None:
    """Print methods by what they need, each with its paper and year and, on lines below, a phrase."""
    console.print("method=", style="bold")
    wide = max(len(choice.name) for choice in found)
    papers = max(len(choice.paper) for choice in found)
    for title, belongs in _NEEDS.items():
        group = [choice for choice in found if _need(choice) == title]
        if group:
            console.print(Text(f"\n{belongs}", style="bold"))
        for choice in group:
            about, _, _ = choice.module_doc.partition("\n\n")
            about = " ".join(about.split()) if choice.target else choice.about
            if "reading of kvpress" in choice.text:
                about += " Reading of kvpress."
            paper = f"{choice.name:<{wide}}  {choice.paper:<{papers}}  {choice.year}".rstrip()
            console.print(Text(paper), soft_wrap=True)
            phrase = "\n".join(f"    {line}" for line in lines(about, width_of(console) - 4))
            console.print(Text(phrase), soft_wrap=True)


def _need(choice: Choice) -> str:
    """The most demanding thing that a method needs; "" if its file does not say."""
    if not choice.target:
        return "lists"
    return next((need for need in reversed(_NEEDS) if need and need in choice.needs), "")
