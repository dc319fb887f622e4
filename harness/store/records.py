"""The records files of a cell, JSON lines of one process each, read fast and in little memory."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from harness.errors import StoreError
from harness.results import Kept, Record
from harness.store.files import MAX_RECORD_BYTES, Unfit, failed, is_plain
from harness.text import plain

_SAME_IN_ALL_CELLS = ("group", "references", "details", "prompt_sha256", "prompt_ends")
"""Fields of a record that depend on the example alone."""
_READ = msgspec.json.Decoder(Record).decode


def read_records(
    folder: Path, alike: Mapping[str, Record] | None = None, *, known_alone: bool = False
) -> dict[str, Record]:
    """A cell's records, by example.

    If an example has several, the last one counts, but an error record never counts over a result.

    Args:
        folder: the cell's folder.
        alike: records of another cell, by example. Fields that a record has in common with the one of the same example
            there are shared, so that a large grid holds references and details once and not once per cell.
        known_alone: whether fields that this version does not know are left out, instead of an error.

    Raises:
        StoreError: a file cannot be read, or a line other than a torn last one is not a record.
    """
    records: dict[str, Record] = {}
    kept: dict[Kept, Kept] = {}
    collects = gc.isenabled()
    gc.disable()  # it would visit a million live objects again and again
    try:
        for path in sorted(folder.glob("records.*.jsonl")):
            with path.open("rb") as file:
                # Anything after the last line break is a torn line.
                lines = iter(partial(file.readline, MAX_RECORD_BYTES + 1), b"")
                for number, line in enumerate(lines, 1):
                    if line.endswith(b"\n"):
                        record = _record(line, path, number, kept, alike or {}, known_alone)
                        if (
                            record.error is None
                            or (old := records.get(record.example_id)) is None
                            or old.error is not None
                        ):
                            records[record.example_id] = record
                    elif len(line) > MAX_RECORD_BYTES:
                        raise StoreError(
                            f"line {number} of {path} is longer than the {MAX_RECORD_BYTES} bytes of a record: "
                            "delete that line, and its example is computed again"
                        )
    except OSError as error:
        raise failed(folder, "read", error) from error
    finally:
        if collects:
            gc.enable()
    return records


def _record(
    line: bytes,
    path: Path,
    number: int,
    kept: dict[Kept, Kept],
    alike: Mapping[str, Record],
    known_alone: bool,
) -> Record:
    """The record on one line, sharing equal parts with earlier records.

    Args:
        line: the line.
        path: its file, for errors.
        number: number of the line in the file, from 1, for errors.
        kept: the ``kept`` tuples of earlier lines; a new one is added.
        alike: records of another cell, as in ``read_records``.
        known_alone: as in ``read_records``.

    Raises:
        StoreError: the line is not a record.
    """
    try:
        try:
            record = _READ(line)
        except msgspec.ValidationError:
            values = _object(line)
            if not (unknown := values.keys() - set(Record.__struct_fields__)):
                raise
            if not known_alone:
                raise StoreError(
                    f"line {number} of {path} is not a record of this version of kvgauge, which does not know "
                    f"{plain(min(unknown))[:40]!r}: use the version that wrote it, or another results folder"
                ) from None
            record = msgspec.convert({name: values[name] for name in values.keys() - unknown}, Record)
        except msgspec.DecodeError:
            # Unlike msgspec, json accepts lone surrogates, which a model can generate.
            record = msgspec.convert(json.loads(line, parse_constant=_no_number), Record)
        if kept and record.kept and len(record.kept) != len(next(iter(kept))):
            raise Unfit(f"`kept` has {len(record.kept)} layers, {len(next(iter(kept)))} before")
        if record.kept:
            force_setattr(record, "kept", kept.setdefault(record.kept, record.kept))
        twin = alike.get(record.example_id)
        if record.details and not (twin and record.details == twin.details) and not is_plain(record.details):
            raise Unfit("its details")
        for name in _SAME_IN_ALL_CELLS if twin else ():
            if getattr(record, name) == (shared := getattr(twin, name)):
                force_setattr(record, name, shared)
        return record
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        reason = str(error) if isinstance(error, Unfit | msgspec.DecodeError) else type(error).__name__
        raise StoreError(
            f"line {number} of {path} is not a record ({reason}): delete that line, and its example is computed again"
        ) from error


def _object(line: bytes) -> dict[str, Any]:
    """The object on a line; empty if there is none."""
    try:
        values = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _no_number(word: str) -> None:
    raise Unfit(f"the number {word}")


def stamp(folder: Path) -> tuple[tuple[str, int], ...]:
    """The names and sizes in bytes of a cell's records files; a different stamp means that records were added."""
    return tuple((file.name, file.stat().st_size) for file in sorted(folder.glob("records.*.jsonl")))


def has_records(folder: Path) -> bool:
    """Whether a cell's folder contains any record; without one, a run ended after it wrote the manifest."""
    return any(file.stat().st_size for file in folder.glob("records.*.jsonl"))
