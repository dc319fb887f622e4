"""The local backend: processes on this machine, started by submitit, by default one at a time per GPU or core."""

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
        at_once: number of processes at once; None for one per GPU or, if there is none, per core. Without a GPU they
            share the cores among them.
        retries: how many times a job is started again if its process was killed.
        timeout_min: time limit of a process, in minutes.

    Raises:
        ConfigError: a setting cannot be used.
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
    """Run jobs, as many at once as the settings allow; a killed one is started again after those that are waiting.

    Args:
        jobs: the jobs.
        settings: how to run them.
        logs: folder for the output of the processes.
        relay: signals to pass on to the processes.
        tell: prints a line.

    Returns:
        How each job ended.
    """
    cards = torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slots = list(range(min(settings.at_once or cards or cores, len(jobs))))
    threads = max(1, cores // len(slots))
    executor = LocalExecutor(logs)
    waiting, starts = list(range(len(jobs))), [0] * len(jobs)
    running: list[_Running] = []
    outcomes: dict[int, Outcome] = {}
    where = f"{cards} cards" if cards else f"{cores} cores, {threads} threads each"
    tell(f"{len(jobs)} jobs, {len(slots)} at once on {where}; logs in {logs}")
    while waiting or running:
        while waiting and slots and not relay.heard:
            job, slot = waiting.pop(0), slots.pop(0)
            starts[job] += 1
            # Without GPUs gpus_per_node is 0, and submitit then hides all of them, which does no harm.
            executor.update_parameters(
                timeout_min=settings.timeout_min, gpus_per_node=min(1, cards), visible_gpus=(slot % max(1, cards),)
            )
            running.append(_Running(job, slot, _submitted(executor, jobs[job], None if cards else threads)))
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


def _submitted(executor: LocalExecutor, job: Job, threads: int | None) -> Any:
    """Submit a job whose process ignores Ctrl-C: a terminal sends it to every process, and this one passes it on.

    Args:
        executor: submits it.
        job: the job.
        threads: of the process, unless the environment says how many; None for what torch takes.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    given = threads is None or "OMP_NUM_THREADS" in os.environ
    if not given:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        return executor.submit(job)
    finally:
        if not given:
            del os.environ["OMP_NUM_THREADS"]
        signal.signal(signal.SIGINT, before)


def _outcome(submitted: Any) -> Outcome | None:
    """How a process ended; None if it was killed before it could say."""
    # Checked first, because submitit would wait 15 s for the result of a killed process, and nothing else would run
    # meanwhile.
    if not submitted.paths.result_pickle.exists():
        return None
    error = submitted.exception()
    if error is None:
        outcome: Outcome = submitted.result()
        return outcome
    return Outcome(1, f"a bug ({str(error).strip().splitlines()[-1][:200]}): its log has all of it")
