"""Tables and plots of a task: what is missing is a dash, text is text, the same result gives the same bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread
from msgspec import structs
from rich.console import Console

from harness.report.notes import task_notes
from harness.report.stats.summary import full_cache, percent_of
from harness.report.stats.table import table
from harness.report.task_tables import print_end, print_table, score_table, write_report
from harness.report.terminal import REST
from harness.results import Cell, CellResult, Record, TaskResult, layer_means
from harness.task import Metric

METRIC = Metric("m", "match", 10.0)


def record(name: str, score: float | None, kept: int, length: int = 100, depth: int = 0) -> Record:
    whole = Record(
        name,
        {"length": length, "depth": depth},
        ("a",),
        {},
        100,
        "00",
        kept=(kept, kept + 2),
        retention=(kept + 1) / 100,
    )
    return (
        structs.replace(whole, error="logits are\nnot finite")
        if score is None
        else structs.replace(whole, scores={"m": score})
    )


def result(**changes: object) -> TaskResult:
    full = tuple(
        structs.replace(record(str(i), 8.0, 100, depth=50 * i), kept=(100, 100), retention=1.0) for i in range(3)
    )
    half = (record("0", 4.0, 10), record("1", None, 10, depth=50))
    cells = (
        CellResult(Cell("fullkv", "full"), 3, full),
        CellResult(Cell("snap|kv[red]", "10"), 3, half),
        CellResult(Cell("h2o", "10"), 3, ()),
    )
    return replace(TaskResult("model", "task", (METRIC,), ("length", "depth"), "a <b>note</b>", cells, None), **changes)  # type: ignore[arg-type]


def printed(of: TaskResult) -> str:
    out = StringIO()
    print_table(of, Console(file=out, width=300))
    return out.getvalue()


def test_the_table_holds_unrounded_means_over_results_only() -> None:
    rows = table(result()).set_index("method")
    assert rows.loc["fullkv", "score"] == 80
    assert rows.loc["snap|kv[red]", "score"] == 40
    assert (
        rows.loc["snap|kv[red]", "n"],
        rows.loc["snap|kv[red]", "errors"],
        rows.loc["snap|kv[red]", "expected"],
    ) == (1, 1, 3)
    assert rows.loc["snap|kv[red]", "difference"] == -40
    assert (rows.loc["snap|kv[red]", "kept_min"], rows.loc["snap|kv[red]", "kept_max"]) == (10, 12)
    assert pd.isna(rows.loc["h2o", "score"]) and pd.isna(rows.loc["h2o", "kept_min"])


def test_percent_of_the_full_cache_goes_over_the_examples_that_both_have() -> None:
    of = result()
    full = full_cache(of.cells)
    assert full is not None and full.cell.label == "fullkv"
    assert percent_of(of.cells[1], full, METRIC) == 50


def test_what_is_missing_is_a_dash_and_never_a_number() -> None:
    line = next(line for line in printed(result()).splitlines() if line.startswith("h2o"))
    assert set(line.split()[2:]) <= {"–", "0", "of", "3"}
    assert "0 of 3" in line


def test_labels_and_errors_are_text_and_never_markup(tmp_path: Path) -> None:
    write_report(result(), tmp_path)
    assert "snap|kv[red]" in printed(result())
    assert "errors of snap|kv[red]-10: 1, the first in example 1: logits are not finite" in printed(result())
    markdown = (tmp_path / "table.md").read_text()
    assert r"snap\|kv\[red\]" in markdown and r"a \<b\>note\</b\>" in markdown


def test_the_csv_holds_raw_numbers(tmp_path: Path) -> None:
    write_report(result(), tmp_path)
    frame = pd.read_csv(tmp_path / "table.csv")
    assert frame["score"].tolist()[:2] == [80.0, 40.0]
    assert frame["retention"].tolist()[1] == pytest.approx(0.11)


@pytest.mark.usefixtures("pixels")
def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_report(result(), tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == ["table.md", "table.csv", "table.tex", "summary.png", "heatmap.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.usefixtures("pixels")
def test_a_heatmap_colours_scores_on_the_fixed_scale_and_hatches_what_is_missing(tmp_path: Path) -> None:
    write_report(result(), tmp_path / "some")
    everything = result()
    best = replace(
        everything.cells[0], records=tuple(structs.replace(r, scores={"m": 10.0}) for r in everything.cells[0].records)
    )
    write_report(replace(everything, cells=(best, *everything.cells[1:])), tmp_path / "best")
    some, top = (imread(tmp_path / name / "heatmap.png")[..., :3] for name in ("some", "best"))
    yellow = abs(top - [0.993, 0.906, 0.144]).max(-1) < 0.02  # the colour of 1 in viridis
    assert yellow.sum() > (abs(some - [0.993, 0.906, 0.144]).max(-1) < 0.02).sum()


def test_a_task_without_scores_has_a_table_and_no_plots(tmp_path: Path) -> None:
    files = write_report(result(metrics=(), heatmap_axes=None), tmp_path)
    assert [path.name for path in files] == ["table.md", "table.csv", "table.tex"]


def test_a_narrow_terminal_leaves_columns_out_and_says_which() -> None:
    out = StringIO()
    print_table(result(), Console(file=out, width=60, force_terminal=True))
    assert "left out for want of room: " in out.getvalue()
    assert "score" in out.getvalue()


def test_bytes_above_the_stock_cache_are_explained_and_only_then() -> None:
    note = "bytes % above 100 (up to 200): a cache of query heads can take more room"
    assert note not in printed(result())
    cells = tuple(
        replace(cell, records=tuple(structs.replace(r, retention_bytes=2.0) for r in cell.records))
        for cell in result().cells
    )
    assert note in printed(result(cells=cells))


def test_numbers_over_fewer_examples_are_told_of_where_there_is_little_room() -> None:
    whole = replace(result(), cells=result().cells[:1])
    assert "n of N" not in printed(whole)
    out = StringIO()
    print_end(result(), Console(file=out, width=100))
    assert "numbers cover only the n examples that have a result (0 of 3 in a cell)" in " ".join(out.getvalue().split())


@pytest.mark.usefixtures("pixels")
def test_the_summary_has_error_bars_where_there_are_intervals(tmp_path: Path) -> None:
    """Bars end at 80; what is darker than every bar and stands right of that is the interval, and the numbers, which
    are the same."""
    dark = []
    for spread in (0.0, 2.0):
        scores = [8.0 + spread * (-1) ** place for place in range(10)]
        cell = CellResult(
            Cell("fullkv", "full"), 10, tuple(record(str(place), score, 100) for place, score in enumerate(scores))
        )
        write_report(result(cells=(cell,)), tmp_path / str(spread))
        pixels = imread(tmp_path / str(spread) / "summary.png")[..., :3]
        dark.append(int((pixels.max(-1) < 0.4).sum()))
    assert dark[1] > dark[0] + 50


def kept(budget: str, entries: Sequence[int | tuple[int, ...]], tokens: int = 100, label: str = "ada") -> CellResult:
    """A cell with two records that kept the same."""
    share = sum(layer_means(tuple(entries))) / len(entries) / tokens
    records = [
        structs.replace(record(str(i), 5.0, 10), kept=tuple(entries), prompt_tokens=tokens, retention=share)
        for i in range(2)
    ]
    return CellResult(Cell(label, budget), 2, tuple(records))


def test_heads_that_keep_different_numbers_are_least_mean_and_most_of_all_heads_and_a_total() -> None:
    rows = table(result(cells=(kept("20", [(10, 30), (15, 25)]), kept("20", [20, 20], label="snapkv"))))
    assert rows[["kept_min", "kept_mean", "kept_max", "kept_total"]].values.tolist() == [
        [10, 20, 30, 40],
        [20, 20, 20, 40],
    ]
    assert rows["retention"].tolist() == [0.2, 0.2] and rows["off_budget"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("budget", "entries", "off"),
    [
        ("20", [(10, 30), 20], None),
        ("20", [(10, 30), (20, 21)], 0.0125),
        ("20", [24, 21], 0.125),
        ("20", [10, 20], -0.25),
        ("200", [100, 100], None),
        ("full", [100, 100], None),
        ("12.5%", [12, 12], -0.04),
        ("12%", [12, 12], None),
    ],
)
def test_a_cell_that_misses_its_budget_by_more_than_1_percent_is_marked_with_one_note(
    budget: str, entries: Sequence[int | tuple[int, ...]], off: float | None, tmp_path: Path
) -> None:
    of = result(cells=(kept(budget, entries), kept("50", [80, 20], label="even")))
    assert table(of)["off_budget"].fillna(0).tolist() == pytest.approx([off or 0, 0])
    write_report(of, tmp_path)
    on_page = next(column for column in score_table(of).on_page if column.header == "entries %")
    for marked in (printed(of), (tmp_path / "table.md").read_text().replace("\\*", "*")):
        line = next(line for line in marked.splitlines() if re.match(r"\W*ada\b", line))
        assert ("*" in line) == (off is not None) == ("*" in on_page.cells[0].text)
        assert len(re.findall("misses its budget", marked)) == (off is not None)
        assert off is None or f"ada {100 * off:+.0f} %" in " ".join(marked.split())
    assert "*" not in on_page.cells[1].text


def test_the_note_on_budgets_names_a_few_methods_and_counts_the_others() -> None:
    cells = [kept("20", [25 + place, 25], label=f"m{place}") for place in range(9)]
    (note,) = [
        note for note in task_notes(result(cells=(*cells, kept("10", [10, 11], label="m0")))) if "misses" in note
    ]
    assert "m0 +5 to +25 %" in note and "5 more" in note and "m5" not in note


@pytest.mark.parametrize("methods", [4, 30])
def test_the_end_of_a_run_has_room_for_few_methods_and_says_where_all_are(methods: int) -> None:
    cells = tuple(kept(budget, [25, 24], label=f"m{place}") for place in range(methods) for budget in ("20", "30"))
    out = StringIO()
    print_end(result(cells=cells), Console(file=out, width=100))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 11
    assert (REST in lines) == ("and 26 more" in out.getvalue()) == (methods == 30)
    assert any(line.startswith("misses its budget") for line in lines) and "*" not in out.getvalue(), "no mark, no key"
