"""``kvgauge data``: a benchmark's data files, fetched and checked before a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.config.build import build, task_config
from harness.errors import ConfigError, DataError
from harness.printing import say
from harness.report.format import DASH
from harness.task import DataFile, DataSource

HELP = "Fetch the data of a task and verify it, or tell what a copy of it holds."
_CHECK = "check"
_TASKS = "longbench, longbench_v2, math500, gsm8k, aime24 or ifeval"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``data TASK`` and ``data check PATH``."""
    parser.add_argument(
        "what",
        metavar="TASK|check",
        help=f"{_TASKS}: fetch and verify its data; check: what PATH holds",
    )
    parser.add_argument(
        "path", nargs="?", type=Path, help="with check: a folder of .jsonl files, a data.zip, a data.json"
    )
    parser.add_argument("--task", default="longbench", help="with check: whose data it is (default: longbench)")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print a table of all files, then one line for each that is wrong.

    Raises:
        ConfigError: the task has no data files, or a path is missing or superfluous.
        DataError: the data cannot be fetched, is missing, or is not what was published.
    """
    what, path = arguments.what, arguments.path
    if what == _CHECK:
        if path is None:
            raise ConfigError("kvgauge data check got no path: give a folder or a zip")
        if not path.exists():
            raise DataError(f"{path} does not exist: give a folder or a zip")
        _show(path, _source(arguments.task).survey(path), console, whole=False)
    elif path is not None:
        raise ConfigError(f"kvgauge data {what} takes no path: look at {path} with kvgauge data check {path}")
    else:
        source = _source(what)
        fetched = source.fetch()
        _show(fetched, source.survey(fetched), console, whole=True)


def _source(task: str) -> DataSource:
    built = build(task_config(task))
    if not isinstance(built, DataSource):
        raise ConfigError(f"task={task} has no data files to fetch or check: use {_TASKS}")
    return built


def _show(path: Path, files: Sequence[DataFile], console: Console, whole: bool) -> None:
    """Print the table.

    Args:
        path: the folder or zip.
        files: the files that the task knows, with the records found in each.
        console: where to print.
        whole: whether a missing file counts as wrong.

    Raises:
        DataError: a file is wrong, or all are missing.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header in ("file", "records", "published"):
        table.add_column(header, justify="left" if header == "file" else "right")
    for file in files:
        table.add_row(Text(file.name), DASH if file.found is None else str(file.found), str(file.expected))
    console.print(Text(str(path), style="bold"), soft_wrap=True)
    console.print(table, crop=False)
    for file in files:
        if file.problem is not None:
            say(console, file.problem, indent="  ")
    wrong = [file for file in files if file.problem is not None]
    missing = [file for file in files if file.found is None and file.problem is None]
    if len(missing) == len(files):
        raise DataError(
            f"{path} holds none of the {len(files)} files: give the folder or zip that holds {files[0].name}"
        )
    if wrong or (whole and missing):
        absent = f" and {len(missing)} not there" if whole and missing else ""
        raise DataError(
            f"{path}: {len(wrong)} of {len(files)} files are wrong{absent}: replace them, or leave their datasets out"
        )
    console.print(f"{len(files) - len(missing)} of {len(files)} files are there, as published")
