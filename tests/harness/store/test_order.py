"""One order of cells everywhere, however the grid grew."""

from __future__ import annotations

import json
import re
from itertools import permutations
from pathlib import Path

import pandas as pd
import pytest
from msgspec import structs

from harness.api import read
from harness.report.stats.heatmap import panel_rows
from harness.results import Cell, Manifest
from harness.store.manifest import read_manifest
from harness.store.order import by_method, in_order, method_places
from tests.conftest import Command
from tests.harness.store.test_cells import MANIFEST


def manifest(label: str, budget: str, place: int, created: str = "") -> Manifest:
    return structs.replace(MANIFEST, cell=Cell(label, budget), place=place, provenance={"created": created})


def test_budgets_come_by_size_entries_before_shares_and_the_full_cache_last() -> None:
    budgets = ("8", "32", "128", "1024", "2.5%", "12%", "100%", "full")
    for order in (reversed(budgets), sorted(budgets)):
        assert [cell.budget for cell in by_method(Cell("a", budget) for budget in order)] == list(budgets)


def test_methods_come_by_the_smallest_place_of_their_cells_whatever_the_order_on_disk() -> None:
    # b is from an earlier version, which counted cells.
    cells = [manifest("z", "full", 0), manifest("b", "8", 1), manifest("b", "16", 2), manifest("a", "4", 3)]
    wanted = [Cell("z", "full"), Cell("b", "8"), Cell("b", "16"), Cell("a", "4")]
    assert all(in_order(order) == wanted for order in permutations(cells))


def test_of_methods_with_one_place_the_full_cache_comes_first_and_then_the_earlier_one() -> None:
    cells = [manifest("a", "8", 0, "2026-02"), manifest("b", "8", 0, "2026-01"), manifest("c", "full", 0, "2026-03")]
    assert [cell.label for cell in in_order(cells)] == ["c", "b", "a"]


def test_a_later_method_comes_after_earlier_ones_and_the_full_cache_before_them() -> None:
    assert method_places([], {"fullkv": True, "a": False, "b": False}) == {"fullkv": 0, "a": 1, "b": 2}
    assert method_places([], {"a": False, "fullkv": True}) == {"a": 0, "fullkv": 1}
    known = [manifest("a", "8", 3), manifest("a", "16", 1), manifest("b", "8", 4)]
    assert method_places(known, {"c": False, "b": False, "d": False}) == {"a": 1, "b": 4, "c": 5, "d": 6}
    places = method_places(known, {"fullkv": True, "c": False})
    assert in_order([*known, manifest("fullkv", "full", places["fullkv"]), manifest("c", "8", places["c"])]) == [
        Cell("fullkv", "full"), Cell("a", "8"), Cell("a", "16"), Cell("b", "8"), Cell("c", "8"),
    ]  # fmt: skip


GREW = (("[h2o]", "[64]"), ("[fullkv,snapkv,h2o]", "[512,32]"), ("[h2o,pyramidkv]", "[128,12%]"))
LABELS = ["fullkv", "h2o", "snapkv", "pyramidkv"]
BUDGETS = {
    "fullkv": ["full"],
    "h2o": ["32", "64", "128", "512", "12%"],
    "snapkv": ["32", "512"],
    "pyramidkv": ["128", "12%"],
}
CELLS = [(label, budget) for label in LABELS for budget in BUDGETS[label]]


@pytest.fixture
def grown(kvgauge: Command, tmp_path: Path) -> Path:
    """A grid that three runs made."""
    for methods, budgets in GREW:
        words = ("task=needle", "task.lengths=[300]", "task.depths=[50]", f"results_dir={tmp_path}/results")
        done = kvgauge(f"method={methods}", f"budget={budgets}", *words)
        assert done.code == 0, done.err
    return tmp_path / "results"


def rows(text: str) -> list[tuple[str, str]]:
    """Method and budget of the lines of a table in the terminal, in Markdown or in LaTeX."""
    return re.findall(rf"^(?:\| )?({'|'.join(LABELS)})[ |&]+([0-9]+(?:\\?%)?|full)\b", text, re.MULTILINE)


def test_a_grid_that_grew_has_one_order_in_terminal_files_page_and_from_python(kvgauge: Command, grown: Path) -> None:
    folder = grown / "report/tiny/needle"
    plain = [(label, budget.rstrip("%")) for label, budget in CELLS]
    for text in (kvgauge("report", str(grown)).out, *((folder / f"table.{end}").read_text() for end in ("md", "tex"))):
        assert [(label, budget.strip("\\%")) for label, budget in rows(text)] == plain
    frame = pd.read_csv(folder / "table.csv")
    assert list(zip(frame["method"], frame["budget"], strict=True)) == CELLS
    result = read(grown)
    assert list(zip(result.table()["method"], result.table()["budget"], strict=True)) == CELLS
    first, *panels = panel_rows(result.grids[0].result.cells)
    assert [panel and panel.cell.budget for panel in first] == ["full", None, None, None, None]
    assert [[panel and panel.cell.budget for panel in row] for row in panels] == [
        ["32", "64", "128", "512", "12%"], ["32", None, None, "512", None], [None, None, "128", None, "12%"],
    ]  # fmt: skip
    page = (grown / "report/index.html").read_text()
    heatmaps = re.findall(r"<figcaption>(\w+) <b>([^<]*)</b>", page)
    assert heatmaps == CELLS * 2, "heatmaps, and entries kept by layer"
    again = kvgauge("method=[snapkv,h2o,fullkv]", "budget=[512,32,64]", "task=needle", "task.lengths=[300]",
                    "task.depths=[50]", "wide=true", f"results_dir={grown}")  # fmt: skip
    asked = {"32", "64", "512", "full"}
    wanted = [*((label, b) for label, b in CELLS if label in ("fullkv", "h2o") and b in asked),
              *(("snapkv", b) for b in ("32", "64", "512"))]  # fmt: skip
    assert rows(again.out) == wanted
    compared = kvgauge("compare", str(grown), str(grown), "--to", str(grown.parent / "to"))
    assert compared.code == 0, compared.err
    paired = pd.read_csv(grown.parent / "to/tiny/needle/paired.csv").drop_duplicates(["method", "budget"])
    assert [label for label, _ in zip(paired["method"], paired["budget"], strict=True)] == sorted(
        paired["method"], key=LABELS.index
    )


@pytest.mark.slow
def test_a_results_folder_of_an_earlier_version_keeps_its_order(kvgauge: Command, grown: Path) -> None:
    """Earlier versions wrote the index of the cell within the grid of its run."""
    began: dict[Cell, int] = {}
    for methods, budgets in GREW:
        labels = methods.strip("[]").split(",")
        grid = [Cell(m, b) for m in labels for b in (["full"] if m == "fullkv" else budgets.strip("[]").split(","))]
        for place, cell in enumerate(grid):
            began.setdefault(cell, place)
    for cell, place in began.items():
        path = grown / "tiny/needle" / cell.name / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"place": place}))
        assert read_manifest(path.parent) is not None
    frame = read(grown).table()
    labels = list(dict.fromkeys(frame["method"]))
    assert (
        labels[0] == "fullkv"
        and [b for m, b in zip(frame["method"], frame["budget"], strict=True) if m == "h2o"] == BUDGETS["h2o"]
    )
