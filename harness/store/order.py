"""The order of cells, the same in every table, plot and file: methods as they were configured, then budgets by size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.compression.budget import FULL, parse_budget
from harness.results import Cell, Manifest


def by_method(cells: Iterable[Cell]) -> list[Cell]:
    """Cells by method, in the order in which methods first appear, and then by the size of the budget."""
    cells = list(dict.fromkeys(cells))
    labels = list(dict.fromkeys(cell.label for cell in cells))
    return sorted(cells, key=lambda cell: (labels.index(cell.label), parse_budget(cell.budget).rank))


def in_order(manifests: Iterable[Manifest]) -> list[Cell]:
    """The cells of one or more tasks: methods by the smallest place of their cells, then budgets by size.

    Where two methods have one place, the one that keeps everything comes first, then the one that began earlier.
    """
    return by_method(manifest.cell for manifest in sorted(manifests, key=_rank))


def method_places(known: Iterable[Manifest], labels: Mapping[str, bool]) -> dict[str, int]:
    """The places of methods in their task.

    Methods that the task already has keep their places, and others come after them, in the order given. Only one that
    keeps everything and is the first of its run, as the full cache usually is, comes before all of them.

    Args:
        known: the manifests of the task's cells.
        labels: the methods of a run in their order, with whether each keeps everything.

    Returns:
        The place of every method in ``labels``, and of those in ``known``.
    """
    places: dict[str, int] = {}
    for manifest in known:
        places[manifest.cell.label] = min(manifest.place, places.get(manifest.cell.label, manifest.place))
    first, following = min(places.values(), default=0), max(places.values(), default=-1) + 1
    for index, (label, keeps_everything) in enumerate(labels.items()):
        if label not in places:
            places[label] = first if index == 0 and keeps_everything else following
            following = max(following, places[label] + 1)
    return places


def _rank(manifest: Manifest) -> tuple[int, bool, str, str]:
    cell, created = manifest.cell, str(manifest.provenance.get("created", ""))
    return (manifest.place, cell.budget != FULL.text, created, cell.label)
