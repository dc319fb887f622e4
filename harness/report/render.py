"""Tables with a rule between groups of lines, as Markdown, CSV and LaTeX files and on the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.text import Text

from harness.report.task_tables import escape_markdown, markdown_table, rich_table
from harness.text import plain


@dataclass(frozen=True)
class Section:
    """One table.

    Attributes:
        title: its heading.
        shown: rounded text, nothing escaped.
        keys: the first so many columns name a line; they are aligned left and repeated where a terminal is too narrow for all columns.
        starts: lines before which a group begins.
    """

    title: str
    shown: pd.DataFrame
    keys: int
    starts: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Sheet:
    """What is written and printed together.

    Attributes:
        title: its heading.
        sections: its tables.
        notes: what stands under them.
        raw: the same numbers unrounded, one line each.
    """

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    raw: pd.DataFrame


def write_sheet(sheet: Sheet, folder: Path, stem: str) -> list[Path]:
    """Write ``<stem>.md``, ``<stem>.csv`` and ``<stem>.tex``; the same sheet gives the same bytes.

    Args:
        sheet: what to write.
        folder: created if need be; files of these names are replaced.
        stem: their names.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"md": _markdown(sheet), "csv": sheet.raw.to_csv(index=False, lineterminator="\n"), "tex": _latex(sheet)}
    for suffix, text in texts.items():
        (folder / f"{stem}.{suffix}").write_text(text, encoding="utf-8", newline="\n")
    return [folder / f"{stem}.{suffix}" for suffix in texts]


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Print all of it. A table that is wider than the terminal comes in parts, its keys repeated; elsewhere it is printed whole."""
    console.print(Text(plain(sheet.title), style="bold"), soft_wrap=True)
    for section in sheet.sections:
        console.print(Text(f"\n{plain(section.title)}"), soft_wrap=True)
        for part in _parts(section, console):
            console.print(rich_table(part, {}, _keys(section)), crop=False)
    for note in sheet.notes:
        console.print(Text(plain(note)), soft_wrap=True)


def _keys(section: Section) -> tuple[str, ...]:
    return tuple(str(name) for name in section.shown.columns[: section.keys])


def _parts(section: Section, console: Console) -> list[pd.DataFrame]:
    keys, rest = list(section.shown.columns[: section.keys]), list(section.shown.columns[section.keys :])
    if not console.is_terminal:
        return [section.shown]
    parts: list[list[str]] = [[]]
    for name in rest:
        width = rich_table(section.shown[[*keys, *parts[-1], name]], {}, _keys(section)).width
        if parts[-1] and width is not None and width > console.width:
            parts.append([])
        parts[-1].append(name)
    return [section.shown[[*keys, *part]] for part in parts]


def _markdown(sheet: Sheet) -> str:
    texts = [f"# {escape_markdown(plain(sheet.title))}"]
    for section in sheet.sections:
        texts += [f"## {escape_markdown(plain(section.title))}", markdown_table(section.shown, {}, _keys(section))]
    return "\n\n".join([*texts, *(f"Note: {escape_markdown(plain(note))}" for note in sheet.notes)]) + "\n"


def _latex(sheet: Sheet) -> str:
    """One longtable per section and one with the title and the notes, in the smallest print."""
    lines = ["% needs booktabs and longtable, and for its width a landscape page", r"{\tiny\setlength{\tabcolsep}{2.5pt}"]
    for section in sheet.sections:
        align = "l" * section.keys + "r" * (len(section.shown.columns) - section.keys)
        styled = section.shown.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
        table = styled.to_latex(column_format=align, hrules=True, environment="longtable").splitlines()
        lines += [f"% {plain(section.title)}", *_grouped(table, section)]
    notes = pd.DataFrame({"note": [plain(text) for text in (sheet.title, *sheet.notes)]}).style.hide(axis="index").hide(axis="columns")
    below = notes.format(escape="latex").to_latex(column_format=r"p{0.98\linewidth}", environment="longtable").splitlines()
    # A row that begins with a bracket would be read as an argument of the line break before it, and two hyphens as a dash.
    lines += [("{}" if line.startswith("[") else "") + line.replace("--", "-{}-") for line in below]
    return "\n".join([*lines, "}"]) + "\n"


def _grouped(table: list[str], section: Section) -> list[str]:
    """LaTeX lines with room between groups, which no page break parts."""
    if not section.starts:
        return table
    first = next(place for place, line in enumerate(table) if line.startswith(r"\endlastfoot")) + 1
    body = table[first : first + len(section.shown)]
    lines: list[str] = []
    for place, line in enumerate(body):
        if place in section.starts and place:
            lines.append(r"\addlinespace")
        ends = place + 1 in section.starts or place + 1 == len(body)
        lines.append(line if ends else line + "*")
    return [*table[:first], *lines, *table[first + len(body) :]]
