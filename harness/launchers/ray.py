"""The Ray backend: tasks of an existing cluster, or of a local one that is started for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import ray
from msgspec import Meta
from ray.exceptions import RayError, RayTaskError, TaskCancelledError, WorkerCrashedError

from harness.errors import ConfigError
from harness.launchers.work import Job, Outcome, killed
from harness.run.signals import Relay
from harness.values import check

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Settings:
    """``conf/hydra/launcher/ray.yaml``.

    Attributes:
        num_gpus: GPUs per task; Ray starts as many tasks at once as it has GPUs for.
        num_cpus: CPU cores per task.
        retries: how many times Ray starts a task again if its process was killed; -1 for no limit.
        init: arguments of ``ray.init``.

    Raises:
        ConfigError: a setting cannot be used.
    """

    num_gpus: Annotated[float, Meta(ge=0)]
    num_cpus: Annotated[float, Meta(ge=0)]
    retries: Annotated[int, Meta(ge=-1)]
    init: Mapping[str, Any]

    def __post_init__(self) -> None:
        check(self, "hydra.launcher")


def run(
    jobs: Sequence[Job], settings: Settings, logs: Path, relay: Relay, tell: Callable[[str], None]
) -> list[Outcome]:
    """Run jobs as Ray tasks.

    Args:
        jobs: the jobs.
        settings: how to run them.
        logs: not used, because Ray keeps its own logs and prints the output of tasks.
        relay: signals; after one, the tasks are cancelled, which lets them finish their batch.
        tell: prints a line.

    Returns:
        How each job ended.

    Raises:
        ConfigError: Ray does not start, or cannot be reached.
    """
    environment = {"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}}
    try:
        ray.init(**{"runtime_env": environment, **settings.init})
    except (RayError, RuntimeError, ConnectionError, ValueError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"Ray does not start ({reason[0][:200]}): see hydra.launcher.init.address and Ray's own log"
        ) from error
    relay.listen()  # again, because Ray installs handlers of its own
    try:
        # max_calls=1 gives each task a process of its own, so that nothing stays in memory after it.
        remote = ray.remote(
            num_gpus=settings.num_gpus, num_cpus=settings.num_cpus, max_retries=settings.retries, max_calls=1
        )(_run)
        tasks = [remote.options(name=job.name).remote(job) for job in jobs]
        tell(f"{len(jobs)} Ray tasks; what they print stands below and in Ray's logs")
        waiting = tasks
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_POLL_SECONDS)
            if relay.heard and relay.take():
                for unfinished in waiting:
                    ray.cancel(unfinished, force=False)
        return [_outcome(task, settings.retries + 1) for task in tasks]
    finally:
        ray.shutdown()


def _run(job: Job) -> Outcome:
    return job()


def _outcome(task: Any, starts: int) -> Outcome:
    try:
        outcome: Outcome = ray.get(task)
        return outcome
    except TaskCancelledError:
        return Outcome(128 + signal.SIGTERM, "stopped")
    except WorkerCrashedError:
        return killed(starts)
    except RayTaskError as error:
        return Outcome(1, f"a bug ({str(error).strip().splitlines()[-1][:200]}): its log has all of it")
    except RayError as error:  # a node was lost, Ray's memory monitor ended the task, …
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        return Outcome(1, f"Ray lost it ({type(error).__name__}: {reason}): see Ray's log")
