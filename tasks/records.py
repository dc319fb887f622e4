"""The records of a benchmark's file, JSON lines or one JSON list, checked field by field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import DataError
from tasks.checks import short
from tasks.jsonl import Kind, check_fields, read_lines

Row = dict[str, Any]


@dataclass(frozen=True)
class Records:
    """The records of one file.

    Attributes:
        rows: the records, in the order of the file, with the fields that were asked for alone.
        sha256: hash of the records' values; it does not depend on line ends, or on lines or a list.
    """

    rows: tuple[Row, ...]
    sha256: str


def parse(raw: bytes, file: str, kinds: Mapping[str, Kind], remedy: str, key: str | None = None) -> Records:
    """The records in a file.

    Args:
        raw: contents of the file.
        file: its name, for errors.
        kinds: the fields of a record; others are left out.
        remedy: end of error messages.
        key: the field that no two records share; None if there is none.

    Raises:
        DataError: there is no record, or one is not of these fields, or repeats another's key.
    """
    rows: list[Row] = []
    first: dict[Any, str] = {}
    digest = hashlib.sha256()
    for where, values in _objects(raw, file, remedy):
        check_fields(values, kinds, where, remedy)
        if key and first.setdefault(values[key], where) != where:
            raise DataError(f"{where} repeats the {key} of {first[values[key]].partition(' of ')[0]}: {remedy}")
        rows.append({field: values[field] for field in kinds})
        line = json.dumps(list(rows[-1].values()), ensure_ascii=False, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    if not rows:
        raise DataError(f"{file} holds no record: {remedy}")
    return Records(tuple(rows), digest.hexdigest())


def _objects(raw: bytes, file: str, remedy: str) -> Iterator[tuple[str, Row]]:
    if not raw.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[\n") and not raw.lstrip().startswith(b"[{"):
        yield from read_lines(raw, file, "record", remedy)
        return
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        reason = str(error).split(":")[0] if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise DataError(f"{file} is not JSON ({reason}), as in a file that was cut: {remedy}") from error
    for number, value in enumerate(values, start=1):
        where = f"record {number} of {file}"
        if not isinstance(value, dict):
            raise DataError(f"{where} is {short(value)}, not a record: {remedy}")
        yield where, value
