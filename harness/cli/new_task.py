"""``kvgauge new task FILE``: a preset for a file of your own data, made by looking at it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from rich.console import Console

from harness.config.build import find_class
from harness.config.catalog import choice, choices
from harness.errors import ConfigError, StoreError
from harness.text import check_name, label_of

_PRESET = "jsonl"
"""The preset that the new one goes on from; its task drafts settings for a file."""


class _Drafting(Protocol):
    """A task that can draft its settings."""

    @staticmethod
    def drafted(path: Path) -> tuple[Mapping[str, Any], Sequence[str]]:
        """Settings that fit a file, and sentences on what was seen in it.

        Raises:
            DataError: the file cannot be read or understood.
        """
        ...


def new_task(file: Path, label: str | None, clone: Path, folder: Path | None, console: Console) -> None:
    """Write the preset of a file, and print commands that use it.

    Args:
        file: the file.
        label: the preset's name; None for the file's name without its ending.
        clone: the clone to write into.
        folder: a folder of the user's own to write into instead.
        console: where to print.

    Raises:
        ConfigError: the name is taken, or there is no clone.
        DataError: the file cannot be read or understood.
        StoreError: the preset cannot be written.
    """
    root = (clone / "conf" if folder is None else folder).expanduser()
    if folder is None and not (root / "task").is_dir():
        raise ConfigError(f"{clone} is no clone of kvgauge (it has no conf/task): go there, or give --task-path FOLDER")
    settings, seen = cast("type[_Drafting]", find_class(choice("task", _PRESET).target)).drafted(file)
    name = label_of(file.name) if label is None else check_name(label, "--name")
    if name in {choice.name for choice in choices("task")}:
        raise ConfigError(f"task {name} is there already: give another one with --name")
    path = root / "task" / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"{path} is there already: move it away, or give another --name")
    write(path, _yaml(name, file, settings, seen), console)
    for sentence in seen:
        console.print(sentence, markup=False, soft_wrap=True)
    words = f"task={name}" if folder is None else f"{shlex.quote(f'task_path={root}')} task={name}"
    console.print(f"kvgauge show prompt {words} model=tiny", markup=False, soft_wrap=True)
    console.print(f"python run.py {words} method=[fullkv,snapkv] budget=[64,128]", markup=False, soft_wrap=True)


def write(path: Path, text: str, console: Console) -> None:
    """Write a file with the folders it lies in, and print its path.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}): make the folder writable") from error
    console.print(str(path), markup=False, soft_wrap=True)


def _yaml(name: str, file: Path, settings: Mapping[str, Any], seen: Sequence[str]) -> str:
    """The preset; values are written as JSON, which YAML reads."""
    values = {"name": name, "data": str(file.expanduser().resolve()), **settings}
    return "\n".join(
        [
            f"# {file.name}, asked and scored as its records suggest.",
            *(f"# {sentence}" for sentence in seen),
            f"# All settings, with what they mean: kvgauge show task {_PRESET}",
            "defaults:",
            f"  - {_PRESET}",
            "  - _self_",
            *(f"{knob}: {json.dumps(value, ensure_ascii=False)}" for knob, value in values.items()),
            "",
        ]
    )
