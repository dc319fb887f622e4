"""The Slurm backend: one job array, submitted by submitit, with a GPU for each element.

An element that is preempted or out of time is queued again.
"""

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
        at_once: number of array elements that run at once; None for no limit.
        requeues: how many times a job that ran out of time is queued again; preemption does not count.
        timeout_min: time limit in minutes, after which a job is queued again.
        signal_seconds: how long before its time limit a job gets a signal, upon which it finishes its batch.
        partition: the Slurm partition; None for the cluster's default.
        gpus_per_node: GPUs per job; more than one for ``model.device_map=auto``.
        cpus_per_task: CPU cores per job.
        mem_gb: memory per job in GB; None for the cluster's default.
        setup: shell commands to run before the job, for example to load a module.
        sbatch: other options of ``sbatch``, by their long names without dashes.
        poll_seconds: time between two looks at the queue.

    Raises:
        ConfigError: a setting cannot be used.
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
        """The parameters for submitit.

        Args:
            jobs: number of jobs.
        """
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
            # So that Slurm queues a preempted job again, if the partition preempts by requeueing.
            "additional_parameters": {"requeue": True, **self.sbatch},
        }
        return {name: value for name, value in parameters.items() if value is not None}


def queued(jobs: Sequence[Job], settings: Settings, logs: Path) -> list[Any]:
    """Queue jobs as one array.

    Args:
        jobs: the jobs.
        settings: how to run them.
        logs: folder for logs, which must be visible on the nodes.

    Returns:
        submitit's jobs, in the order of ``jobs``.

    Raises:
        ConfigError: Slurm is not available here, or refuses the jobs.
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
        jobs: the jobs.
        settings: how to run them.
        logs: folder for logs, which must be visible on the nodes.
        relay: signals; after one, the jobs are cancelled, which lets them finish their batch.
        tell: prints a line.

    Returns:
        How each job ended.

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
