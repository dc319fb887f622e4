"""Weights & Biases: runs of a results folder's cells; the only importer of wandb."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from harness.errors import StoreError, TrackerError
from harness.report.plots import curves
from harness.report.stats.curves import score_curves
from harness.report.stats.table import table
from harness.results import Cell, CellResult, Manifest, TaskResult
from harness.store.run_log import RunLine
from harness.task import Metric
from harness.values import check

if TYPE_CHECKING:
    import wandb

_PATIENCE_SECONDS = 60.0
"""How long W&B may take to begin a run, and again to end it."""


@dataclass(frozen=True)
class Wandb:
    """``tracker=wandb``: one W&B run per cell, grouped by model and task, under an id that the cell's settings give.

    Attributes:
        project: W&B project; None for ``WANDB_PROJECT`` of the environment, or kvgauge.
        entity: W&B team or user; None for ``WANDB_ENTITY``, or the account's default.
        mode: ``online``, ``offline`` or ``disabled``; None for ``WANDB_MODE``, or online.
        dir: folder for W&B's files.

    Raises:
        ConfigError: a setting that cannot be used.
    """

    project: str | None
    entity: str | None
    mode: Literal["online", "offline", "disabled"] | None
    dir: str

    def __post_init__(self) -> None:
        check(self, "tracker")

    def log(
        self, result: TaskResult, manifests: Mapping[Cell, Manifest], plots: Sequence[Path], runs: Sequence[RunLine]
    ) -> None:
        """Log each cell of a grid as a run of its own; see ``Tracker``."""
        raw = table(result)
        rows = raw.to_dict("records")
        try:
            Path(self.dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"W&B's files cannot be written to {self.dir} ({error.strerror}): choose another folder with "
                "--dir, or in a run with tracker.dir="
            ) from error
        try:
            _log_in(self.mode)
            with TemporaryDirectory() as folder:
                images = [*plots, *_curves(result, raw, Path(folder))]
                for cell, row in zip(result.cells, rows, strict=True):
                    self._log_cell(cell, {**row, **_cost(cell.cell, runs)}, result, manifests[cell.cell], images)
        except Exception as error:  # W&B's own, and those of what it is built on
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise TrackerError(
                f"W&B failed ({reason[0][:200]}): the records are whole; kvgauge wandb sends them, with --mode offline "
                "without a network"
            ) from error

    def _log_cell(
        self,
        cell: CellResult,
        row: Mapping[Hashable, Any],
        result: TaskResult,
        manifest: Manifest,
        images: Sequence[Path],
    ) -> None:
        import wandb

        settings = json.dumps(manifest.settings, sort_keys=True)
        slug = cell.cell.name.replace("%", "pct").replace(".", "_")
        named = {"model": result.model, "task": result.task, "method": cell.cell.label, "budget": cell.cell.budget}
        with wandb.init(
            project=self.project or os.environ.get("WANDB_PROJECT") or "kvgauge",
            entity=self.entity,
            mode=_mode(self.mode),
            dir=self.dir,
            group=f"{result.model}/{result.task}",
            name=cell.cell.name,
            # W&B takes letters, digits, '-' and '_' in an id.
            id=f"{slug}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}",
            resume="allow",
            config={**manifest.settings, "cell": named, "provenance": manifest.provenance},
            tags=[cell.cell.label, f"budget:{cell.cell.budget}", result.task],
            # Manifests say where numbers come from. What W&B would gather of this process by itself may not be for
            # others: addresses of remotes, arguments, output.
            settings=_settings(
                console="off", disable_code=True, disable_git=True, x_disable_meta=True, x_disable_stats=True
            ),
        ) as run:
            examples = wandb.Table(dataframe=_examples(cell, result.metrics))
            run.log({**{path.stem: wandb.Image(str(path)) for path in images}, "examples": examples})
            run.summary.update({str(name): value for name, value in row.items() if not pd.isna(value)})


def _settings(**settings: Any) -> wandb.Settings:
    """Settings of W&B, which says nothing of its own and gives up where the network is gone."""
    import wandb

    return wandb.Settings(
        silent=True,
        init_timeout=_PATIENCE_SECONDS,
        finish_timeout=_PATIENCE_SECONDS,
        finish_timeout_raises=True,
        **settings,
    )


def _mode(mode: str | None) -> Any:
    return mode or os.environ.get("WANDB_MODE") or "online"


def _log_in(mode: str | None) -> None:
    """Find the key, where one is needed; W&B would ask for it on the terminal and wait.

    Raises:
        wandb.Error: there is none.
    """
    import wandb

    wandb.setup(_settings())
    if _mode(mode) == "online" and not wandb.login(prompt=False):
        raise wandb.Error("no key: give one with wandb login or WANDB_API_KEY")


def _cost(cell: Cell, runs: Sequence[RunLine]) -> dict[Hashable, Any]:
    """What the processes that wrote a cell took, for all cells that they wrote together."""
    ended = [run for run in runs if cell.name in run.cells and run.seconds]
    if not ended:
        return {}
    largest = max(ended, key=lambda run: run.peak_bytes)
    tokens = sum(run.prefilled_tokens + run.generated_tokens for run in ended)
    seconds = sum(run.seconds for run in ended)
    return {"peak_bytes": largest.peak_bytes, "peak_of": largest.peak_of, "tokens_per_second": tokens / seconds}


def _curves(result: TaskResult, raw: pd.DataFrame, folder: Path) -> list[Path]:
    """Scores by budget and by retention, as images; none where there is no score."""
    if not result.metrics or raw["score"].isna().all():
        return []
    paths = []
    for drawn in score_curves(raw):
        paths.append(folder / f"{drawn.stem}.png")
        curves(drawn, f"{result.task} on {result.model}", f"{result.metrics[0].title} (0-100)", paths[-1])
    return paths


def _examples(cell: CellResult, metrics: Sequence[Metric]) -> pd.DataFrame:
    """What each example is, what the cell made of it, and what that scored."""
    groups = dict.fromkeys(key for record in cell.records for key in record.group)
    columns = ["example_id", *groups, "references", "text", "error", *(metric.name for metric in metrics), "retention"]
    rows = [
        {**record.to_json(), "references": list(record.references), **record.group, **record.scores}
        for record in cell.records
    ]
    return pd.DataFrame(rows).reindex(columns=columns)
