"""A run: the composed configuration to objects, records, tables, the page. A dry run imports no more than it needs."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness.config.build import build
from harness.engine import tensor_parallel
from harness.report.tracker import Tracker
from harness.run.configure import runs
from harness.run.prepare import prepare
from harness.run.preview import print_preview
from harness.run.signals import Relay, Stop


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
            asked, _ = tensor_parallel.together(lambda: runs(config))
            follow(asked, relay)
    return True


def _run(config: DictConfig, stop: Stop) -> bool:
    console = Console(highlight=False)
    asked, suite = tensor_parallel.together(lambda: runs(config))
    tracker: Tracker = build(config.tracker)
    tasks = [prepare(run) for run in asked]
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
