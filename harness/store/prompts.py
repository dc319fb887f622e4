"""Prompts as the model read them, ``prompts.<worker>.jsonl`` beside the cells; no result depends on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from harness.store.files import MAX_RECORD_BYTES, append_line, failed
from harness.store.shards import Worker
from harness.text import packed, unpacked

_MOST = 64 * 2**20
"""Most bytes of an unpacked prompt, which is a few million tokens."""


class _Line(Struct, frozen=True):
    prompt_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    packed: str


class PromptFile:
    """The file of one worker, to which prompts are appended that no file of the task has."""

    def __init__(self, folder: Path, worker: Worker) -> None:
        """Read which prompts there are.

        Args:
            folder: the task's folder.
            worker: the worker that writes.
        """
        self._path = folder / f"prompts.{worker.name}.jsonl"
        self._known = set(saved_prompts(folder))

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._known

    def append(self, prompts: Iterable[tuple[str, str]]) -> None:
        """Append prompts.

        Args:
            prompts: hash (``Record.prompt_sha256``) and text of each.

        Raises:
            StoreError: the file cannot be written; the records are not touched.
        """
        try:
            for sha256, text in prompts:
                if sha256 not in self:
                    append_line(self._path, msgspec.json.encode(_Line(sha256, packed(text))))
                    self._known.add(sha256)
        except OSError as error:
            raise failed(self._path, "written", error) from error


def saved_prompts(folder: Path) -> dict[str, str]:
    """The prompts that a task's folder holds, packed, by hash; lines that cannot be read are skipped.

    Args:
        folder: the task's folder.
    """
    return {line.prompt_sha256: line.packed for path in sorted(folder.glob("prompts.*.jsonl")) for line in _lines(path)}


def read_prompt(saved: str) -> str:
    """The text of a packed prompt.

    Raises:
        ValueError: it is none, or a text of more than 64 MiB.
    """
    text = unpacked(saved, _MOST)
    if not isinstance(text, str):
        raise ValueError("not a text")
    return text


def _lines(path: Path) -> Iterator[_Line]:
    with suppress(OSError), path.open("rb") as file:
        for line in iter(partial(file.readline, MAX_RECORD_BYTES), b""):
            with suppress(ValueError, RecursionError):
                yield msgspec.json.decode(line, type=_Line)
