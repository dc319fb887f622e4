"""Files that are whole at any moment, and what is said of those that cannot be read or written."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from harness.errors import StoreError


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


def failed(path: Path, done: str, error: OSError) -> StoreError:
    """What is said of a path that cannot be ``read`` or ``written``."""
    remedy = "make it readable, or choose another folder"
    if done == "written":
        remedy = "make room or choose another results_dir; what is finished is kept, and the same command goes on from there"
    return StoreError(f"{path} cannot be {done} ({error.strerror or type(error).__name__}): {remedy}")
