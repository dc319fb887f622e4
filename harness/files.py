"""Files that are whole at any moment."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


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
    except OSError:
        partial.unlink(missing_ok=True)
        raise
