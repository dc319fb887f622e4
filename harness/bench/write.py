"""Files of measurements: complete as JSON, readable as Markdown."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

_OUTPUT_FLAGS = ("--out", "--to", "--work")

Rows = Sequence[Mapping[str, Any]]


def command() -> str:
    """The command line of this process, without the folders of the program and of its output."""
    program = Path(sys.argv[0])
    name = (
        "kvgauge"
        if program.name in ("kvgauge", "__main__.py")
        else f"{program.parent.name}/{program.name}".lstrip("./")
    )
    words = [
        word
        for before, word in pairwise(["", *sys.argv[1:]])
        if before not in _OUTPUT_FLAGS
        and word not in _OUTPUT_FLAGS
        and not word.startswith(tuple(f"{flag}=" for flag in _OUTPUT_FLAGS))
    ]
    return shlex.join([name, *words])


def write(
    folder: Path, name: str, title: str, machine: Mapping[str, Any], rows: Rows, raw: Any, notes: Sequence[str] = ()
) -> list[Path]:
    """Write ``<name>.json`` and ``<name>.md``.

    Args:
        folder: the folder of the files, which is created if need be.
        name: stem of the files.
        title: what was measured.
        machine: see ``clock.machine``.
        rows: lines of the table.
        raw: the measurements behind the table, as plain JSON values.
        notes: paragraphs below the table.

    Returns:
        The paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = command()
    whole = {"title": title, "command": run, "machine": machine, "table": list(rows), "raw": raw}
    lines = [
        f"# {title}",
        "",
        f"    {run}",
        "",
        ", ".join(f"{key} {value}" for key, value in machine.items()),
        "",
        *table(rows),
    ]
    lines += [line for note in notes for line in ("", note)]
    paths = [folder / f"{name}.json", folder / f"{name}.md"]
    paths[0].write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    paths[1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def table(rows: Rows) -> list[str]:
    """Lines of a Markdown table, with a dash for what was not measured."""
    keys = list(rows[0])
    body = [[_cell(row[key]) for key in keys] for row in rows]
    return [_line(keys), _line(["---" if isinstance(rows[0][key], str) else "---:" for key in keys]), *map(_line, body)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )
