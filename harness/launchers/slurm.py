"""Jobs of a Slurm cluster, by submitit: one array, each element with a card of its own; preempted or out of time, it is queued again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta
from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

from harness.errors import ConfigError
from harness.launchers.work import Job, Outcome
from harness.run.signals import Relay
from harness.values import Count, Size, check


@dataclass(frozen=True)
class Settings:
    """``conf/hydra/launcher/slurm.yaml``.

    Attributes:
        at_once: elements of the array at once; None for all.
        requeues: how often a job that ran out of time is queued again; preemption does not count.
        timeout_min: minutes a job may take before it is queued again.
        signal_seconds: before the end of a job it is told to end, and finishes its batch.
        partition: Slurm's; None for the cluster's default.
        gpus_per_node: cards of a job; more than one for ``model.device_map=auto``.
        cpus_per_task: cores of a job.
        mem_gb: memory of a job; None for the cluster's default.
        setup: lines of shell before the job, as to load a module.
        sbatch: what else ``sbatch`` takes, by its long options without dashes.
        poll_seconds: between looks at the queue.

    Raises:
        ConfigError: a setting that cannot be used.
    """

    at_once: Size | None
    requeues: Count
    timeout_min: Size
    signal_seconds: Size
    partition: str | None
    gpus_per_node: Count
    cpus_per_task: Size
    mem_gb: Size | None
    setup: Sequence[str]
    sbatch: Mapping[str, Any]
    poll_seconds: Annotated[float, Meta(ge=0)]

    def __post_init__(self) -> None:
        check(self, "hydra.launcher")

    def parameters(self, jobs: int) -> dict[str, Any]:
        """What submitit takes."""
        parameters = {
            "job_name": "kvgauge",
            "time": self.timeout_min,
            "partition": self.partition,
            "gpus_per_node": self.gpus_per_node or None,
            "cpus_per_task": self.cpus_per_task,
            "mem": f"{self.mem_gb}GB" if self.mem_gb is not None else None,
            "array_parallelism": self.at_once or jobs,
            "signal_delay_s": self.signal_seconds,
            "setup": list(self.setup) or None,
            # Slurm itself queues a preempted job again where the partition preempts so.
            "additional_parameters": {"requeue": True, **self.sbatch},
        }
        return {name: value for name, value in parameters.items() if value is not None}


def queued(jobs: Sequence[Job], settings: Settings, logs: Path) -> list[Any]:
    """Queue jobs as one array.

    Raises:
        ConfigError: there is no Slurm here, or it refuses.
    """
    try:
        executor = SlurmExecutor(logs, max_num_timeout=settings.requeues)
        executor.update_parameters(**settings.parameters(len(jobs)))
        with executor.batch():
            return [executor.submit(job) for job in jobs]
    except (RuntimeError, ValueError, OSError, FailedJobError, FailedSubmissionError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"Slurm takes no jobs from here ({reason[0][:200]}): start it where sbatch works") from error


def run(
    jobs: Sequence[Job], settings: Settings, logs: Path, relay: Relay, tell: Callable[[str], None]
) -> list[Outcome]:
    """Queue jobs and wait for them.

    Args:
        jobs: what to run.
        settings: how.
        logs: a folder that the nodes see, too.
        relay: signals; the jobs are then cancelled, which lets them finish their batch.
        tell: prints a line.

    Raises:
        ConfigError: as ``queued``.
    """
    submitted = queued(jobs, settings, logs)
    tell(f"{len(jobs)} jobs queued as {submitted[0].job_id} and on; logs in {logs}")
    while not all(job.done(force_check=False) for job in submitted):
        if relay.heard and relay.take():
            for job in submitted:
                job.cancel(check=False)
        time.sleep(settings.poll_seconds)
    return [_outcome(job, bool(relay.heard)) for job in submitted]


def _outcome(job: Any, cancelled: bool) -> Outcome:
    try:
        error = job.exception()
    except UncompletedJobError as uncompleted:
        error = uncompleted
    if error is None:
        outcome: Outcome = job.result()
        return outcome
    if cancelled:
        return Outcome(128 + signal.SIGTERM, "cancelled")
    return Outcome(137, f"ended without a word ({job.state}): {job.paths.stderr} may say why")
