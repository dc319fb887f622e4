"""Launchers of runs: each shard is the same command line with its own ``shard=``, in a process of its own.

A backend is a module with ``run`` and with ``Settings``, a dataclass built from its preset in ``conf/hydra/launcher``.
What a process has done is on disk, so a backend only has to start it, restart it if it was killed, and pass on signals.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness.config.catalog import ROOT
from harness.config.names import importable
from harness.errors import ConfigError, LaunchError
from harness.launchers.work import Job, Outcome
from harness.printing import say
from harness.run.signals import Relay
from harness.store.shards import Shard
from harness.values import field_types, made

_MOST_TOLD = 10
"""How many jobs that are not done are told of."""
_EXTRAS = {"local": "submitit", "slurm": "submitit", "ray": "ray"}


def launch(
    backend: str, settings: dict[str, Any], config: DictConfig, job_overrides: Sequence[Sequence[str]], folder: Path
) -> None:
    """Run jobs until all have ended, and print how they ended.

    Args:
        backend: name of the backend's module.
        settings: values for the backend's ``Settings``.
        config: configuration of the multirun.
        job_overrides: command-line words of each job.
        folder: for logs and for files of the backend; created if it does not exist.

    Raises:
        ConfigError: the backend is not installed or cannot be used.
        LaunchError: some jobs failed.
        Stopped: a signal came.
    """
    if config.dry_run:
        raise ConfigError("dry_run=true plans a run and starts none: leave hydra/launcher out")
    if OmegaConf.select(config, "model.tp_plan") is not None:
        raise ConfigError(
            "model.tp_plan=auto needs torchrun, which no launcher starts: start each shard with torchrun instead"
        )
    console = Console(highlight=False)
    # Of Hydra's own overrides, a job needs only the search path for methods; the others concern the multirun.
    search_path = [word for word in config.hydra.overrides.hydra if word.startswith("hydra.searchpath=")]
    common = set(job_overrides[0]).intersection(*job_overrides)
    jobs = [
        job
        for words in job_overrides
        for job in expand([*search_path, *words], config.shards, " ".join(word for word in words if word not in common))
    ]
    if backend not in _EXTRAS:
        raise ConfigError(f"hydra.launcher.backend={backend} is unknown: use hydra/launcher={', '.join(_EXTRAS)}")
    try:
        module = import_module(f"{__name__}.{backend}")
    except ImportError as error:
        what = f"pip install 'kvgauge[{_EXTRAS[backend]}]'"
        raise ConfigError(f"hydra/launcher={backend} needs what is not installed ({error.name}): {what}") from error
    known = field_types(module.Settings)
    if others := [name for name in settings if name not in known]:
        raise ConfigError(f"hydra.launcher.{others[0]} is not a setting: use {', '.join(known)}")
    chosen = made(module.Settings, settings, "hydra.launcher")
    # So that the processes find a clone from any working directory; a wheel is installed anyway.
    if importable("harness") == "harness":
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    logs = folder.absolute() / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    logs.mkdir(parents=True, exist_ok=True)
    begun = time.time()

    def tell(line: str) -> None:
        say(console, line)

    with Relay() as relay:
        outcomes: list[Outcome] = module.run(jobs, chosen, logs, relay, tell)
    _tell_outcomes(jobs, outcomes, tell)
    relay.raise_if_heard()
    if failed := [outcome for outcome in outcomes if outcome.code]:
        raise LaunchError(len(jobs), [outcome.code for outcome in failed])
    results = Path(config.results_dir).expanduser()
    from harness.report.overview import (
        print_ends,  # pandas takes its time, and a run that launches nothing does not need it
    )

    print_ends(results, begun, console)


def _tell_outcomes(jobs: Sequence[Job], outcomes: Sequence[Outcome], tell: Callable[[str], None]) -> None:
    """Tell how many jobs are done, and of the others how the first ones ended."""
    others = [(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True) if outcome.code]
    for job, outcome in others[:_MOST_TOLD]:
        tell(f"{job.name}: {outcome.text}")
    if len(others) > _MOST_TOLD:
        tell(f"and {len(others) - _MOST_TOLD} more, whose logs say how they ended")
    tell(f"{len(jobs) - len(others)} of {len(jobs)} jobs are done")


def expand(words: Sequence[str], shards: int, name: str = "") -> list[Job]:
    """One job for each shard of a job; a single one if its words name a shard.

    Args:
        words: the job's command-line words.
        shards: number of shards in the configuration, used if the words do not set one.
        name: the settings that distinguish this job from the others of a sweep.

    Raises:
        ConfigError: the number of shards is not a whole number of 1 or more.
    """
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if "shard" in given:
        return [
            Job(tuple(words), _named(f"shard {given['shard']} of {given.get('shards', shards)}", name), os.getcwd())
        ]
    text = given.get("shards", str(shards))
    count = Shard(0, int(text) if text.isdecimal() else text).count  # type: ignore[arg-type]  # Shard refuses a text
    return [
        Job((*words, f"shard={index}"), _named(f"shard {index} of {count}", name), os.getcwd())
        for index in range(count)
    ]


def _named(shard: str, name: str) -> str:
    return f"{shard} ({name})" if name else shard
