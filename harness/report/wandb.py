"""Weights & Biases: a run for each grid, or for each of its cells; the only importer of wandb."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, cast

import pandas as pd

from harness.errors import StoreError, TrackerError
from harness.report.stats.table import table
from harness.report.tracked import (
    Series,
    all_series,
    cell_examples,
    cells_frame,
    cost,
    curve_images,
    examples_frame,
    summary,
)
from harness.report.tracker import Finished, LiveRun, Tracked, reason
from harness.results import CellResult, Manifest, SuiteResult, TaskResult
from harness.values import check

if TYPE_CHECKING:
    import wandb

_PATIENCE_SECONDS = 60.0
"""How long W&B may take to begin a run, and again to end it."""

_MOST_ROWS = 10_000
"""Rows of a table that W&B shows."""


@dataclass(frozen=True)
class Wandb:
    """``tracker=wandb``: W&B runs under ids that their cells' settings give.

    Attributes:
        project: W&B project; None for ``WANDB_PROJECT`` of the environment, or kvgauge.
        entity: W&B team or user; None for ``WANDB_ENTITY``, or the account's default.
        mode: ``online``, ``offline`` or ``disabled``; None for ``WANDB_MODE``, or online.
        per: what a W&B run is: a ``grid``, which is a model on a task or on a suite of tasks, or a ``cell`` of it.
        dir: folder for W&B's files.

    Raises:
        ConfigError: a setting that cannot be used.
    """

    project: str | None
    entity: str | None
    mode: Literal["online", "offline", "disabled"] | None
    per: Literal["grid", "cell"]
    dir: str

    def __post_init__(self) -> None:
        check(self, "tracker")

    @property
    def is_offline(self) -> bool:
        """Whether runs stay on this machine until somebody sends them."""
        return bool(_mode(self.mode) == "offline")

    def begin(self, tracked: Tracked) -> LiveRun | None:
        """Begin the W&B run of a grid while it is computed; see ``Tracker``. Runs of cells begin when all is done."""
        if self.per == "cell":
            return None
        self._make_dir()
        _log_in(self.mode)
        return cast(LiveRun, self._grid_run(tracked))

    def log(self, tracked: Tracked, finished: Finished, live: LiveRun | None = None) -> None:
        """Log a grid as one run, or each of its cells as a run of its own; see ``Tracker``."""
        self._make_dir()
        try:
            _log_in(self.mode)
            with TemporaryDirectory() as folder:
                if self.per == "grid":
                    with cast("wandb.Run", live) if live else self._grid_run(tracked) as run:
                        _log_grid(run, finished, Path(folder))
                    return
                for task in finished.tasks:
                    images = [*finished.plots[task.task], *curve_images(task, Path(folder))]
                    for cell, row in zip(task.cells, table(task).to_dict("records"), strict=True):
                        values = {str(name): value for name, value in row.items()}
                        values |= cost(cell.cell, finished.runs[task.task])
                        self._log_cell(cell, values, task, tracked.manifests[task.task][cell.cell], images)
        except Exception as error:  # W&B's own, and those of what it is built on
            raise TrackerError(
                f"W&B failed ({reason(error)}): the records are whole; kvgauge wandb sends them, with --mode offline "
                "without a network"
            ) from error

    def _make_dir(self) -> None:
        try:
            Path(self.dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"W&B's files cannot be written to {self.dir} ({error.strerror}): choose another folder with "
                "--dir, or in a run with tracker.dir="
            ) from error

    def _grid_run(self, tracked: Tracked) -> wandb.Run:
        every = [(task, cell, each) for task, cells in tracked.manifests.items() for cell, each in cells.items()]
        config = {
            "grid": {
                "model": tracked.model,
                "task": tracked.name,
                "methods": list(dict.fromkeys(cell.label for _, cell, _ in every)),
                "budgets": list(dict.fromkeys(cell.budget for _, cell, _ in every)),
            },
            "model": every[0][2].settings.get("model"),
            "tasks": {task: each.settings.get("task") for task, _, each in every},
            "cells": {
                cell.name: {name: value for name, value in each.settings.items() if name not in ("model", "task")}
                for _, cell, each in every
            },
            "provenance": every[0][2].provenance,
        }
        run = self._init(
            f"{tracked.model}-{tracked.name}",
            {f"{task}/{cell.name}": each.settings for task, cell, each in every},
            group=tracked.name,
            name=f"{tracked.model}/{tracked.name}",
            config=config,
            tags=["grid"],
        )
        run.define_metric("progress/prompts")
        for metrics in ("progress/*", "rate/*", "running/*"):
            run.define_metric(metrics, step_metric="progress/prompts")
        return run

    def _log_cell(
        self,
        cell: CellResult,
        row: Mapping[str, Any],
        result: TaskResult,
        manifest: Manifest,
        images: Sequence[Path],
    ) -> None:
        import wandb

        named = {"model": result.model, "task": result.task, "method": cell.cell.label, "budget": cell.cell.budget}
        with self._init(
            cell.cell.name,
            manifest.settings,
            group=f"{result.model}/{result.task}",
            name=cell.cell.name,
            config={**manifest.settings, "cell": named, "provenance": manifest.provenance},
            tags=[cell.cell.label, f"budget:{cell.cell.budget}", result.task],
        ) as run:
            examples = wandb.Table(dataframe=cell_examples(cell, result.metrics))
            run.log({**{path.stem: wandb.Image(str(path)) for path in images}, "examples": examples})
            run.summary.update({name: value for name, value in row.items() if not pd.isna(value)})

    def _init(self, slug: str, settings: Any, **about: Any) -> wandb.Run:
        """Begin the run of these settings, or go on with it."""
        import wandb

        # W&B takes letters, digits, '-' and '_' in an id.
        short = re.sub(r"[^A-Za-z0-9_-]", "_", slug.replace("%", "pct"))[:60]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        return wandb.init(
            project=self.project or os.environ.get("WANDB_PROJECT") or "kvgauge",
            entity=self.entity,
            mode=_mode(self.mode),
            dir=self.dir,
            id=f"{short}-{digest}",
            resume="allow",
            # Manifests say where numbers come from. What W&B would gather of this process by itself may not be for
            # others: addresses of remotes, arguments, output.
            settings=_settings(
                console="off", disable_code=True, disable_git=True, x_disable_meta=True, x_disable_stats=True
            ),
            **about,
        )


def _log_grid(run: wandb.Run, finished: Finished, folder: Path) -> None:
    """Log tables, curves and images of a finished grid, and the numbers that runs are compared by."""
    import wandb

    result = finished.result
    if isinstance(result, SuiteResult):
        images = {path.stem: path for path in finished.plots[result.suite]}
        heatmaps = [(task.task, path) for task in result.tasks for path in finished.plots[task.task]]
        images |= {f"heatmap/{task}": path for task, path in heatmaps if path.stem == "heatmap"}
    else:
        images = {path.stem: path for path in [*finished.plots[result.task], *curve_images(result, folder)]}
    examples = pd.concat([examples_frame(task) for task in finished.tasks], ignore_index=True)
    run.log(
        {
            **{name: wandb.Image(str(path)) for name, path in images.items()},
            **{f"score_{shown.name}": _chart(shown) for shown in all_series(result)},
            "cells": wandb.Table(dataframe=cells_frame(finished)),
            "examples": wandb.Table(dataframe=examples.head(_MOST_ROWS)),
        }
    )
    run.summary.update(summary(finished))


def _chart(shown: Series) -> Any:
    """Curves that W&B draws itself, so that a reader can hover over them and hide some."""
    import wandb

    return wandb.plot.line_series(
        xs=[[x for x, _ in points] for points in shown.lines.values()],
        ys=[[y for _, y in points] for points in shown.lines.values()],
        keys=list(shown.lines),
        title=f"score {shown.name.replace('_', ' ')}",
        xname=shown.across,
    )


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
