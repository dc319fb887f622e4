"""Records as they lie on disk: JSON lines of one process each, read fast and in little memory."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from harness.errors import StoreError
from harness.files import failed
from harness.schema import Record

_OF_AN_EXAMPLE = ("example_id", "group", "references", "details", "prompt_sha256", "prompt_ends")
_TEXT, _NUMBER = (str, type(None)), (float, int, type(None))
_KINDS: Mapping[str, tuple[type, ...]] = {
    "example_id": (str,), "group": (dict,), "references": (list,), "details": (dict,), "prompt_tokens": _NUMBER, "prompt_sha256": _TEXT,
    "tokens_before_truncation": _NUMBER, "prompt_ends": (list,), "tokens": (list,), "text": _TEXT, "scores": (dict,), "kept": (list,),
    "retention": _NUMBER, "kept_bytes": _NUMBER, "retention_bytes": _NUMBER, "kept_sha256": _TEXT, "tied_heads": _NUMBER,
    "alias_of": _TEXT, "audit": (dict, type(None)), "error": _TEXT,
}  # fmt: skip
MAX_RECORD_BYTES = 16 * 2**20
"""Of a line; a thousand times what a record of LongBench has."""


def read_records(folder: Path, alike: Mapping[str, Record] | None = None) -> dict[str, Record]:
    """A cell's records by example; of several for one example the last, and a result before any error.

    Args:
        folder: the cell's.
        alike: records of another cell, by example. What a record has in common with the one of its example there is held once, so that the
            prompts of a large grid are in memory once and not once per cell.

    Raises:
        StoreError: a file cannot be read, or a line other than a torn last one is not a record.
    """
    records: dict[str, Record] = {}
    once: dict[Any, Any] = {}
    collects = gc.isenabled()
    gc.disable()  # it would look at a million living objects again and again
    try:
        for path in sorted(folder.glob("records.*.jsonl")):
            with path.open("rb") as file:
                # What follows the last line break is torn, or nothing.
                lines = iter(partial(file.readline, MAX_RECORD_BYTES + 1), b"")
                for number, line in enumerate(lines, 1):
                    if line.endswith(b"\n"):
                        record = _record(line, path, number, once, alike or {})
                        if record.error is None or (old := records.get(record.example_id)) is None or old.error is not None:
                            records[record.example_id] = record
                    elif len(line) > MAX_RECORD_BYTES:
                        raise StoreError(
                            f"line {number} of {path} is longer than the {MAX_RECORD_BYTES} bytes of a record: delete that line, and its "
                            "example is computed again"
                        )
    except OSError as error:
        raise failed(folder, "read", error) from error
    finally:
        if collects:
            gc.enable()
    return records


def _record(line: bytes, path: Path, number: int, once: dict[Any, Any], alike: Mapping[str, Record]) -> Record:
    """One line; equal parts of records are one object.

    Raises:
        StoreError: it is no record.
    """
    try:
        try:
            values = orjson.loads(line)
        except orjson.JSONDecodeError:
            values = json.loads(line)  # which knows lone surrogates, as a model can write them
        kinds = (*values, *map(type, values.values()))  # those of one run are all alike, and checked once
        if kinds not in once:
            if wrong := [name for name, value in values.items() if name in _KINDS and type(value) not in _KINDS[name]]:
                raise TypeError(f"{wrong[0]} is not what it is to be")
            once[kinds] = True
        if tokens := values.get("tokens"):
            values["tokens"] = list(map(once.setdefault, tokens, tokens))
        if kept := values.get("kept"):
            values["kept"] = once.setdefault(tuple(kept), kept)
        if (twin := alike.get(values.get("example_id"))) is not None:
            for name in _OF_AN_EXAMPLE:
                if values.get(name) == (its := getattr(twin, name)):
                    values[name] = its
        return Record.from_json(values)
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            f"line {number} of {path} is not a record ({type(error).__name__}): delete that line, and its example is computed again"
        ) from error


def stamp(folder: Path) -> tuple[tuple[str, int], ...]:
    """The sizes of a cell's records files: another stamp says that records were added since."""
    return tuple((file.name, file.stat().st_size) for file in sorted(folder.glob("records.*.jsonl")))


def has_records(folder: Path) -> bool:
    """Whether anything was computed in a cell's folder; a manifest alone is a run that ended before its first record."""
    return any(file.stat().st_size for file in folder.glob("records.*.jsonl"))
