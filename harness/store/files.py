"""Reading and writing of files in a results folder: atomic replacement, size limits, and errors in one line."""

from __future__ import annotations

import json
import math
import os
import uuid
from pathlib import Path
from typing import Any

from harness.errors import StoreError

MAX_RECORD_BYTES = 16 * 2**20
"""Largest line of a records file, and largest file with a single object; a thousand times a record of LongBench."""
_DEEPEST = 32
"""How deep lists and objects may be nested."""


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

    Args:
        path: the file or folder.
        done: ``read`` or ``written``.
        error: the reason.
    """
    remedy = "make it readable, or choose another folder"
    if done == "written":
        remedy = (
            "make room or choose another results_dir; what is finished is kept, and the same command goes on from there"
        )
    return StoreError(f"{path} cannot be {done} ({error.strerror or type(error).__name__}): {remedy}")
