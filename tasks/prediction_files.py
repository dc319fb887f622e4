"""Files of predictions by other programs: found below a path, and read whole."""

from __future__ import annotations

from pathlib import Path

from harness.errors import DataError
from tasks.files import MAX_FILE_BYTES


def files_below(path: Path, pattern: str) -> list[Path]:
    """The files at or below a path, sorted by path.

    Args:
        path: a file of whatever name, or a folder.
        pattern: of the names of the files in a folder.

    Raises:
        DataError: there is no such path.
    """
    try:
        path = path.expanduser().resolve(strict=True)
        return [path] if path.is_file() else sorted(file for file in path.rglob(pattern) if file.is_file())
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}): give a file or folder of predictions"
        ) from error


def read_bytes(file: Path) -> bytes:
    """The contents of a file.

    Raises:
        DataError: it cannot be read, or is too large to hold predictions alone.
    """
    try:
        if (size := file.stat().st_size) > MAX_FILE_BYTES:
            raise DataError(
                f"{file} has {size} bytes, more than the {MAX_FILE_BYTES} that are read: give predictions alone"
            )
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({type(error).__name__}): make it readable") from error
