"""A run: the composed configuration to objects, records, tables, the page. A dry run imports no more than it needs."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness.compression.budget import parse_budgets
from harness.compression.grid import make_grid
from harness.compression.selection import Selection
from harness.config.build import build, build_task
from harness.config.catalog import RUN_GROUPS, SETTINGS
from harness.engine import tensor_parallel
from harness.engine.settings import EngineSettings
from harness.errors import ConfigError
from harness.report.tracker import Tracker
from harness.run.prepare import Run, prepare, read_checkpoint
from harness.run.preview import print_preview
from harness.run.signals import Relay, Stop
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
        from harness.run.execute import follow

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
    from harness.run.execute import execute  # here, as a dry run does not wait for what computes and draws
    from harness.run.report import print_end, report

    tasks, counts = execute(tasks, console, stop)
    files = report(tasks, suite, tracker, console) if all(prepared.whole for prepared in tasks) else []
    print_end(tasks, counts, files, console)
    return all(prepared.done for prepared in tasks)


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
    checkpoint = read_checkpoint(build(config.model), any(task.needs_tokenizer for task in tasks))
    engine, shard = EngineSettings(**values["engine"]), Shard(values["shard"], values["shards"])
    if engine.time_limit_seconds is not None and tensor_parallel.count() > 1:
        raise ConfigError("engine.time_limit_seconds is each process's own, and none may stop alone with model.tp_plan=auto: use null")
    gc.enable()  # all that is large is imported; see the command line
    runs = [
        Run(
            checkpoint=checkpoint,
            variants=variants,
            task=task,
            task_config=values["task"],
            selection=Selection(**values["selection"]),
            results=Path(values["results_dir"]).expanduser(),
            limit=values["limit"],
            engine_settings=engine,
            shard=shard,
            retry_errors=values["retry_errors"],
        )
        for task in tasks
    ]
    return runs, suite
