"""What a configuration may not do: take values from the environment, and lead Hydra's own folders elsewhere by a name."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from harness.errors import ConfigError


def refuse_environment() -> None:
    """Let ``${oc.env:NAME}`` be an error wherever it stands, for the rest of the process."""

    def refuse(name: str, *_: Any) -> None:
        raise environment_error(name)

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)


def environment_error(name: str) -> ConfigError:
    """What is said of ``${oc.env:NAME}``: configurations are written into manifests, and a secret would be in all of them."""
    return ConfigError(
        f"${{oc.env:{name}}} takes a value from the environment, and configurations are written into results: give "
        "the value itself"
    )


class OwnFolders(Callback):
    """Refuses ``hydra.run.dir`` and ``hydra.sweep.*`` that leave their folder, before Hydra makes them."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Of a run."""
        _check("hydra.output_subdir", str(config.hydra.output_subdir))
        _check("hydra.run.dir", str(config.hydra.run.dir))
        _make("hydra.run.dir", str(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Of several; what each has for itself is known later, and must be made of its number."""
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
    """Make it here, where one line can say that it cannot be."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(f"{setting}={folder} cannot be written ({error.strerror}): choose another folder")


def _refuse(message: str) -> None:
    # Hydra makes warnings of a callback's errors, but lets an exit through.
    print(f"kvgauge: {message}", file=sys.stderr)
    raise SystemExit(ConfigError.exit_code)
