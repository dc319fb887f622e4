"""Experiment tracking; the only importer of wandb."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

import pandas as pd

from harness.aggregate import cell_summary, full_cache, percent_of
from harness.errors import ConfigError
from harness.schema import Cell, CellResult, Manifest, Metric, TaskResult


class Tracker(Protocol):
    """Takes a finished grid somewhere. Records are the truth: what a tracker loses can be sent again."""

    def log(self, result: TaskResult, manifests: Mapping[Cell, Manifest], plots: Sequence[Path]) -> None:
        """Send a grid.

        Args:
            result: the grid.
            manifests: what each cell is.
            plots: images of the whole grid.
        """
        ...


@dataclass(frozen=True)
class NoTracker:
    """``tracker=none``: nothing leaves the results folder."""

    def log(self, result: TaskResult, manifests: Mapping[Cell, Manifest], plots: Sequence[Path]) -> None:
        pass


@dataclass(frozen=True)
class Wandb:
    """``tracker=wandb``: one W&B run per cell, grouped by model and task, under an id that the cell's settings give.

    Attributes:
        project: W&B project.
        entity: W&B team or user; None for the account's default.
        mode: ``online``, ``offline`` or ``disabled``.
        dir: folder for W&B's files.

    Raises:
        ConfigError: an unknown mode.
    """

    project: str
    entity: str | None
    mode: Literal["online", "offline", "disabled"]
    dir: str

    def __post_init__(self) -> None:
        if self.mode not in ("online", "offline", "disabled"):
            raise ConfigError(f"tracker.mode={self.mode} is unknown: use online, offline or disabled")

    def log(self, result: TaskResult, manifests: Mapping[Cell, Manifest], plots: Sequence[Path]) -> None:
        import wandb

        full = full_cache(result.cells)
        try:
            Path(self.dir).mkdir(parents=True, exist_ok=True)
            for cell in result.cells:
                self._log_cell(cell, full, result, manifests[cell.cell], plots)
        except wandb.Error as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f"W&B failed ({reason[0][:200]}): the records are kept; use tracker.mode=offline, or log in and run again"
            ) from error

    def _log_cell(self, cell: CellResult, full: CellResult | None, result: TaskResult, manifest: Manifest, plots: Sequence[Path]) -> None:
        import wandb

        settings = json.dumps(manifest.settings, sort_keys=True)
        summary = cell_summary(cell, result.metrics)
        if full and result.metrics:
            summary["percent_of_full"] = percent_of(cell, full, result.metrics[0])
        with wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=self.dir,
            group=f"{result.model}/{result.task}",
            name=cell.cell.name,
            # W&B takes letters, digits, '-' and '_' in an id.
            id=f"{cell.cell.name.replace('%', 'pct').replace('.', '_')}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}",
            resume="allow",
            config={**manifest.settings, "provenance": manifest.provenance},
            tags=[cell.cell.label, f"budget:{cell.cell.budget}", result.task],
        ) as run:
            run.log({path.stem: wandb.Image(str(path)) for path in plots})
            run.log({"examples": wandb.Table(dataframe=_examples(cell, result.metrics))})
            run.summary.update({name: value for name, value in summary.items() if value is not None})


def _examples(cell: CellResult, metrics: Sequence[Metric]) -> pd.DataFrame:
    columns = ["example_id", "references", "text", "error", *(metric.name for metric in metrics)]
    rows = [asdict(record) | {"references": list(record.references), **record.scores} for record in cell.records]
    return pd.DataFrame(rows).reindex(columns=columns)
