"""Files of a results folder: written as a whole, never read beyond a bound, and what is said of those that cannot be read or written."""

from __future__ import annotations

import json
import math
import os
import uuid
from pathlib import Path
from typing import Any

from harness.errors import StoreError

MAX_RECORD_BYTES = 16 * 2**20
"""Of a line, and of a file that holds one object; a thousand times what a record of LongBench has."""
_DEEPEST = 32
"""Lists and objects within each other."""


class Unfit(ValueError):
    """What a file holds is not what it is to be; the message says what."""


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole: whatever happens, it holds the old text or the new one, whoever else replaces it meanwhile.

    A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape.

    Raises:
        OSError: it cannot be written, and is what it was.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # a signal's, too
        partial.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one object; never more of it than a record may have.

    Raises:
        OSError, RecursionError: it cannot be read.
        TypeError, ValueError: it holds something else, or too much.
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
    """Whether what JSON gave is not deeper than what recurses over it goes, and has no numbers that JSON has not."""
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
    """What is said of a path that cannot be ``read`` or ``written``."""
    remedy = "make it readable, or choose another folder"
    if done == "written":
        remedy = (
            "make room or choose another results_dir; what is finished is kept, and the same command goes on from there"
        )
    return StoreError(f"{path} cannot be {done} ({error.strerror or type(error).__name__}): {remedy}")
