"""What a configuration can ask for, and may not: values of the environment, and folders of Hydra's own that a name leads elsewhere."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from harness.config.catalog import ROOT
from harness.config.names import importable
from harness.errors import ConfigError


def register_resolvers() -> None:
    """Let configurations say ``${root:}``, ``${user:PATH}`` and ``${importable:NAME}``, and refuse ``${oc.env:NAME}``.

    What a run is configured with is written into manifests, and a secret of the environment would be in all of them.
    """

    def refuse(name: str, *_: Any) -> None:
        raise ConfigError(
            f"${{oc.env:{name}}} takes a value from the environment, and configurations are written into results: give the value itself"
        )

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)
    OmegaConf.register_new_resolver("root", lambda: str(ROOT), replace=True)
    OmegaConf.register_new_resolver("user", os.path.expanduser, replace=True)
    OmegaConf.register_new_resolver("importable", importable, replace=True)


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
