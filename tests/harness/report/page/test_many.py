"""Thirty methods on the page: legends fold, pictures are smaller, and no tick stands on another."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from harness.report.page.charts import chart
from harness.report.page.write import write_page
from harness.report.stats.curves import Curve, Curves
from harness.results import Cell, CellResult, Manifest, Record, TaskResult
from harness.store.reader import Grid
from harness.task import Metric


def page(methods: int, folder: Path) -> str:
    cells = [
        CellResult(
            Cell(f"method{place}", str(budget)),
            1,
            (Record("e", {}, (), {}, 100, None, scores={"f1": 0.5}, kept=(budget, budget), retention=budget / 100),),
        )
        for place in range(methods)
        for budget in (10, 20)
    ]
    manifests = {
        one.cell: Manifest(one.cell, 0, "model", "task", {}, (), None, "", {"name": "task"}, {}, None) for one in cells
    }
    result = TaskResult("model", "task", (Metric("f1", "F1", 1.0),), None, "", tuple(cells), None)
    grid = Grid(result, manifests, {one.cell: Path(one.cell.name) for one in cells})
    return write_page([grid], [], [], folder / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("methods", [10, 30])
def test_a_long_legend_folds_with_that_of_the_first_chart_open_and_many_pictures_are_small(
    methods: int, tmp_path: Path
) -> None:
    text = page(methods, tmp_path)
    folds = re.findall(r'<details class="fold"( open)?><summary>(\d+) methods', text)
    assert folds == ([] if methods == 10 else [(" open", "30"), ("", "30")])
    assert ('class="panels dense"' in text) == (methods == 30)
    assert len(re.findall(r'<li data-label="method\d+"', text)) == 2 * methods


@pytest.mark.parametrize("count", [3, 40])
def test_no_tick_touches_the_one_before(count: int) -> None:
    places: list[float | None] = [3.25 * 1.16**step for step in range(count)]
    scores = [50.0] * count
    drawn = chart(Curves("retention", "kept", [Curve("m", places, scores, scores, scores)]), "F1")
    assert drawn is not None
    for (x, text), (other, after) in pairwise(drawn.x_ticks):
        assert other - x >= 9 * (len(text) + len(after)) / 2
    assert len(drawn.x_ticks) == count or len(drawn.x_ticks) >= 5
