"""Our results beside published numbers: which table each of our models and suites is held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.report.compare.claims import claims_document
from harness.report.compare.differences import compare, unlike
from harness.report.compare.published import Table, same_model, tables
from harness.report.compare.sheets import comparison_document
from harness.report.document import Document
from harness.store.reader import Grid


def beside_published(grids: Sequence[Grid]) -> list[tuple[Path, Document]]:
    """The comparisons of all grids whose models are called as published ones are; nothing where none is.

    Returns:
        Folder below the report, and document.
    """
    published = {table.suite for table in tables()}
    ours = [grid for grid in grids if _suite(grid) in published]
    if not ours:
        return []
    try:
        return match(ours)[0]
    except ConfigError:  # no model of that name
        return []


def match(
    grids: Sequence[Grid], model: str | None = None, table: str | None = None
) -> tuple[list[tuple[Path, Document]], list[str]]:
    """Each of our models and suites beside one published table.

    Args:
        grids: ours; if ``model`` is given and they are of several models, only the one that is called so.
        model: the published model; None for the one that is called as ours.
        table: the name of the published table; None for the first that has the model.

    Returns:
        (folder below the report, document) of each, and why others have no counterpart.

    Raises:
        ConfigError: there is no such table, none of ours has a counterpart, or several of ours could be ``model``.
    """
    if model is not None:
        grids = _of_model(grids, model)
    suites: dict[tuple[str, str], list[Grid]] = {}
    for grid in grids:
        suites.setdefault((grid.result.model, grid.task_config["name"]), []).append(grid)
    known = _tables(grids, table)
    documents: list[tuple[Path, Document]] = []
    without: list[str] = []
    for (ours, suite), parts in suites.items():
        candidates = [one for one in known if one.suite == _suite(parts[0])]
        published = model or same_model(_names(parts), _models(candidates))
        chosen = next((one for one in candidates if published in one.models), None)
        if chosen is None or published is None:
            without.append(_nothing(ours, suite, candidates, model))
        elif (reason := unlike(parts, chosen)) is not None:
            without.append(reason)
        else:
            comparison = compare(parts, chosen, published)
            both = [comparison_document(comparison), claims_document(comparison)]
            documents += [(Path(ours, suite, chosen.name), document) for document in both if document is not None]
    if not documents:
        raise ConfigError("; ".join(dict.fromkeys(without)))
    return documents, without


def _of_model(grids: Sequence[Grid], model: str) -> Sequence[Grid]:
    """The grids of one model of ours: the only one or, of several, the one that is called as the published one."""
    by_model: dict[str, list[Grid]] = {}
    for grid in grids:
        by_model.setdefault(grid.result.model, []).append(grid)
    if len(by_model) == 1:
        return grids
    called = [parts for parts in by_model.values() if same_model(_names(parts), [model])]
    if len(called) != 1:
        raise ConfigError(
            f"--model is one model, and {len(called) or 'none'} of {', '.join(by_model)} is called {model}: give the "
            "folder of one of them"
        )
    return called[0]


def _models(known: Sequence[Table]) -> list[str]:
    return list(dict.fromkeys(model for table in known for model in table.models))


def _nothing(model: str, suite: str, known: Sequence[Table], asked: str | None) -> str:
    """Why there is no table for one of our models and suites."""
    if not known:
        return f"nothing is published for task {suite}: compare it with a second results folder"
    fact = (
        f"no published table of {known[0].suite} has {asked}"
        if asked
        else f"no published model of {known[0].suite} is called {model}"
    )
    return f"{fact}: use --model with one of {', '.join(_models(known))}"


def _tables(grids: Sequence[Grid], name: str | None) -> list[Table]:
    """The tables of our suites, or the one of this name."""
    ours = {_suite(grid) for grid in grids}
    known = [table for table in tables() if table.suite in ours]
    if not known:
        tasks = ", ".join(dict.fromkeys(grid.result.task for grid in grids))
        suites = ", ".join(dict.fromkeys(table.suite for table in tables()))
        raise ConfigError(
            f"nothing is published for task {tasks}: compare results of {suites}, or give a second folder"
        )
    if name is None:
        return known
    chosen = [table for table in known if table.name == name]
    if not chosen:
        raise ConfigError(
            f"--table {name} is no published table of these tasks: use {', '.join(table.name for table in known)}"
        )
    return chosen


def _suite(grid: Grid) -> str:
    """The benchmark, by the class of the task and not by its label."""
    return str(grid.task_config.get("_target_")).rpartition(".")[2].lower()


def _names(grids: Sequence[Grid]) -> list[str]:
    """What our model is called: its hub id, if it has one, and its name."""
    ids = [
        str(manifest.settings.get("model", {}).get("path", ""))
        for grid in grids
        for manifest in grid.manifests.values()
    ]
    return [*dict.fromkeys(ids), grids[0].result.model]
