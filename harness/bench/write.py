"""Measurements as JSON, whole, and as Markdown, readable."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

_PLACES = ("--out", "--to")

Rows = Sequence[Mapping[str, Any]]


def command() -> str:
    """The command line of this process, without folders above the program and without where the files go."""
    program = Path(sys.argv[0])
    name = (
        "kvgauge"
        if program.name in ("kvgauge", "__main__.py")
        else f"{program.parent.name}/{program.name}".lstrip("./")
    )
    words = [
        word
        for before, word in pairwise(["", *sys.argv[1:]])
        if before not in _PLACES and word not in _PLACES and not word.startswith(tuple(f"{flag}=" for flag in _PLACES))
    ]
    return shlex.join([name, *words])


def write(
    folder: Path, name: str, title: str, machine: Mapping[str, Any], rows: Rows, raw: Any, notes: Sequence[str] = ()
) -> list[Path]:
    """Write ``<name>.json`` and ``<name>.md``.

    Args:
        folder: created if need be.
        name: stem of the files.
        title: what was measured, on what.
        machine: see ``clock.machine``.
        rows: the table.
        raw: what the table was made of, as plain JSON values.
        notes: lines below the table.
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
    """Lines of a Markdown table; what is not measured is a dash."""
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
