"""Models by their place: ``model=<folder>``, ``model=<file>`` or ``model=<hub id>``, besides the names of presets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.config.catalog import choices
from harness.errors import ConfigError

_GENERAL = "hf"
_NOT_A_SETTING = ("model_path", "model_name", "model.name_or_path", "pretrained")


def model_words(words: Sequence[str]) -> list[str]:
    """The words of a command line, with ``model=<place>`` replaced by the general preset and its path.

    A name of a preset stays one, also where a folder is called the same; ``model=./tiny`` is the folder.

    Raises:
        ConfigError: a word sets ``model_path`` or the like.
    """
    found: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in _NOT_A_SETTING:
            raise ConfigError(f"{name} is not a setting of this run: use model={value or '<folder or hub id>'}")
        if equals and name == "model" and (paths := _places(value)):
            found += [f"model={_GENERAL}", f"model.path={','.join(map(_quoted, paths))}"]
        else:
            found.append(word)
    return found


def _places(value: str) -> list[str]:
    """The places that a value names, several where it is a sweep; empty if it names presets or nothing there is."""
    presets = {preset.name for preset in choices("model")}
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    values = [value] if Path(value).exists() or "," not in value else value.split(",")
    return [_resolved(each) for each in values] if all(_is_place(each, presets) for each in values) else []


def _is_place(value: str, presets: Iterable[str]) -> bool:
    if value in presets or not value:
        return False
    return "/" in value or value in (".", "..") or value.endswith(".gguf") or Path(value).exists()


def _resolved(value: str) -> str:
    """The place with ``~``, ``.`` and ``..`` written out, so that its last part is a name."""
    path = Path(value).expanduser()
    if path.exists() and path.name in ("", ".."):
        return str(path.resolve())
    return str(path) if value.startswith("~") else value.rstrip("/")


def _quoted(value: str) -> str:
    """The value as a text of Hydra's grammar, whatever is in it."""
    return "'" + value.replace("'", "\\'") + "'"
