"""The command line: Hydra's configuration to objects, a run, a report. The only place that sees a DictConfig."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from rich.console import Console

from harness.budget import parse_budgets
from harness.build import ROOT, build, build_task
from harness.commands import command_line
from harness.commands.report import write_overview
from harness.engine import EngineSettings
from harness.errors import ConfigError, KvgaugeError, StoreError
from harness.grid import make_grid
from harness.preview import print_preview
from harness.reader import read_grids, suites
from harness.report import print_table, write_report
from harness.runner import Counts, Prepared, Run, execute, has_more, prepare, read_model, result
from harness.schema import Selection, SuiteResult
from harness.suite_report import print_suite, write_suite_report
from harness.task import Suite
from harness.tracker import Tracker

_INTERRUPTED = 130
_CHOICES = {
    "granularity": ("query_head", "kv_head"),
    "group": ("mean", "max", "sum"),
    "ties": ("stable", "torch"),
    "dtype": ("float32", "model"),
}
_GROUPS = ("model", "method", "task", "tracker")
_SETTINGS = ("budget", "selection", "limit", "seed", "results_dir", "dry_run", "engine", *_GROUPS)
_GROUP_EXAMPLES = {
    "selection": "selection.ties=torch",
    "engine": "engine.width=64",
    "model": "model=tiny",
    "method": "method=[snapkv,pyramidkv]",
    "task": "task=needle",
    "tracker": "tracker=none",
}


def main() -> None:
    """Run the command line; every error raised on purpose is one line, with its exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would stand above the one line
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    OmegaConf.register_new_resolver("root", lambda: str(ROOT), replace=True)
    try:
        if len(sys.argv) > 1 and re.fullmatch(r"\w+", sys.argv[1]):
            command_line(sys.argv[1:])
        else:
            _hydra_main()
    except (KvgaugeError, HydraException, OmegaConfBaseException, KeyboardInterrupt) as error:
        _report(error)
    except ValueError as error:
        if "Config group override" not in str(error):  # model=3
            raise
        _report(error)


@hydra.main(config_path=str(ROOT / "conf"), config_name="config", version_base="1.3")
def _hydra_main(config: DictConfig) -> None:
    try:
        whole = run(config)
    except (KvgaugeError, InstantiationException, OmegaConfBaseException, KeyboardInterrupt) as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # the other jobs go on
        _report(error)  # inside, as Hydra would print more than the message
    if not whole:
        raise SystemExit(1)


def run(config: DictConfig) -> bool:
    """One run of a composed configuration.

    Returns:
        Whether every example of every cell has a result.

    Raises:
        KvgaugeError: it cannot be done; what was finished is kept.
    """
    console = Console(highlight=False)
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    _check(values)
    tracker: Tracker = build(config.tracker)
    runs, suite = _runs(config, values)
    tasks = [prepare(run) for run in runs]
    if values["dry_run"]:
        for prepared in tasks:
            print_preview(prepared, console)
        return True
    counts = execute(tasks, console)
    grids = [result(prepared) for prepared in tasks]
    report = Path(values["results_dir"]).expanduser() / "report" / grids[0].model
    files: list[Path] = []
    try:
        for prepared, grid in zip(tasks, grids, strict=True):
            written = write_report(grid, report / grid.task)
            tracker.log(grid, prepared.manifests, [path for path in written if path.suffix == ".png"])
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
        files += write_overview(everything, suites(everything), report.parent, grids[0].model)
    except OSError as error:
        raise StoreError(
            f"{report} cannot be written ({error.strerror}): make room; the records are kept, run the same command again"
        ) from error
    _print_end(tasks, counts, files, console)
    return all(len(cell.done) == cell.expected for grid in grids for cell in grid.cells)


