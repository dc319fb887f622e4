"""The Hydra plugin behind ``hydra/launcher=local``, ``slurm`` and ``ray``; ``harness.launchers`` does the work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class ShardLauncher(Launcher):
    """A launcher that runs every shard of every job of a multirun as a process of its own."""

    def __init__(self, backend: str, **settings: Any) -> None:
        """Store the values of a preset.

        Args:
            backend: ``local``, ``slurm`` or ``ray``, a module of ``harness.launchers``.
            settings: values for that module's ``Settings``.
        """
        self._backend, self._settings = backend, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the configuration of the multirun; Hydra calls this before ``launch``."""
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs until all have ended.

        Raises:
            ConfigError, LaunchError, Stopped: as ``harness.launchers.launch``.
        """
        from harness.launchers import launch

        settings = {
            name: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for name, v in self._settings.items()
        }
        launch(self._backend, settings, self._config, job_overrides, Path(self._config.hydra.sweep.dir))
        return []


def register() -> None:
    """Register the launcher with Hydra under the name that ``conf/hydra/launcher`` uses.

    Hydra accepts plugins only from a package named ``hydra_plugins``. A folder of that name would give the wheel a
    second top-level name, so this module poses as ``hydra_plugins.kvgauge``, beside other plugins if there are any.
    """
    plugins = Plugins.instance()
    try:
        package = import_module("hydra_plugins")
    except ModuleNotFoundError:
        package = sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
    package.kvgauge = sys.modules[__name__]  # type: ignore[attr-defined]
    ShardLauncher.__module__ = "hydra_plugins.kvgauge"
    plugins.register(ShardLauncher)
