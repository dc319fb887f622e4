"""Documents as Markdown, CSV and LaTeX files and on the terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from harness.report.document import Column, Document, Table
from harness.text import plain

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~$&!])")
_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)


def write(document: Document, folder: Path) -> list[Path]:
    """Write a document's files; the same document gives the same bytes.

    Args:
        document: what to write.
        folder: created if need be; files of the same names are replaced.

    Returns:
        The files: ``<stem>.md``, one CSV for each name in ``data``, and ``<stem>.tex``.
    """
    tables = {f"{name}.csv": frame.to_csv(index=False, lineterminator="\n") for name, frame in document.data.items()}
    files = {f"{document.stem}.md": markdown(document), **tables, f"{document.stem}.tex": latex(document)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in files]


def show(document: Document, console: Console) -> None:
    """Print a document.

    A terminal that is too narrow for a table gets it without its spare columns, and a note says which; what is still
    too wide comes in pieces that repeat the keys. Elsewhere, as in a file, every table is printed whole, however wide.
    """
    console.print(Text(plain(document.title), style="bold"), soft_wrap=True)
    left_out: list[str] = []
    for table in document.tables:
        if table.title:
            console.print(Text(f"\n{plain(table.title)}"), soft_wrap=True)
        if console.is_terminal:
            table, headers = _without_spare(table, console.width)
            left_out += headers
        for piece in _pieces(table, console.width) if console.is_terminal else [table]:
            console.print(_rich(piece), crop=False)
    for note in [*document.notes, *([f"left out for want of room: {', '.join(left_out)}"] if left_out else [])]:
        console.print(Text(plain(note)), soft_wrap=True)


def markdown(document: Document) -> str:
    """A document as Markdown."""
    blocks = [f"# {_markdown(document.title)}"]
    for table in document.tables:
        blocks += [*([f"## {_markdown(table.title)}"] if table.title else []), _markdown_table(table)]
    return "\n\n".join([*blocks, *(f"Note: {_markdown(note)}" for note in document.notes)]) + "\n"


def latex(document: Document) -> str:
    r"""A document as LaTeX for ``\input``: tables as narrow as the line, then one with the title and the notes.

    Where lines of a table form groups the document is a long one: its tables run over pages, in the smallest print, and
    no page break parts a group.
    """
    tables = document.tables if document.papers is None else document.papers
    notes = [_latex_row([plain(text)]) for text in (document.title, *document.notes)]
    if any(table.starts for table in tables):
        lines = [r"% needs \usepackage{booktabs} and \usepackage{longtable}, and for its width a landscape page"]
        lines.append(r"{\tiny\setlength{\tabcolsep}{2.5pt}")
        for table in tables:
            lines += [f"% {plain(table.title)}", *_long_table(table)]
        lines += [r"\begin{longtable}{@{}p{\linewidth}@{}}", *notes, r"\end{longtable}", "}"]
    else:
        lines = [r"% needs \usepackage{booktabs} and \usepackage{graphicx}", ""]
        for table in tables:
            lines += [
                r"\noindent\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
                *_short_table(table),
                "}",
                "",
            ]
        lines += [r"\noindent\begin{tabular}{@{}p{\linewidth}@{}}", *notes, r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _without_spare(table: Table, width: int) -> tuple[Table, list[str]]:
    """A table without the spare columns that do not fit into so many characters, and what these are called."""
    left_out = []
    while _width(table) > width:
        spare = [(column.spare, -place) for place, column in enumerate(table.columns) if column.spare is not None]
        if not spare:
            break
        column = table.columns[-min(spare)[1]]
        table = _only(table, [other for other in table.columns if other is not column])
        left_out.append(column.header)
    return table, left_out


def _markdown(text: str) -> str:
    """``text`` as Markdown that shows it."""
    return _MARKDOWN.sub(r"\\\1", plain(text))


def _markdown_table(table: Table) -> str:
    """Columns padded to one width, so that the file can be read as it is."""
    lines: list[list[str]] = [[] for _ in range(1 + len(table.rows))]
    rule = []
    for column in table.columns:
        header, *texts = (_markdown(text) for text in (column.header, *(cell.text for cell in column.cells)))
        width = max(len(header) + 2, *map(len, texts), 0)
        for line, text in zip(lines, (header, *texts), strict=True):
            line.append(text.rjust(width) if column.numeric else text.ljust(width))
        rule.append("-" * (width + 1) + ":" if column.numeric else ":" + "-" * (width + 1))
    first, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([first, f"|{'|'.join(rule)}|", *rest])


def _latex_row(texts: Sequence[str]) -> str:
    """A row; what begins with a bracket would be an argument of the line break before it, and two hyphens a dash."""
    line = " & ".join(text.translate(_LATEX) for text in texts).replace("--", "-{}-")
    return ("{}" if line.startswith("[") else "") + line + r" \\"


def _latex_parts(table: Table) -> tuple[str, str, list[str]]:
    """The alignment of its columns, the header and the rows."""
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    rows = [_latex_row([cell.text for cell in row]) for row in table.rows]
    return align, _latex_row([column.header for column in table.columns]), rows


def _short_table(table: Table) -> list[str]:
    align, header, rows = _latex_parts(table)
    return [rf"\begin{{tabular}}{{{align}}}", r"\toprule", header, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]


def _long_table(table: Table) -> list[str]:
    """With room between groups, which no page break parts."""
    align, header, rows = _latex_parts(table)
    head = [r"\toprule", header, r"\midrule"]
    more = [
        r"\midrule",
        rf"\multicolumn{{{len(table.columns)}}}{{r}}{{Continued on next page}} \\",
        r"\midrule",
        r"\endfoot",
    ]
    lines = [
        rf"\begin{{longtable}}{{{align}}}",
        *head,
        r"\endfirsthead",
        *head,
        r"\endhead",
        *more,
        r"\bottomrule",
        r"\endlastfoot",
    ]
    for place, row in enumerate(rows):
        if place in table.starts and place:
            lines.append(r"\addlinespace")
        ends = not table.starts or place + 1 in table.starts or place + 1 == len(rows)
        lines.append(row if ends else row + "*")
    return [*lines, r"\end{longtable}"]


def _only(table: Table, columns: Sequence[Column]) -> Table:
    return replace(table, columns=columns)


def _pieces(table: Table, width: int) -> Iterator[Table]:
    """A table in pieces of at most so many characters where that can be done, each with the keys."""
    keys, piece = list(table.columns[: table.keys]), list[Column]()
    for column in table.columns[table.keys :]:
        if piece and _width(_only(table, [*keys, *piece, column])) > width:
            yield _only(table, [*keys, *piece])
            piece = []
        piece.append(column)
    yield _only(table, [*keys, *piece])


def _width(table: Table) -> int:
    """Of the printed table, in characters."""
    return _rich(table).width or 0


def _rich(table: Table) -> rich_table.Table:
    """The table at its natural width, with headers broken to the width of their columns; labels are never markup."""
    rendered = rich_table.Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns:
        lines = textwrap.wrap(
            plain(column.header), max([8, *(len(cell.text) for cell in column.cells)]), break_long_words=False
        )
        rendered.add_column(Text("\n".join(lines)), justify="right" if column.numeric else "left", no_wrap=True)
    for row in table.rows:
        rendered.add_row(*(Text(cell.text) for cell in row))
    endless = Console(width=10**6)
    rendered.width = Measurement.get(endless, endless.options, rendered).maximum
    return rendered