def _check(values: Mapping[Any, Any]) -> None:
    """Refuse what no part of the run would refuse by itself.

    Raises:
        ConfigError: with the setting and its value.
    """
    if unknown := set(values) - set(_SETTINGS):
        raise ConfigError(f"{unknown.pop()} is not a setting of this run: --cfg job prints all settings")
    for group in ("selection", "engine", *_GROUPS):
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
    if not isinstance(values["dry_run"], bool):
        raise ConfigError(f"dry_run={values['dry_run']} is neither true nor false: use one of them")
    if not isinstance(values["results_dir"], str) or not values["results_dir"].strip():
        raise ConfigError(f"results_dir={values['results_dir']!r} names no folder: use results_dir=results")
    for knob, choices in _CHOICES.items():
        if values["selection"][knob] not in choices:
            raise ConfigError(f"selection.{knob}={values['selection'][knob]} is unknown: use {' or '.join(choices)}")


def _runs(config: DictConfig, values: Mapping[Any, Any]) -> tuple[list[Run], Suite | None]:
    """One run per task, and the suite that they belong to, if any."""
    # A preset may set knobs of a method that method= does not name; such a node has no target.
    methods = [build(node, f"method={name}: ") for name, node in config.method.items() if "_target_" in node]
    variants = make_grid(methods, parse_budgets(values["budget"]))
    tasks, suite = build_task(config.task)
    reader = read_model(build(config.model), any(task.needs_tokenizer for task in tasks))
    engine = EngineSettings(**values["engine"])
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
        )
        for task in tasks
    ]
    return runs, suite


def _print_end(tasks: Sequence[Prepared], counts: Counts, files: list[Path], console: Console) -> None:
    prompts, cells = sum(len(task.prompts) for task in tasks), sum(len(task.manifests) for task in tasks)
    known = sum(len(records) for task in tasks for records in task.records.values())
    console.print(
        f"prompts: {prompts}; prefills: {counts.prefills}; cells: {cells}; new records: {counts.records}, decoded as "
        f"{counts.decoded_rows} rows; from earlier runs: {known - counts.records}",
        soft_wrap=True,
    )
    if counts.prefilled_tokens < counts.prompt_tokens:
        console.print(f"prefilled tokens: {counts.prefilled_tokens:,} of {counts.prompt_tokens:,}, the others shared", soft_wrap=True)
    for path in files:
        console.print(str(path), markup=False, soft_wrap=True)
    if any(has_more(task) for task in tasks):
        results = tasks[0].run.results
        console.print(f"these hold what this command asked for; {results} has more: kvgauge report {results}", markup=False, soft_wrap=True)


def _report(error: BaseException) -> NoReturn:
    """Print an error as one line and exit with its code."""
    if isinstance(error, KvgaugeError):
        message, code = str(error), error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        message, code = "interrupted: what is finished is kept, and the same command goes on from there", _INTERRUPTED
    else:
        message, code = _configuration_error(error), ConfigError.exit_code
    print(f"kvgauge: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


def _configuration_error(error: BaseException) -> str:
    """Hydra's and OmegaConf's messages in one line: fact, value, remedy."""
    text = str(error).strip()
    if isinstance(error, MissingConfigException) and (found := re.search(r"'(\w+)/([^']*)'", text)):
        group, value = found.groups()
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        near = difflib.get_close_matches(value, options, 1)
        return f"{group}={value} is not there: {f'did you mean {near[0]}?' if near else 'use ' + ', '.join(options)}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set: give {error.full_key}=…"
    if found := re.search(r"Could not override '([^']+)'", text):
        return f"{found[1]} is not a setting of this run: {_closest(found[1])}"
    if found := re.search(r"Ambiguous value for argument '([^'=]+)=([^'\[]*)'", text):
        return f"{found[1]}={found[2]} is no list: write {found[1]}=[{found[2]}]"
    if found := re.search(r"no viable alternative at input '(\[[^'\]]*)'", text):
        return f"the list {found[1]} has no end: write it without spaces, as in method=[snapkv,pyramidkv]"
    return f"the command line cannot be read ({_first_line(error)}): --help shows examples"


def _closest(key: str) -> str:
    """A remedy for a setting that is not there."""
    stem, _, last = key.rpartition(".")
    if stem.startswith("method."):
        return f"check its name, and that method= names {stem.removeprefix('method.')}; --cfg job prints all settings"
    near = difflib.get_close_matches(last, [*_SETTINGS, "experiment"], 1) if not stem else []
    return f"did you mean {near[0]}?" if near else "--cfg job prints all settings"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
