"""``kvgauge report``: tables, plots and the page, made from records at any time and without a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from harness.cli.commands import add_results_path
from harness.report.overview import rebuild

HELP = "Write the tables and plots of a results folder again, from its records."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a results folder or a part of one, and where to write."""
    add_results_path(parser)
    parser.add_argument(
        "--to", type=Path, help="where to write a report of PATH alone (default: the results folder's own report)"
    )
    parser.add_argument("--wide", action="store_true", help="print all columns (default: what fits into 100)")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Write the report of everything at or below the path, and the page of the whole results folder.

    Raises:
        StoreError: there are no results, or the report cannot be written.
    """
    rebuild([arguments.path], arguments.to, console, arguments.wide)
