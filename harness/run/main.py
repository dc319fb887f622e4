"""One run, from the composed configuration to records, tables and the page.

What only computing or drawing needs is imported late, so that a dry run starts fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness.config.build import build
from harness.engine import tensor_parallel
from harness.printing import say
from harness.report.tracker import Tracker
from harness.run.configure import runs
from harness.run.cost import Basis, print_cost, recorded
from harness.run.notes import length_notes
from harness.run.prepare import Prepared, prepare
from harness.run.preview import print_preview
from harness.run.signals import Relay, Stop
from harness.text import plain


def run(config: DictConfig) -> bool:
    """Run a composed configuration.

    Returns:
        Whether every example that this process was asked for has a record that is no error in every cell.

    Raises:
        KvgaugeError: the run cannot be finished; records written before are kept.
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
        print_cost(tasks, _basis(tasks, config.dry_run == "measure"), console)
        return True
    from harness.run.execute import execute  # here, so that a dry run does not wait for the imports of these modules
    from harness.run.live import Live
    from harness.run.report import print_end, report, send

    for prepared in tasks:
        if prepared.requests:  # what takes long or leads to nothing is said before it begins
            for note in length_notes(
                prepared.run.checkpoint.config, prepared.prompts, prepared.run.task.max_new_tokens
            ):
                say(console, plain(f"{prepared.run.task.name}: {note}"))
    with Live(tasks, suite, tracker, console) as live:
        tasks, counts = execute(tasks, console, stop, written=live.written)
        whole = all(prepared.whole for prepared in tasks)
        files = report(tasks, suite, console, config.wide) if whole else []
        print_end(tasks, counts, files, console)
        if whole and (failed := send(tasks, suite, tracker, live)):
            print(f"kvgauge: {plain(failed)}", file=sys.stderr)
    return all(prepared.done for prepared in tasks)


def _basis(tasks: Sequence[Prepared], measure: bool) -> Basis | None:
    """What the estimate of a dry run rests on; None if nothing is known or nothing is to compute."""
    if not any(prepared.requests for prepared in tasks):
        return None
    if not measure:
        return recorded(tasks)
    from harness.run.calibrate import calibrate

    return calibrate(tasks)
