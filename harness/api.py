"""The Python interface: load a model once, run grids on it, and get tables, records, figures and the page."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError
from rich.console import Console

from harness.compression.method import Method
from harness.config.build import composed
from harness.config.catalog import choice, choices
from harness.config.words import is_free
from harness.engine.engine import Engine
from harness.engine.model_spec import ModelSpec
from harness.errors import ConfigError
from harness.printing import unfailing
from harness.results import SuiteResult, TaskResult
from harness.run.configure import runs
from harness.run.execute import execute, execute_in_memory, result
from harness.run.prepare import prepare
from harness.run.signals import Stop
from harness.store.reader import Grid, read_results, suites
from harness.task import Task

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Result:
    """The results of one or more grids, one grid for each model and task.

    Attributes:
        grids: the records and manifests of each grid.
        suites: grids that are reported together, like LongBench's datasets.
    """

    grids: tuple[Grid, ...]
    suites: tuple[SuiteResult, ...]

    def table(self) -> pd.DataFrame:
        """A table with one row for each model, task, method and budget: scores with intervals, kept entries, counts.

        Numbers are not rounded, and missing ones are NaN. ``harness.report.stats.table.table`` explains the columns.
        """
        import pandas as pd

        from harness.report.stats.table import table

        tables = []
        for grid in self.grids:
            rows = table(grid.result).copy()
            rows.insert(0, "model", grid.result.model)
            rows.insert(1, "task", grid.result.task)
            tables.append(rows)
        return pd.concat(tables, ignore_index=True)

    def records(self) -> list[dict[str, Any]]:
        """The records, one dictionary for each example and cell.

        Its keys are model, task, method and budget, then the fields of ``Record``. For a table of them, use
        ``pandas.DataFrame(result.records())``.
        """
        return [
            {
                "model": grid.result.model,
                "task": grid.result.task,
                "method": cell.cell.label,
                "budget": cell.cell.budget,
                **msgspec.json.decode(msgspec.json.encode(record)),
            }
            for grid in self.grids
            for cell in grid.result.cells
            for record in cell.records
        ]

    def heatmap(self, task: str | None = None) -> Figure:
        """A heatmap of the headline score over the task's two axes, one panel for each method and budget.

        Args:
            task: the task's name; None if only one task has axes.

        Raises:
            ConfigError: no grid has axes, or several have.
        """
        from harness.report.plots import heatmap_figure

        return heatmap_figure(self._with_axes(task))

    def page(self, path: str | Path) -> Path:
        """Write the report page, an HTML file that needs no network, and beside it the whole prompts that runs saved.

        Args:
            path: the HTML file; its folder is created if need be.

        Returns:
            The path of the file.

        Raises:
            OSError: the file cannot be written.
        """
        from harness.report.page.write import write_page

        return write_page(self.grids, self.suites, (), Path(path))

    def _repr_html_(self) -> str:
        return str(self.table().to_html(index=False))

    def _with_axes(self, task: str | None) -> TaskResult:
        """The one grid with axes, of this task or of any."""
        grids = [grid.result for grid in self.grids if grid.result.heatmap_axes and grid.result.metrics]
        chosen = [grid for grid in grids if task in (None, grid.task)]
        names = ", ".join(dict.fromkeys(grid.task for grid in grids)) or "none"
        if not chosen:
            raise ConfigError(f"no task {task or ''} with two axes is in these results: those with axes are {names}")
        if len(chosen) > 1:
            raise ConfigError(f"several grids have axes: give task= one of {names}, or read one model's folder")
        return chosen[0]


def run(
    model: str | Path | Engine = "tiny",
    task: str | Task = "needle",
    methods: str | Sequence[str | Method] = "published",
    budgets: int | str | Sequence[int | str] = (32, 128, 512),
    *,
    storages: str | Sequence[str] = "exact",
    results: str | Path | None = None,
    limit: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Result:
    """Evaluate every method in every storage at every budget on one task, or on a suite of tasks.

    Args:
        model: a name from ``kvgauge list models``, a local folder, a hub id, or a loaded engine.
        task: a name from ``kvgauge list tasks``; or a task of your own, if ``results`` is None.
        methods: names from ``kvgauge list methods``, methods of your own, or ``all``.
        budgets: entries per head and layer (``128``), shares of the prompt (``"12%"``), or ``"full"``.
        storages: names from ``kvgauge list storages``: as what entries are kept.
        results: a results folder, with the same files as the command line writes. Results that it holds are not
            computed again. None keeps everything in memory.
        limit: number of examples to evaluate, the first ones; None for all.
        settings: further settings by the command line's names: ``{"task.lengths": [500], "engine.width": 32}``.

    Returns:
        The results of all grids.

    Raises:
        KvgaugeError: a setting, the model or the data cannot be used; finished work is kept in ``results``.
    """
    named, own_methods = _methods(methods)
    stored = [storages] if isinstance(storages, str) else list(storages)
    for group, names in (("method", named), ("storage", stored), ("task", [task] if isinstance(task, str) else [])):
        for name in names:
            choice(group, name)
    words = [f"method=[{','.join(named)}]", f"storage=[{','.join(stored)}]"]
    values: dict[str, Any] = {"budget": list(budgets) if isinstance(budgets, list | tuple) else budgets, "limit": limit}
    if isinstance(task, str):
        words.append(f"task={task}")
    elif results is not None:
        raise ConfigError(f"task {task.name} has no YAML by which results on disk are read again: leave results= out")
    if results is not None:
        values["results_dir"] = str(results)
    if isinstance(model, Engine):
        words.append("model=hf")
        values["model.path"] = model.name
        spec = model.spec or ModelSpec(model.name)
        values |= {f"model.{knob}": getattr(spec, knob) for knob in ("max_prompt_tokens", "chat", "chat_arguments")}
    elif isinstance(model, str) and model in {preset.name for preset in choices("model")}:
        words.append(f"model={model}")
    else:
        words.append("model=hf")
        values["model.path"] = str(model)
    config = composed(*words)
    for name, value in {**values, **(settings or {})}.items():
        try:
            OmegaConf.update(config, name, value, force_add=is_free(name))
        except ConfigAttributeError as error:
            raise ConfigError(
                f"{name} is not a setting of this run: the command line's --cfg job prints all"
            ) from error
    engine = model if isinstance(model, Engine) else None
    folder = None if results is None else Path(results).expanduser()
    asked, suite = runs(
        config,
        engine=engine,
        methods=own_methods,
        task=None if isinstance(task, str) else task,
        in_memory=folder is None,
    )
    prepared = [prepare(each) for each in asked]
    console = Console(file=unfailing(sys.stderr), quiet=not sys.stderr.isatty(), highlight=False)
    if folder is None:
        execute_in_memory(prepared, console, engine)
    else:
        with Stop() as stop:
            prepared, _ = execute(prepared, console, stop, engine)
    grids = tuple(Grid(result(each), each.manifests, {}) for each in prepared)
    return Result(grids, tuple(suites(grids)) if suite is not None else ())


def read(path: str | Path = "results") -> Result:
    """Read a results folder or a part of one; this needs no model and no data.

    A folder in it that was moved or copied, and so is not read, is a warning.

    Args:
        path: a results folder, or the folder of a model or a task inside one.

    Raises:
        StoreError: there are no results, or they cannot be read.
    """
    results = read_results(Path(path).expanduser())
    for one in results.left_out:
        warnings.warn(one.reason, stacklevel=2)
    grids = results.grids
    return Result(tuple(grids), tuple(suites(grids)))


def _methods(methods: str | Sequence[str | Method]) -> tuple[list[str], list[Method]]:
    """Separate the names of methods from methods that were given as objects."""
    if isinstance(methods, str):
        methods = [methods]
    named = [method for method in methods if isinstance(method, str)]
    return named, [method for method in methods if not isinstance(method, str)]
