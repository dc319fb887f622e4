"""Documents as Markdown, CSV and LaTeX files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.report.document import Document, Table
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
