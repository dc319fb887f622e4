"""Where Hydra looks for launchers, at every start: so nothing heavy is imported here. ``harness.launchers`` does the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class ShardLauncher(Launcher):
    """Runs every job of a multirun, and every shard of a job, as a process of its own."""

    def __init__(self, backend: str, **settings: Any) -> None:
        """Take a preset.

        Args:
            backend: ``local``, ``slurm`` or ``ray``: a module of ``harness.launchers``.
            settings: of that module's ``Settings``.
        """
        self._backend, self._settings = backend, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from harness.launchers import launch

        settings = {name: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for name, v in self._settings.items()}
        launch(self._backend, settings, self._config, job_overrides, Path(self._config.hydra.sweep.dir))
        return []
