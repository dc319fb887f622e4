"""kvpress's predictions.csv, a table written by pandas in which lists are printed numpy arrays."""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import DataError
from tasks.checks import short

_LITERAL = re.compile(r"""\s*,?\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_REMEDY = "give the file as the program wrote it"


def table(raw: bytes, file: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a table, each with its position for errors and its values by column.

    ``answers`` and ``all_classes`` become lists of texts, ``length`` a whole number, ``compression_ratio`` a number
    called ``ratio``. Empty fields are left out unless the column is needed.

    Args:
        raw: contents of the file.
        file: path of the file, for errors.
        needed: columns that the table must have.

    Raises:
        DataError: the file is not such a table.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 at byte {error.start}: {_REMEDY}") from error
    csv.field_size_limit(max(csv.field_size_limit(), len(raw) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if absent := [name for name in needed if name not in header]:
            raise DataError(f"line 1 of {file} names no column {absent[0]!r}: {_REMEDY}")
        if twice := [name for name in needed if header.count(name) > 1]:
            raise DataError(f"line 1 of {file} names the column {twice[0]!r} twice: {_REMEDY}")
        start = reader.line_num + 1  # errors name the first line of a row
        for fields in reader:
            where, start = f"line {start} of {file}", reader.line_num + 1
            if not fields:
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"{where} begins a row of {len(fields)} fields where the header has {len(header)}, as in a cut "
                    f"file: {_REMEDY}"
                )
            yield where, _values(dict(zip(header, fields, strict=True)), where, needed)
    except csv.Error as error:
        raise DataError(
            f"line {reader.line_num} of {file} is not CSV ({error}), as in a file that was cut: {_REMEDY}"
        ) from error


def _values(row: dict[str, str], where: str, needed: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in row.items():
        if not text and name not in needed:
            continue
        try:
            match name:
                case "answers" | "all_classes":
                    values[name] = texts(text)
                case "length":
                    values[name] = int(text)
                case "compression_ratio":
                    values["ratio"] = float(text)
                case _:
                    values[name] = text
        except ValueError as error:
            raise DataError(f"{where} has {name}={short(text)}, which is not {_KINDS[name]}: {_REMEDY}") from error
    return values


_KINDS = {"length": "a whole number", "compression_ratio": "a number"} | dict.fromkeys(
    ("answers", "all_classes"), "a list of texts"
)


def texts(printed: str) -> list[str]:
    """The texts in a printed array, ``['one' "the other's"]``, or in a printed list.

    An array is printed without commas, so Python would read its texts as a single one.

    Raises:
        ValueError: ``printed`` is something else.
    """
    inside = printed.strip()
    if not (inside.startswith("[") and inside.endswith("]")):
        raise ValueError(printed)
    inside = inside[1:-1].rstrip()
    values, position = [], 0
    while position < len(inside):
        literal = _LITERAL.match(inside, position)
        if literal is None:
            raise ValueError(printed)
        try:
            values.append(str(ast.literal_eval(literal[1])))
        except SyntaxError as error:  # an invalid escape
            raise ValueError(printed) from error
        position = literal.end()
    return values
