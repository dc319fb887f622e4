"""Records as they lie on disk: JSON lines of one process each, read fast and in little memory."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from harness.errors import StoreError
from harness.files import failed
from harness.schema import Record

_OF_AN_EXAMPLE = ("example_id", "group", "references", "details", "prompt_sha256", "prompt_ends")
_TEXT, _COUNT, _SHARE = (str, type(None)), (int, type(None)), (float, int, type(None))
_KINDS: Mapping[str, tuple[type, ...]] = {
    "example_id": (str,), "group": (dict,), "references": (list,), "details": (dict,), "prompt_tokens": _COUNT, "prompt_sha256": _TEXT,
    "tokens_before_truncation": _COUNT, "prompt_ends": (list,), "tokens": (list,), "text": _TEXT, "scores": (dict,), "kept": (list,),
    "retention": _SHARE, "kept_bytes": _COUNT, "retention_bytes": _SHARE, "kept_sha256": _TEXT, "tied_heads": _COUNT,
    "alias_of": _TEXT, "audit": (dict, type(None)), "error": _TEXT,
}  # fmt: skip
_AUDIT: Mapping[str, tuple[type, ...]] = {"same": (bool,), "first_divergence": _COUNT, "margin": _SHARE}
_NUMBERS = (float, int)
_LEAST, _LARGEST = 2**-53, 2**53
"""Of a number: what JSON's readers agree on."""
_DEEPEST = 32
"""Lists and objects within each other."""
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
    once = _Once()
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


class _Once:
    """What lines of one cell have in common: looked through once, and held once."""

    def __init__(self) -> None:
        self.kinds: set[tuple[object, ...]] = set()
        self.kept: dict[tuple[int, ...], list[int]] = {}
        self.tokens = _Tokens()
        self.layers = 0


class _Tokens(dict[int, int]):
    """Ids that are ids."""

    def __missing__(self, token: int) -> int:
        if type(token) is not int or not 0 <= token < 2**31:
            raise Unfit("its tokens")
        self[token] = token
        return token


class Unfit(ValueError):
    """What a file holds is not what it is to be; the message says what."""


def _record(line: bytes, path: Path, number: int, once: _Once, alike: Mapping[str, Record]) -> Record:
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
        if kinds not in once.kinds:
            if wrong := [name for name, value in values.items() if name in _KINDS and type(value) not in _KINDS[name]]:
                raise Unfit(f"its {wrong[0]}")
            once.kinds.add(kinds)
        if tokens := values.get("tokens"):
            values["tokens"] = list(map(once.tokens.__getitem__, tokens))
        if kept := values.get("kept"):
            values["kept"] = once.kept.get(tuple(kept)) or _kept(kept, once)
        if (twin := alike.get(values.get("example_id"))) is not None:
            for name in _OF_AN_EXAMPLE:
                if values.get(name) == (its := getattr(twin, name)):
                    values[name] = its
        record = Record.from_json(values)
        _check(record, twin)
        return record
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) if isinstance(error, Unfit) else type(error).__name__
        raise StoreError(
            f"line {number} of {path} is not a record ({reason}): delete that line, and its example is computed again"
        ) from error


def _kept(kept: list[int], once: _Once) -> list[int]:
    """Numbers of entries that no earlier line has; as many as those have.

    Raises:
        Unfit: they are none.
    """
    once.layers = once.layers or len(kept)
    if len(kept) != once.layers or not all(type(entries) is int and 0 < entries <= _LARGEST for entries in kept):
        raise Unfit("its kept")
    return once.kept.setdefault(tuple(kept), kept)


def _check(record: Record, twin: Record | None) -> None:
    """What the kinds of a record's fields do not say of it.

    Args:
        record: with fields of the right kinds.
        twin: one that was checked, of the same example.

    Raises:
        Unfit: with the first field.
    """
    prompt, cut, share = record.prompt_tokens, record.tokens_before_truncation, record.retention
    size, of_full, tied = record.kept_bytes, record.retention_bytes, record.tied_heads
    # Written out: a loop over fields takes a tenth of all reading.
    if not (
        (prompt is None or 1 <= prompt <= _LARGEST)
        and (cut is None or 1 <= cut <= _LARGEST)
        and (share is None or _LEAST <= share <= 1)
        and (size is None or 0 <= size <= _LARGEST)
        and (of_full is None or 0 <= of_full <= _LARGEST)
        and (tied is None or 0 <= tied <= _LARGEST)
    ):
        raise Unfit("one of its numbers")
    number: Any
    for number in record.scores.values():
        if type(number) not in _NUMBERS or not -_LARGEST <= number <= _LARGEST:
            raise Unfit("its scores")
    if twin is None or record.group is not twin.group:
        for number in record.group.values():
            if type(number) is not str and (type(number) not in _NUMBERS or not -_LARGEST <= number <= _LARGEST):
                raise Unfit("its group")
    if twin is None or record.references is not twin.references:
        for text in record.references:
            if type(text) is not str:
                raise Unfit("its references")
    if twin is None or record.prompt_ends is not twin.prompt_ends:
        for text in record.prompt_ends:
            if type(text) is not str:
                raise Unfit("its prompt_ends")
    if record.details and (twin is None or record.details is not twin.details) and not is_plain(record.details):
        raise Unfit("its details")
    if record.audit is not None:
        fits = record.audit.keys() == _AUDIT.keys() and all(type(value) in _AUDIT[name] for name, value in record.audit.items())
        if not fits or not is_plain(record.audit):
            raise Unfit("its audit")


def is_plain(values: object) -> bool:
    """Whether what JSON gave is not deeper than what recurses over it goes, and has no numbers that JSON has not."""
    level = [values]
    for _ in range(_DEEPEST):
        if any(isinstance(value, float) and not math.isfinite(value) for value in level):
            return False
        level = [item for of in level if isinstance(of, dict | list) for item in (of.values() if isinstance(of, dict) else of)]
        if not level:
            return True
    return False


def stamp(folder: Path) -> tuple[tuple[str, int], ...]:
    """The sizes of a cell's records files: another stamp says that records were added since."""
    return tuple((file.name, file.stat().st_size) for file in sorted(folder.glob("records.*.jsonl")))


def has_records(folder: Path) -> bool:
    """Whether anything was computed in a cell's folder; a manifest alone is a run that ended before its first record."""
    return any(file.stat().st_size for file in folder.glob("records.*.jsonl"))
