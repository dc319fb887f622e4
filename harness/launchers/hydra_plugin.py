"""The launcher that Hydra starts for ``hydra/launcher=local``, ``slurm`` or ``ray``. ``harness.launchers`` does the work."""

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
    """Runs every job of a multirun, and every shard of a job, as a process of its own."""

    def __init__(self, backend: str, **settings: Any) -> None:
        """Take a preset.

        Args:
            backend: ``local``, ``slurm`` or ``ray``: a module of ``harness.launchers``.
            settings: of that module's ``Settings``.
        """
        self._backend, self._settings = backend, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the configuration of the multirun, as Hydra asks before ``launch``."""
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs to their end.

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
    """Make the launcher known to Hydra under the name that ``conf/hydra/launcher`` gives it.

    Hydra takes plugins from a package named ``hydra_plugins`` alone. A folder of that name would be a second top-level
    name of the wheel, so this module stands in as ``hydra_plugins.kvgauge``, beside plugins of others where there are
    any.
    """
    plugins = Plugins.instance()
    try:
        package = import_module("hydra_plugins")
    except ModuleNotFoundError:
        package = sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
    package.kvgauge = sys.modules[__name__]  # type: ignore[attr-defined]
    ShardLauncher.__module__ = "hydra_plugins.kvgauge"
    plugins.register(ShardLauncher)
