"""Recorded texts scored again, by the task that their manifest describes or with other scoring settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import structs

from harness.config.recorded import recorded_tasks
from harness.errors import ConfigError, StoreError
from harness.results import Manifest, Record
from harness.store.manifest import fingerprint
from harness.store.scoring import is_unscored, sampled_metrics, samples_of, with_scores
from harness.task import Example, Rescorable, Task


def recorded_task(manifest: Manifest, folder: Path) -> Task:
    """The task of a cell, built from its manifest.

    Raises:
        ConfigError: the task cannot be built.
        StoreError: the recorded configuration has no task of this name.
    """
    tasks, _ = recorded_tasks(manifest.task_config)
    own = next((task for task in tasks if task.name == manifest.task), None)
    if own is None:
        raise StoreError(
            f"{folder} is of task {manifest.task}, which its configuration does not have: compute the cell again"
        )
    return own


def rescored(record: Record, task: Task) -> Record:
    """A record with the scores that the task gives its text now; one without a result or a text to score is unchanged.

    Raises:
        StoreError: the task cannot score the record.
    """
    if record.error is not None and not is_unscored(record):
        return record
    example = Example(
        id=record.example_id, prompt=(), references=tuple(record.references), group=record.group, details=record.details
    )
    again = with_scores(record, task, example)
    if again.error is None:
        return again
    raise StoreError(f"example {record.example_id!r} of task {task.name} {again.error}")


def with_scoring(manifest: Manifest, folder: Path, values: Mapping[str, Any]) -> Manifest:
    """The manifest of the same texts with other scoring settings; equal to the old one if these do not change.

    Args:
        manifest: the cell's manifest.
        folder: the cell's folder.
        values: new settings of the task, named without ``task.``.

    Raises:
        ConfigError: a setting changes more than scores, or cannot have this value.
        StoreError: as ``recorded_task``.
    """
    old = recorded_task(manifest, folder)
    if not isinstance(old, Rescorable):
        raise ConfigError(
            f"task {manifest.task} is scored in one way only: leave --set out, or give the folder of another task"
        )
    if fixed := sorted(set(values) - old.scoring_knobs):
        knobs = ", ".join(f"task.{knob}" for knob in sorted(old.scoring_knobs))
        raise ConfigError(
            f"task.{fixed[0]} of {manifest.task} does not change scores alone: run it again, set one of {knobs}, or "
            "give the folder of another task"
        )
    config = {**manifest.task_config, **values}
    new = recorded_task(structs.replace(manifest, task_config=config), folder)
    assert isinstance(new, Rescorable)
    settings = dict(manifest.settings)
    if "task" in settings:
        kept = {name: value for name, value in settings["task"].items() if name not in old.score_settings()}
        settings["task"] = {**kept, **new.score_settings()}
    origin = {**manifest.provenance, "fingerprint": fingerprint(settings)}
    metrics = sampled_metrics(new.metrics, samples_of(manifest.settings))
    return structs.replace(manifest, task_config=config, settings=settings, metrics=metrics, provenance=origin)


def other_scoring(manifest: Manifest, folder: Path, other: Manifest) -> dict[str, Any]:
    """The scoring settings in which another cell of the same task differs, if it differs in nothing else.

    Args:
        manifest: a cell's manifest.
        folder: that cell's folder.
        other: the other cell's manifest.

    Returns:
        The other cell's values by setting; empty if the two differ in other settings of the task, too.

    Raises:
        ConfigError, StoreError: as ``recorded_task``.
    """
    task = recorded_task(manifest, folder)
    knobs = task.scoring_knobs if isinstance(task, Rescorable) else ()
    values = {
        knob: other.task_config.get(knob)
        for knob in sorted(knobs)
        if other.task_config.get(knob) != manifest.task_config.get(knob)
    }
    alike = with_scoring(manifest, folder, values) if values else manifest
    return values if alike.settings.get("task") == other.settings.get("task") else {}
