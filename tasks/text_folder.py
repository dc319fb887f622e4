"""The text of a folder of ``.txt`` files, joined in the order of their names."""

from __future__ import annotations

from pathlib import Path

from harness.errors import DataError
from tasks.checks import short


def joined_texts(source: str, setting: str, instead: str = "") -> str:
    """The text of a folder's ``*.txt`` files, in the order of their names, with nothing between them.

    A byte-order mark at the beginning of a file is no part of its text.

    Args:
        source: the folder.
        setting: name of the setting, for errors: ``task.haystack``.
        instead: what else the setting may be, for errors; "" if nothing.

    Raises:
        DataError: the folder is missing, contains no ``.txt`` file, one that leads nowhere, is not UTF-8 or holds the
            same text as another, or nothing but white space.
    """
    given = f"{setting}={short(source)}"
    files = _files(source, given, instead)
    if not files:
        raise DataError(f"{given} holds no .txt file: give a folder of .txt files{instead and f', or {instead}'}")
    texts = [_read(path, setting) for path in files]
    names: dict[str, str] = {}
    for path, text in zip(files, texts, strict=True):
        if text.strip() and names.setdefault(text, path.name) != path.name:
            raise DataError(f"{names[text]} and {path.name} in {given} hold the same text: take one away")
    if not names:
        raise DataError(
            f"{given} holds no text in its {len(files)} .txt files: fill one{instead and f', or use {instead}'}"
        )
    return "".join(texts)


def _files(source: str, given: str, instead: str) -> list[Path]:
    """The ``.txt`` files of a folder, sorted by name; hidden ones and folders are left out."""
    try:
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise DataError(f"{given} is not a folder: give a folder of .txt files{instead and f', or {instead}'}")
        files = [path for path in folder.glob("*.txt") if not path.is_dir() and not path.name.startswith(".")]
        if dead := sorted(path.name for path in files if not path.is_file()):
            raise DataError(f"{dead[0]} in {given} is a link that leads to no file: mend it or take it away")
    except (OSError, RuntimeError, ValueError) as error:  # unreadable, no home folder for ~, a null byte
        raise DataError(f"{given} cannot be listed ({type(error).__name__}): give a readable folder") from error
    return sorted(files, key=lambda path: path.name)


def _read(path: Path, setting: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} in {setting} is not UTF-8 at byte {error.start}: convert it to UTF-8") from error
    except OSError as error:
        raise DataError(
            f"{path.name} in {setting} cannot be read ({type(error).__name__}): make it readable or take it away"
        ) from error
