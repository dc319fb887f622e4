"""A run: the composed configuration to objects, records, tables, the page. What is heavy to import is imported here and below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness.compression.budget import parse_budgets
from harness.compression.grid import make_grid
from harness.compression.selection import Selection
from harness.config.build import build, build_task
from harness.config.catalog import RUN_GROUPS, SETTINGS
from harness.engine import tensor_parallel
from harness.engine.settings import EngineSettings
from harness.errors import ConfigError, StoreError
from harness.report.tracker import Tracker
from harness.results import SuiteResult
from harness.run.execute import Counts, execute, follow, has_more, result
from harness.run.prepare import Prepared, Run, prepare, read_model
from harness.run.preview import print_preview
from harness.run.signals import Relay, Stop
from harness.store.reader import read_grids, suites
from harness.store.run_log import read_runs
from harness.store.shards import Shard
from harness.task import Suite

_CHOICES = {
    "granularity": ("query_head", "kv_head"),
    "group": ("mean", "max", "sum"),
    "ties": ("stable", "torch"),
    "dtype": ("float32", "model"),
}
_GROUP_EXAMPLES = {
    "selection": "selection.ties=torch",
    "engine": "engine.width=64",
    "model": "model=tiny",
    "method": "method=[snapkv,pyramidkv]",
    "task": "task=needle",
    "tracker": "tracker=none",
}


def run(config: DictConfig) -> bool:
    """One run of a composed configuration.

    Returns:
        Whether every example that this process was asked for has a result in every cell.

    Raises:
        KvgaugeError: it cannot be done; what was finished is kept.
    """
    with tensor_parallel.joined(OmegaConf.select(config, "model.tp_plan")):
        if tensor_parallel.is_first():
            with Stop() as stop:
                whole = _run(config, stop)
            tensor_parallel.say(None)
            return whole
        with Relay() as relay:
            runs, _ = tensor_parallel.together(lambda: _runs(config))
            follow(runs, relay)
    return True


def _run(config: DictConfig, stop: Stop) -> bool:
    console = Console(highlight=False)
    runs, suite = tensor_parallel.together(lambda: _runs(config))
    tracker: Tracker = build(config.tracker)
    tasks = [prepare(run) for run in runs]
    if config.dry_run:
        for prepared in tasks:
            print_preview(prepared, console)
        return True
    tasks, counts = execute(tasks, console, stop)
    results = tasks[0].run.results
    files: list[Path] = []
    if all(prepared.whole for prepared in tasks):
        try:
            (results / "report").mkdir(parents=True, exist_ok=True)
            with FileLock(results / "report" / ".lock"):  # two shards may find the cells whole
                files = _report(tasks, suite, tracker, console)
        except OSError as error:
            raise StoreError(
                f"{results / 'report'} cannot be written ({error.strerror}): make room; the records are kept, run the same command again"
            ) from error
    _print_end(tasks, counts, files, console)
    return all(prepared.done for prepared in tasks)


def _report(tasks: Sequence[Prepared], suite: Suite | None, tracker: Tracker, console: Console) -> list[Path]:
    """Print and write everything that is derived from records.

    Returns:
        The files that matter to a reader.

    Raises:
        OSError: a file cannot be written.
    """
    # Not above: pandas and matplotlib take their time, and a dry run needs neither.
    from harness.report.overview import write_overview
    from harness.report.suite_tables import print_suite, write_suite_report
    from harness.report.task_tables import print_table, write_report

    grids = [result(prepared) for prepared in tasks]
    report = tasks[0].run.results / "report" / grids[0].model
    files: list[Path] = []
    for prepared, grid in zip(tasks, grids, strict=True):
        written = write_report(grid, report / grid.task)
        tracker.log(grid, prepared.manifests, [path for path in written if path.suffix == ".png"], read_runs(prepared.folder))
        files += written
    if suite is not None:
        by_name = {grid.task: grid for grid in grids}
        ordered = tuple(by_name[name] for name in suite.ordered(list(by_name)))
        whole = SuiteResult(grids[0].model, suite.name, ordered, tuple(suite.averages(list(by_name))))
        files = write_suite_report(whole, report / suite.name)
        print_suite(whole, console)
    else:
        print_table(grids[0], console)
    everything = read_grids(report.parents[1])
    return files + write_overview(everything, suites(everything), report.parent, grids[0].model)


def _check(values: Mapping[Any, Any]) -> None:
    """Refuse what no part of the run would refuse by itself.

    Raises:
        ConfigError: with the setting and its value.
    """
    if unknown := set(values) - set(SETTINGS):
        raise ConfigError(f"{unknown.pop()} is not a setting of this run: --cfg job prints all settings")
    for group in ("selection", "engine", *RUN_GROUPS):
        if not isinstance(values.get(group), dict):
            raise ConfigError(f"{group}={values.get(group)} is no group of settings: set one of them, for example {_GROUP_EXAMPLES[group]}")
    for group, knobs in (("selection", set(_CHOICES)), ("engine", {field.name for field in fields(EngineSettings)})):
        if wrong := set(values[group]) ^ knobs:
            raise ConfigError(f"{group} is to have {', '.join(sorted(knobs))}, no more and no less, not {wrong.pop()}: --cfg job prints it")
    for name, node in values["method"].items():
        if not isinstance(node, dict):
            raise ConfigError(f"method.{name}={node} is no method: set one of its knobs, or choose methods with method=[…]")
    limit = values["limit"]
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ConfigError(f"limit={limit} is not a whole number of 1 or more: use limit=null for all examples")
    for switch in ("dry_run", "retry_errors"):
        if not isinstance(values[switch], bool):
            raise ConfigError(f"{switch}={values[switch]} is neither true nor false: use one of them")
    if not isinstance(values["results_dir"], str) or not values["results_dir"].strip():
        raise ConfigError(f"results_dir={values['results_dir']!r} names no folder: use results_dir=results")
    for knob, choices in _CHOICES.items():
        if values["selection"][knob] not in choices:
            raise ConfigError(f"selection.{knob}={values['selection'][knob]} is unknown: use {' or '.join(choices)}")


def _runs(config: DictConfig) -> tuple[list[Run], Suite | None]:
    """One run per task, and the suite that they belong to, if any."""
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    _check(values)
    # A preset may set knobs of a method that method= does not name; such a node has no target.
    methods = [build(node, f"method={name}: ") for name, node in config.method.items() if "_target_" in node]
    variants = make_grid(methods, parse_budgets(values["budget"]))
    tasks, suite = build_task(config.task)
    reader = read_model(build(config.model), any(task.needs_tokenizer for task in tasks))
    engine, shard = EngineSettings(**values["engine"]), Shard(values["shard"], values["shards"])
    if engine.time_limit_seconds is not None and tensor_parallel.count() > 1:
        raise ConfigError("engine.time_limit_seconds is each process's own, and none may stop alone with model.tp_plan=auto: use null")
    runs = [
        Run(
            reader=reader,
            variants=variants,
            task=task,
            task_config=values["task"],
            selection=Selection(**values["selection"]),
            results=Path(values["results_dir"]).expanduser(),
            limit=values["limit"],
            engine=engine,
            shard=shard,
            retry_errors=values["retry_errors"],
        )
        for task in tasks
    ]
    return runs, suite


def _print_end(tasks: Sequence[Prepared], counts: Counts, files: list[Path], console: Console) -> None:
    prompts, cells = sum(len(task.own) for task in tasks), sum(len(task.manifests) for task in tasks)
    known = sum(prompt.example.id in of for task in tasks for of in task.records.values() for prompt in task.own)
    console.print(
        f"prompts: {prompts}; prefills: {counts.prefills}; cells: {cells}; new records: {counts.records}, decoded as "
        f"{counts.decoded_rows} rows; from earlier runs: {known - counts.records}",
        soft_wrap=True,
    )
    if counts.prefilled_tokens < counts.prompt_tokens:
        console.print(f"prefilled tokens: {counts.prefilled_tokens:,} of {counts.prompt_tokens:,}, the others shared", soft_wrap=True)
    for path in files:
        console.print(str(path), markup=False, soft_wrap=True)
    run = tasks[0].run
    if waiting := [task for task in tasks if not task.whole]:
        console.print(
            f"shard {run.shard.index} of {run.shard.count} is done; scores come with the other shards ({len(waiting)} of {len(tasks)} "
            f"tasks wait): kvgauge status {run.results}",
            markup=False,
            soft_wrap=True,
        )
    elif any(has_more(task) for task in tasks):
        console.print(
            f"these hold what this command asked for; {run.results} has more: kvgauge report {run.results}", markup=False, soft_wrap=True
        )
