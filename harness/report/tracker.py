"""Experiment tracking; the only importer of wandb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.results import Cell, Manifest, TaskResult
from harness.store.run_log import RunLine


class Tracker(Protocol):
    """Takes a finished grid somewhere. Records are the truth: what a tracker loses, ``kvgauge wandb`` sends again."""

    def log(
        self, result: TaskResult, manifests: Mapping[Cell, Manifest], plots: Sequence[Path], runs: Sequence[RunLine]
    ) -> None:
        """Send a grid.

        Args:
            result: the grid.
            manifests: what each cell is.
            plots: images of the whole grid.
            runs: what computed it.

        Raises:
            TrackerError: it cannot be sent.
            StoreError: the tracker's own files cannot be written.
        """
        ...


@dataclass(frozen=True)
class NoTracker:
    """``tracker=none``: nothing leaves the results folder."""

    def log(
        self, result: TaskResult, manifests: Mapping[Cell, Manifest], plots: Sequence[Path], runs: Sequence[RunLine]
    ) -> None:
        """Send nothing."""
