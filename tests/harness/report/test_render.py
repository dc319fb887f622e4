"""Sheets: wide tables in narrow terminals, and LaTeX that keeps groups together."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
from rich.console import Console

from harness.report.render import Section, Sheet, print_sheet, write_sheet

WIDE = pd.DataFrame(
    [["snap_kv", "64", "ours", *"123456"], ["", "", "theirs", *"234567"], ["h2o", "64", "ours", *"345678"]],
    columns=["method", "budget", "", *(f"dataset{i}" for i in range(6))],
)
SHEET = Sheet("50 % of $x$", (Section("All", WIDE, 3, frozenset({0, 2})),), ("[1] a note on --table",), pd.DataFrame({"n": [1.5]}))


def printed(**terminal: object) -> str:
    file = io.StringIO()
    print_sheet(SHEET, Console(file=file, color_system=None, **terminal))  # type: ignore[arg-type]
    return file.getvalue()


def test_a_narrow_terminal_gets_the_columns_in_parts_with_their_keys() -> None:
    lines = printed(force_terminal=True, width=60).splitlines()
    assert max(map(len, lines)) < 80
    assert sum("snap_kv" in line for line in lines) == 2
    assert all(any(f"dataset{i}" in line for line in lines) for i in range(6))


def test_a_file_gets_the_table_whole() -> None:
    lines = printed(width=60).splitlines()
    assert sum("snap_kv" in line for line in lines) == 1
    assert any(all(f"dataset{i}" in line for i in range(6)) for line in lines)


def test_latex_parts_groups_and_escapes(tmp_path: Path) -> None:
    write_sheet(SHEET, tmp_path, "table")
    lines = (tmp_path / "table.tex").read_text().splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith(r"snap\_kv"))
    assert lines[first].endswith(r"\\*") and lines[first + 1].endswith(r"\\")  # no page break within a group
    assert lines[first + 2] == r"\addlinespace"
    assert r"50 \% of \$x\$ \\" in lines
    # Neither an argument of the line break above nor a dash.
    assert r"{}[1] a note on -{}-table \\" in lines


def test_the_same_sheet_gives_the_same_bytes(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_sheet(SHEET, tmp_path, "table")]
    assert first == [path.read_bytes() for path in write_sheet(SHEET, tmp_path, "table")]
    assert (tmp_path / "table.md").read_text().startswith("# 50 % of \\$x\\$\n\n## All\n\n| method   | budget   |        |   dataset0 |")
