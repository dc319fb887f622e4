"""Documents: wide tables in narrow terminals, LaTeX that keeps groups together, Markdown and LaTeX that show texts as
they are."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from harness.report.document import Column, Document, Table, TableCell, budgets, grouped, number_cell, texts
from harness.report.render import latex, markdown, write
from harness.report.terminal import show, show_end

HEADERS = [f"dataset{i}" for i in range(6)]
GROUPS = [("snap_kv", "64", {"ours": "123456", "theirs": "234567"}), ("h2o", "64", {"ours": "345678"})]
DOCUMENT = Document(
    "50 % of $x$",
    "table",
    [grouped("All", HEADERS, GROUPS)],
    ["[1] a note on --table"],
    {"raw": pd.DataFrame({"n": [1.5]})},
)
SPARE = Table(
    "",
    [
        texts("method", ["h2o"]),
        budgets(["64"]),
        Column("score", [number_cell(12.345, "12.35")]),
        Column("interval", [TableCell("10.00 to 15.00")], spare=2),
        Column("first metric", [TableCell("0.5")], spare=1),
        Column("second metric", [TableCell("0.25")], spare=1),
    ],
)


def printed(document: Document = DOCUMENT, wide: bool = False, **terminal: object) -> str:
    file = io.StringIO()
    show(document, Console(file=file, color_system=None, **terminal), wide)  # type: ignore[arg-type]
    return file.getvalue()


def test_a_narrow_terminal_gets_the_columns_in_parts_with_their_keys() -> None:
    lines = printed(force_terminal=True, width=60).splitlines()
    assert max(map(len, lines)) < 80
    assert sum("snap_kv" in line for line in lines) == 2
    assert all(any(f"dataset{i}" in line for line in lines) for i in range(6))


def test_a_wide_table_is_whole_in_a_file_and_no_table_is_wider_than_100_columns_otherwise() -> None:
    many = replace(DOCUMENT, tables=[grouped("All", [f"dataset{i}" for i in range(30)], [])], notes=["a note " * 40])
    whole = printed(many, wide=True, width=60).splitlines()
    assert any(all(f"dataset{i}" in line for i in range(30)) for line in whole)
    for terminal in ({"width": 300, "force_terminal": True}, {"width": 300}, {"width": 60}):
        lines = printed(many, **terminal).splitlines()
        assert max(map(len, lines)) <= 100
        assert all(any(f"dataset{i}" in line for line in lines) for i in range(30))


def test_extra_columns_are_in_wide_tables_alone_and_brief_headers_elsewhere() -> None:
    cell = number_cell(1.0, "1.00 (0.50 to 1.50)", large="1.00")
    difference = Column("difference to full", [cell], brief="difference")
    extra = Column("prompt tokens", [TableCell("512")], extra=True)
    table = Table("", [texts("method", ["h2o"]), budgets(["64"]), difference, extra])
    brief, wide = printed(Document("t", "t", [table], [])), printed(Document("t", "t", [table], []), wide=True)
    assert "512" not in brief and "0.50 to" not in brief and "difference" in brief
    assert "512" in wide and "0.50 to" in wide and "to full" in wide


@pytest.mark.parametrize(("methods", "budgets_"), [(1, 1), (5, 3), (30, 5)])
@pytest.mark.parametrize("notes", [[], ["errors of x: 3 " * 30] * 20])
def test_the_end_of_a_run_has_room_for_eleven_lines(methods: int, budgets_: int, notes: list[str]) -> None:
    cells = [(f"method{m}", str(32 * 2**b)) for m in range(methods) for b in range(budgets_)]
    raw = pd.DataFrame([(m, b, 50.0) for m, b in cells], columns=["method", "budget", "score"])
    table = Table("", [texts("method", raw["method"]), budgets(raw["budget"])])
    file = io.StringIO()
    show_end(Document("t", "t", [table], ["a note", *notes]), raw, Console(file=file, width=200))
    lines = file.getvalue().splitlines()
    assert len(lines) <= 11 and max(map(len, lines)) <= 100
    assert ("more notes are in the files" in lines[-1]) == bool(notes)
    assert ("and 26 more" in file.getvalue()) == (methods == 30)
    assert not notes or any(line.startswith("errors of x") for line in lines)


@pytest.mark.parametrize(("width", "count"), [(80, 0), (50, 1), (40, 2), (30, 3)])
def test_a_narrow_terminal_leaves_spare_columns_out_in_their_order_and_says_which(width: int, count: int) -> None:
    left_out = ["second metric", "first metric", "interval"][:count]
    shown = printed(Document("t", "t", [SPARE], []), force_terminal=True, width=width)
    assert ("left out for want of room: " + ", ".join(left_out) in " ".join(shown.split())) == bool(left_out)
    assert "12.35" in shown and max(map(len, shown.split("left out")[0].splitlines())) <= width
    assert "left out" not in printed(Document("t", "t", [SPARE], []), width=width)


def test_latex_parts_groups_and_escapes(tmp_path: Path) -> None:
    write(DOCUMENT, tmp_path)
    lines = (tmp_path / "table.tex").read_text().splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith(r"snap\_kv"))
    assert lines[first].endswith(r"\\*") and lines[first + 1].endswith(r"\\")  # no page break within a group
    assert lines[first + 2] == r"\addlinespace"
    assert r"50 \% of \$x\$ \\" in lines
    # Neither an argument of the line break above nor a dash.
    assert r"{}[1] a note on -{}-table \\" in lines


def test_the_same_document_gives_the_same_bytes(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write(DOCUMENT, tmp_path)]
    assert first == [path.read_bytes() for path in write(DOCUMENT, tmp_path)]
    assert {path.name for path in tmp_path.iterdir()} == {"table.md", "table.tex", "raw.csv"}
    assert (
        (tmp_path / "table.md")
        .read_text()
        .startswith("# 50 % of \\$x\\$\n\n## All\n\n| method   | budget   |        |   dataset0 |")
    )


def test_texts_are_shown_as_they_are_in_markdown_and_latex() -> None:
    nasty = Table("", [texts("a|b", ["x_y", "{~^\\&"]), Column("100 %", [TableCell("[1"), TableCell("2")])])
    document = Document("#1\n*two*", "t", [nasty], [])
    assert markdown(document).splitlines() == [
        "# \\#1 \\*two\\*",
        "",
        "| a\\|b      |   100 % |",
        "|:----------|--------:|",
        "| x\\_y      |     \\[1 |",
        "| \\{\\~^\\\\\\& |       2 |",
    ]
    lines = latex(document).splitlines()
    assert r"a|b & 100 \% \\" in lines and r"x\_y & [1 \\" in lines and r"\#1 *two* \\" in lines
    assert r"\{\textasciitilde{}\textasciicircum{}\textbackslash{}\& & 2 \\" in lines


def test_a_table_without_lines_has_its_header() -> None:
    empty = Document("t", "t", [Table("", [texts("method", []), Column("score", [])])], [])
    assert markdown(empty).splitlines()[2:] == ["| method   |   score |", "|:---------|--------:|"]
    assert "method" in printed(empty) and r"method & score \\" in latex(empty)


def test_the_latex_file_has_the_tables_of_the_papers_where_there_are_any() -> None:
    document = replace(DOCUMENT, papers=[SPARE])
    assert "dataset0" not in latex(document) and "second metric" in latex(document)
    assert "dataset0" in markdown(document)


def test_missing_numbers_are_sorted_last_and_budgets_by_size() -> None:
    assert number_cell(float("nan"), "nan") == TableCell("\u2013", None)
    values = [cell.value for cell in budgets(["128", "20%", "full", "what a table says"]).cells]
    assert values[:3] == sorted(values[:3], key=float) and values[3] is None  # type: ignore[arg-type]
