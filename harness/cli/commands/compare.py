"""``kvgauge compare``: ours beside published numbers, or one of our results folders against another; from records, without a model."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from harness.errors import ConfigError, StoreError
from harness.report.compare.claims import claims_sheet
from harness.report.compare.differences import compare, unlike
from harness.report.compare.paired import paired_sheets
from harness.report.compare.published import Table, same_model, tables
from harness.report.compare.sheets import comparison_sheet
from harness.report.render import Sheet, print_sheet, write_sheet
from harness.store.reader import Grid, read_grids

HELP = "Put results beside published numbers, or two results folders side by side, paired by example."


def arguments(parser: argparse.ArgumentParser) -> None:
    """One results folder or two, and which published table."""
    parser.add_argument(
        "path", nargs="?", type=Path, default=Path("results"), help="a results folder, a model's, or a task's (default: results)"
    )
    parser.add_argument("other", nargs="?", type=Path, help="a second one, to be held against the first instead of published numbers")
    parser.add_argument("--model", help="the published model (default: the one that is called as ours)")
    parser.add_argument("--table", help="the published table, a file of results/published (default: the first that has the model)")
    parser.add_argument("--to", type=Path, help="where to write (default: PATH/report)")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Everything at or below the path that has a counterpart.

    Raises:
        ConfigError: nothing to compare with, or more than one thing.
        StoreError: there are no results, or the files cannot be written.
    """
    grids = read_grids(arguments.path)
    sheets: Iterable[tuple[Path, str, Sheet]]
    if arguments.other is None:
        sheets = _published(grids, arguments, console)
    elif arguments.model or arguments.table:
        raise ConfigError("--model and --table choose published numbers, and two results folders were given: leave them out, or one folder")
    else:
        sheets = paired_sheets(grids, read_grids(arguments.other), arguments.path, arguments.other)
    to = arguments.to or arguments.path / "report"
    sheets = list(sheets)
    files = write_sheets(sheets, to)
    for _, _, sheet in sheets:
        print_sheet(sheet, console)
        console.print()
    for file in files:
        console.print(str(file), markup=False, soft_wrap=True)


def beside_published(grids: Sequence[Grid]) -> list[tuple[Path, str, Sheet]]:
    """What ``kvgauge compare`` would write of some grids whose models are called as published ones are; nothing where none is.

    Returns:
        Folder below the report, stem of the files, sheet.
    """
    chosen = argparse.Namespace(model=None, table=None)
    ours = {_suite(grid) for grid in grids} & {table.suite for table in tables()}
    if not ours:
        return []
    try:
        return _published([grid for grid in grids if _suite(grid) in ours], chosen, Console(quiet=True))
    except ConfigError:  # no model of that name
        return []


def write_sheets(sheets: Iterable[tuple[Path, str, Sheet]], to: Path) -> list[Path]:
    """Write them below a folder.

    Raises:
        StoreError: the files cannot be written.
    """
    files = []
    for place, stem, sheet in sheets:
        try:
            files += write_sheet(sheet, to / place, stem)
        except OSError as error:
            raise StoreError(f"{to} cannot be written ({error.strerror}): choose another folder with --to") from error
    return files


def _published(grids: Sequence[Grid], arguments: argparse.Namespace, console: Console) -> list[tuple[Path, str, Sheet]]:
    """Each of our models and suites beside one table; what has no counterpart is left out and said to be."""
    models = list(dict.fromkeys(grid.result.model for grid in grids))
    if arguments.model and len(models) > 1:
        raise ConfigError(f"--model is one model, and {arguments.path} has {', '.join(models)}: give the folder of one of them")
    suites: dict[tuple[str, str], list[Grid]] = {}
    for grid in grids:
        suites.setdefault((grid.result.model, grid.task_config["name"]), []).append(grid)
    known = _tables(grids, arguments)
    sheets: list[tuple[Path, str, Sheet]] = []
    without: list[str] = []
    for (model, suite), parts in suites.items():
        tables = [table for table in known if table.suite == _suite(parts[0])]
        published = arguments.model or same_model(_names(parts), _models(tables))
        table = next((table for table in tables if published in table.models), None)
        if table is None or published is None:
            without.append(_nothing(model, suite, tables, arguments.model))
        elif (reason := unlike(parts, table)) is not None:
            without.append(reason)
        else:
            comparison = compare(parts, table, published)
            claims = claims_sheet(comparison)
            place = Path(model, suite, table.name)
            sheets += [(place, "compare", comparison_sheet(comparison)), *([(place, "claims", claims)] if claims else [])]
    if not sheets:
        raise ConfigError(without[0])
    for reason in without:
        console.print(f"left out: {reason}", markup=False, soft_wrap=True)
    return sheets


def _models(known: Sequence[Table]) -> list[str]:
    return list(dict.fromkeys(model for table in known for model in table.models))


def _nothing(model: str, suite: str, known: Sequence[Table], asked: str | None) -> str:
    """Why there is no table for one of our models and suites."""
    if not known:
        return f"nothing is published for task {suite}: compare it with a second results folder"
    fact = f"no published table of {known[0].suite} has {asked}" if asked else f"no published model of {known[0].suite} is called {model}"
    return f"{fact}: use --model with one of {', '.join(_models(known))}"


def _tables(grids: Sequence[Grid], arguments: argparse.Namespace) -> list[Table]:
    """The tables of our suites, or the one that was asked for."""
    ours = {_suite(grid) for grid in grids}
    known = [table for table in tables() if table.suite in ours]
    if not known:
        names = ", ".join(dict.fromkeys(grid.result.task for grid in grids))
        suites = ", ".join(dict.fromkeys(table.suite for table in tables()))
        raise ConfigError(f"nothing is published for task {names}: compare results of {suites}, or give a second folder")
    if arguments.table is None:
        return known
    chosen = [table for table in known if table.name == arguments.table]
    if not chosen:
        raise ConfigError(f"--table {arguments.table} is no published table of these tasks: use {', '.join(table.name for table in known)}")
    return chosen


def _suite(grid: Grid) -> str:
    """The benchmark, by the class of the task and not by its label."""
    return str(grid.task_config.get("_target_")).rpartition(".")[2].lower()


def _names(grids: Sequence[Grid]) -> list[str]:
    """What our model is called: its hub id, if it has one, and its name."""
    ids = [str(manifest.settings.get("model", {}).get("path", "")) for grid in grids for manifest in grid.manifests.values()]
    return [*dict.fromkeys(ids), grids[0].result.model]
