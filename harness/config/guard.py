"""Limits on configurations: no values from the environment, and no folders of Hydra's that lead elsewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from harness.errors import ConfigError


def refuse_environment() -> None:
    """Make ``${oc.env:NAME}`` an error in every configuration, for the rest of the process."""

    def refuse(name: str, *_: Any) -> None:
        raise environment_error(name)

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)


def environment_error(name: str) -> ConfigError:
    """The error for ``${oc.env:NAME}``.

    It is refused because configurations are written into manifests, where a secret would then be readable.
    """
    return ConfigError(
        f"${{oc.env:{name}}} takes a value from the environment, and configurations are written into results: give "
        "the value itself"
    )


class OwnFolders(Callback):
    """A callback that refuses a ``hydra.run.dir`` or ``hydra.sweep.*`` outside its folder before Hydra creates it."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the folders of a run, and create its folder."""
        _check("hydra.output_subdir", str(config.hydra.output_subdir))
        _check("hydra.run.dir", str(config.hydra.run.dir))
        _make("hydra.run.dir", str(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Check the folders of a multirun, and create its folder.

        The subfolder of each job is not known yet, so its pattern must contain nothing but the job's number.
        """
        _check("hydra.output_subdir", str(config.hydra.output_subdir))
        _check("hydra.sweep.dir", str(config.hydra.sweep.dir))
        sweep = OmegaConf.to_container(config.hydra.sweep, resolve=False)
        assert isinstance(sweep, dict)
        subdir = re.sub(r"\$\{hydra\.job\.(num|id)\}|\$\{now:[^}]*\}", "n", str(sweep["subdir"]))
        _check("hydra.sweep.subdir", subdir)
        if "${" in subdir or Path(subdir).is_absolute():
            _refuse(f"hydra.sweep.subdir={subdir} could lead anywhere: make it of ${{hydra.job.num}}")
        _make("hydra.sweep.dir", str(config.hydra.sweep.dir))


def _check(setting: str, folder: str) -> None:
    if ".." in Path(folder).parts:
        _refuse(f"{setting}={folder} leads out of its folder by '..': write the folder without it")


def _make(setting: str, folder: str) -> None:
    """Create a folder here, where a failure can be reported in one line."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(f"{setting}={folder} cannot be written ({error.strerror}): choose another folder")


def _refuse(message: str) -> None:
    # Hydra turns a callback's errors into warnings, but lets SystemExit through.
    print(f"kvgauge: {message}", file=sys.stderr)
    raise SystemExit(ConfigError.exit_code)
