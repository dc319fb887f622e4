"""Experiment tracking: what a tracker is given of a run, while it goes on and when it is finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.results import Cell, Manifest, SuiteResult, TaskResult
from harness.store.run_log import RunLine


@dataclass(frozen=True)
class Tracked:
    """A task on a model, or the tasks of a suite on it.

    Attributes:
        model: the model's name.
        name: the task's name, or the suite's.
        manifests: by task, what each cell is.
    """

    model: str
    name: str
    manifests: Mapping[str, Mapping[Cell, Manifest]]


@dataclass(frozen=True)
class Finished:
    """What there is of it when it is finished.

    Attributes:
        result: the grid, or one grid per task of the suite.
        plots: by task, and by suite, images of the whole grid.
        runs: by task, what computed it.
    """

    result: TaskResult | SuiteResult
    plots: Mapping[str, Sequence[Path]]
    runs: Mapping[str, Sequence[RunLine]]

    @property
    def tasks(self) -> Sequence[TaskResult]:
        """The grids."""
        return self.result.tasks if isinstance(self.result, SuiteResult) else [self.result]


class LiveRun(Protocol):
    """What shows a run while it goes on; it is used by one thread at a time."""

    def log(self, values: dict[str, Any]) -> None:
        """Show numbers as they are now."""
        ...

    def finish(self, exit_code: int | None = None) -> None:
        """End it; 0 or None if all went well."""
        ...


class Tracker(Protocol):
    """Takes grids somewhere. Records are the truth: what a tracker loses, ``kvgauge wandb`` sends again."""

    def begin(self, tracked: Tracked) -> LiveRun | None:
        """Begin to show what a run computes, beside the run and in a thread of its own.

        Whatever is raised here or by what is returned costs the run nothing but this.

        Returns:
            What takes the numbers; None if this tracker shows finished grids alone.
        """
        ...

    def log(self, tracked: Tracked, finished: Finished, live: LiveRun | None = None) -> None:
        """Send finished grids.

        Args:
            tracked: what they are of.
            finished: their results.
            live: what ``begin`` returned and has shown the run so far, to be finished with this; None if there is none.

        Raises:
            TrackerError: they cannot be sent.
            StoreError: the tracker's own files cannot be written.
        """
        ...


def reason(error: Exception) -> str:
    """Why something failed: the beginning of its first line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


@dataclass(frozen=True)
class NoTracker:
    """``tracker=none``: nothing leaves the results folder."""

    def begin(self, tracked: Tracked) -> LiveRun | None:
        """Show nothing."""
        return None

    def log(self, tracked: Tracked, finished: Finished, live: LiveRun | None = None) -> None:
        """Send nothing."""
