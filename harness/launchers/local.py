"""Processes of this machine, by submitit: at most as many at once as there are cards, each with a card of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from submitit import LocalExecutor

from harness.launchers.work import Job, Outcome, killed
from harness.run.signals import Relay
from harness.values import Count, Size, check

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Settings:
    """``conf/hydra/launcher/local.yaml``.

    Attributes:
        at_once: processes at once; None for one per card, or one.
        retries: how often a job whose process was killed starts again.
        timeout_min: minutes a process may take.

    Raises:
        ConfigError: a setting that cannot be used.
    """

    at_once: Size | None
    retries: Count
    timeout_min: Size

    def __post_init__(self) -> None:
        check(self, "hydra.launcher")


@dataclass
class _Running:
    job: int
    slot: int
    submitted: Any


def run(
    jobs: Sequence[Job], settings: Settings, logs: Path, relay: Relay, tell: Callable[[str], None]
) -> list[Outcome]:
    """Run jobs, as many at once as there are slots; one that was killed comes again, after those that wait.

    Args:
        jobs: what to run.
        settings: how.
        logs: folder of what the processes print.
        relay: signals, passed on to the processes.
        tell: prints a line.
    """
    cards = torch.cuda.device_count()
    slots = list(range(settings.at_once or max(1, cards)))
    executor = LocalExecutor(logs)
    waiting, starts = list(range(len(jobs))), [0] * len(jobs)
    running: list[_Running] = []
    outcomes: dict[int, Outcome] = {}
    tell(f"{len(jobs)} jobs, {len(slots)} at once; logs in {logs}")
    while waiting or running:
        while waiting and slots and not relay.heard:
            job, slot = waiting.pop(0), slots.pop(0)
            starts[job] += 1
            # On a machine without cards submitit hides them all, which is as well.
            executor.update_parameters(
                timeout_min=settings.timeout_min, gpus_per_node=min(1, cards), visible_gpus=(slot % max(1, cards),)
            )
            running.append(_Running(job, slot, _submitted(executor, jobs[job])))
        if relay.heard:
            outcomes |= {job: Outcome(128 + signal.SIGTERM, "not started") for job in waiting}
            waiting = []
            for _ in range(relay.take()):
                for process in running:
                    with suppress(ProcessLookupError):
                        os.kill(int(process.submitted.job_id), signal.SIGTERM)  # submitit's controller passes it on
        for process in [process for process in running if process.submitted.done()]:
            running.remove(process)
            slots.append(process.slot)
            outcome = _outcome(process.submitted)
            if outcome is not None:
                outcomes[process.job] = outcome
            elif relay.heard or starts[process.job] > settings.retries:
                outcomes[process.job] = killed(starts[process.job])
            else:
                tell(f"{jobs[process.job].name} was killed: start {starts[process.job] + 1}")
                waiting.append(process.job)
        time.sleep(_POLL_SECONDS)
    return [outcomes[job] for job in range(len(jobs))]


def _submitted(executor: LocalExecutor, job: Job) -> Any:
    """A job that hears of Ctrl-C from here alone: what a terminal sends, it sends to every process at once."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return executor.submit(job)
    finally:
        signal.signal(signal.SIGINT, before)


def _outcome(submitted: Any) -> Outcome | None:
    """How a process ended; None where it did not say."""
    # Of a process that was killed submitit would wait 15 s for it, as for a slow file system; nothing else runs
    # meanwhile.
    if not submitted.paths.result_pickle.exists():
        return None
    error = submitted.exception()
    if error is None:
        outcome: Outcome = submitted.result()
        return outcome
    return Outcome(1, f"a bug ({str(error).strip().splitlines()[-1][:200]}): its log has all of it")
