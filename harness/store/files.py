"""Reading and writing of files in a results folder: atomic replacement, size limits, and errors in one line."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.text import size_text

MAX_RECORD_BYTES = 16 * 2**20
"""Largest line of a records file, and largest file with a single object; a thousand times a record of LongBench."""
_DEEPEST = 32
"""How deep lists and objects may be nested."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""There is no room: on the disk, for the user, in a file."""


class Unfit(ValueError):
    """The contents of a file are not what they should be; the message says why."""


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that it always contains either the old text or the new one, even if others replace it as well.

    A lone surrogate, which UTF-8 cannot encode, becomes its JSON escape.

    Raises:
        OSError: the file cannot be written, and is unchanged.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # a signal's exception, too
        partial.unlink(missing_ok=True)
        raise


def append_line(path: Path, line: bytes) -> None:
    """Append a line, and sync it; what a killed process left of its last line is ended first.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("a+b") as file:
        torn = False
        if file.tell():
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        file.write(b"\n" * torn + line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most ``MAX_RECORD_BYTES`` bytes.

    Raises:
        OSError, RecursionError: the file cannot be read.
        TypeError, ValueError: the file contains something else, or is too large.
    """
    with path.open("rb") as file:
        text = file.read(MAX_RECORD_BYTES + 1)
    if len(text) > MAX_RECORD_BYTES:
        raise Unfit(f"more than {MAX_RECORD_BYTES} bytes")
    values = json.loads(text.decode("utf-8"))
    if not isinstance(values, dict):
        raise TypeError
    if not is_plain(values):
        raise Unfit("a number that is none, or lists in lists without end")
    return values


def is_plain(values: object) -> bool:
    """Whether a parsed JSON value is nested no deeper than ``_DEEPEST`` and contains no NaN or infinity."""
    level = [values]
    for _ in range(_DEEPEST):
        if any(isinstance(value, float) and not math.isfinite(value) for value in level):
            return False
        containers = [value for value in level if isinstance(value, dict | list)]
        level = [item for value in containers for item in (value.values() if isinstance(value, dict) else value)]
        if not level:
            return True
    return False


def failed(path: Path, done: str, error: OSError) -> StoreError:
    """The error for a path that cannot be ``read`` or ``written``.

    On a full disk it says where, how much is free there, and what is safe.

    Args:
        path: the file or folder.
        done: ``read`` or ``written``.
        error: the reason.
    """
    remedy = "make it readable, or choose another folder"
    if isinstance(error, NotADirectoryError):
        file = next(part for part in (path, *path.parents) if part.exists())
        return StoreError(f"{file} is a file, where a folder is to be: choose another folder")
    if done == "written":
        remedy = "make it writable or choose another folder; what is finished is kept"
    if done == "written" and error.errno in _FULL:
        folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
        counts = ((place, _records_below(place)) for place in (folder, folder.parent))
        safe = next((f"the {count:,} records in {place} are safe" for place, count in counts if count), "")
        remedy = (
            f"make room in {folder}, where {_free(folder)}; {safe or 'what is finished is safe'}, and the same command "
            "goes on from there"
        )
    return StoreError(f"{path} cannot be {done} ({error.strerror or type(error).__name__}): {remedy}")


def _free(folder: Path) -> str:
    """How much room there is, in words; a quota or a limit of the process can be less than the disk has."""
    try:
        return f"{size_text(shutil.disk_usage(folder).free)} are free on the disk"
    except OSError:
        return "free room is unknown"


def _records_below(folder: Path) -> int:
    count = 0
    for path in folder.rglob("records.*.jsonl"):
        with suppress(OSError), path.open("rb") as file:
            count += sum(line.endswith(b"\n") for line in file)
    return count
