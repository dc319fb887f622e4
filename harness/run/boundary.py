"""Checks of a run that compresses before the question: what it needs to know, and what no average goes over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.compression.grid import Plan
from harness.compression.storage import EXACT
from harness.errors import ConfigError, StoreError
from harness.results import Cell
from harness.store.manifest import boundary, read_manifest
from harness.store.records import has_records
from harness.task import Example


def check_questions(task: str, examples: Sequence[Example]) -> None:
    """Refuse to compress before the question if a task does not say where its questions begin.

    Args:
        task: the task's name.
        examples: its examples.

    Raises:
        ConfigError: names the task and the first such example.
    """
    unknown = [example.id for example in examples if example.question_at is None]
    if unknown:
        raise ConfigError(
            f"selection.after=context needs to know where questions begin, and task={task} does not say it of "
            f"{len(unknown)} of {len(examples)} examples, such as {unknown[0]!r} (Example.question_at): use "
            "selection.after=prompt"
        )


def check_conversations(task: str, examples: Sequence[Example], after: str, plans: Mapping[Cell, Plan]) -> None:
    """Refuse conversations on the model's own answers unless the context alone is compressed, once.

    Args:
        task: the task's name.
        examples: its examples.
        after: where entries are selected.
        plans: what is kept of some context.

    Raises:
        ConfigError: names the task, or a variant.
    """
    if all(example.follows is None for example in examples):
        return
    if after == "prompt":
        raise ConfigError(
            f"task={task} goes on with the model's own answers in a cache that is compressed once, before its "
            "questions: use selection.after=context, or questions without a past"
        )
    for cell, plan in plans.items():
        if plan.eviction is not None or plan.storage != EXACT:
            how = "evicts while it decodes" if plan.eviction is not None else "stores entries in another form"
            raise ConfigError(
                f"{cell.name} {how}, and task={task} goes on with the model's own answers, which stay as they are: "
                "leave it out, or ask questions without a past"
            )


def check_suite(folder: Path, suite: object, task: str, after: str) -> None:
    """Refuse to add a task to a suite whose other tasks have another boundary, as no average goes over both.

    Args:
        folder: the model's folder.
        suite: the suite's name; that of the task itself if it belongs to none.
        task: the task's name.
        after: the boundary of the task.

    Raises:
        StoreError: names a cell with another boundary.
    """
    if suite == task:
        return
    seen: set[Path] = set()
    for cell in sorted(file.parent for file in folder.glob("*/*/manifest.json")):
        manifest = read_manifest(cell) if cell.parent not in seen and has_records(cell) else None
        other = boundary(manifest.settings) if manifest is not None else None
        if manifest is None or other is None:
            continue
        seen.add(cell.parent)  # all cells of a task have the same
        if manifest.task_config["name"] == suite and other != after:
            raise StoreError(
                f"{cell} was made with selection.after={other}, and no average of {suite} goes over both boundaries: "
                f"use selection.after={other}, another task.name or another results folder"
            )
