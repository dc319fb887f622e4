"""Pictures of what was kept: bars by layer, tiles by layer and head where heads keep different numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.report.page import kept as pictures
from harness.report.page.charts import Panel, shade
from harness.report.page.kept import kept_by_layer
from harness.report.page.write import write_page
from harness.results import Cell, CellResult, Manifest, Record, TaskResult
from harness.store.reader import Grid

Kept = Sequence[int | tuple[int, ...]]


def cell(label: str, *records: Kept) -> CellResult:
    return CellResult(
        Cell(label, "20"),
        len(records),
        tuple(Record(str(i), {}, (), {}, 100, None, kept=tuple(kept), retention=0.2) for i, kept in enumerate(records)),
    )


UNIFORM = cell("snapkv", [20, 10], [20, 10])
RAGGED = cell("adakv", [(10, 30), (20, 20)], [(14, 26), (25, 15)])
SOMETIMES = cell("cake", [(10, 30), 16], [20, 18])


def result(*cells: CellResult) -> TaskResult:
    return TaskResult("model", "task", (), None, "", cells, None)


def panels(*cells: CellResult) -> dict[str, Panel]:
    shown = kept_by_layer(result(*cells))
    assert shown is not None and (shown.width, shown.height) == (100, 2)
    return {one.label: one for row in shown.rows for one in row if one is not None}


def test_heads_that_keep_different_numbers_are_tiles_of_layers_and_heads_with_the_first_layer_at_the_foot() -> None:
    panel = panels(UNIFORM, RAGGED)["adakv"]
    assert [tile[:4] for tile in panel.tiles] == [(0, 1, 50, 1), (50, 1, 50, 1), (0, 0, 50, 1), (50, 0, 50, 1)]
    assert panel.tiles[0][4:6] == (shade(12 / 28), "layer 0, head 0: 12 entries; the layer 20 (10 to 30)")
    assert panel.tiles[1][4:6] == (shade(1.0), "layer 0, head 1: 28 entries; the layer 20 (10 to 30)")
    assert panel.says == "20 … 20; heads 10 to 30"
    assert panel.x_ticks == [(25, "0"), (75, "1")] and panel.y_ticks == [(25, "1"), (75, "0")]


def test_methods_with_equal_heads_keep_their_bars_beside_them() -> None:
    alone, beside = panels(UNIFORM)["snapkv"], panels(UNIFORM, RAGGED)["snapkv"]
    assert alone == beside
    assert [tile[2] for tile in alone.tiles] == [100, 50] and not alone.x_ticks and not alone.y_ticks
    assert alone.tiles[1][5] == "layer 1: 10 entries"


def test_a_layer_whose_heads_are_equal_is_one_tile_and_equal_heads_of_one_result_count_for_each() -> None:
    panel = panels(SOMETIMES)["cake"]
    assert [(tile[2], tile[5]) for tile in panel.tiles] == [
        (50, "layer 0, head 0: 15 entries; the layer 20 (10 to 30)"),
        (50, "layer 0, head 1: 25 entries; the layer 20 (10 to 30)"),
        (100, "layer 1, every head: 17 entries; the layer 17 (16 to 18)"),
    ]


def test_beyond_so_many_tiles_pictures_have_bars_with_the_spread_over_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_TILES", 4)
    shown = panels(RAGGED, SOMETIMES)
    assert len(shown["adakv"].tiles) == 4
    assert [tile[5] for tile in shown["cake"].tiles] == [
        "layer 0: 20 entries (10 to 30)",
        "layer 1: 17 entries (16 to 18)",
    ]
    assert shown["cake"].says == "20 … 17; heads 10 to 30"


@pytest.mark.parametrize("cells", [(UNIFORM,), (UNIFORM, RAGGED)])
def test_the_page_says_how_to_read_tiles_where_there_are_some(cells: Sequence[CellResult], tmp_path: Path) -> None:
    manifests = {
        one.cell: Manifest(one.cell, 0, "model", "task", {}, (), None, "", {"name": "task"}, {}, None) for one in cells
    }
    grid = Grid(result(*cells), manifests, {one.cell: Path(one.cell.name) for one in cells})
    page = write_page([grid], [], [], tmp_path / "index.html").read_text(encoding="utf-8")
    assert ("Entries kept in each layer and head" in page) == (len(cells) == 2) == ("a tile for each" in page)
    assert page.count('class="panel kept by-head"') == len(cells) - 1
