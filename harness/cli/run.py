"""The start of a run from the command line: its words become Hydra's configuration, and that a run."""

from __future__ import annotations

import gc
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.cli.errors import report
from harness.config.build import register_resolvers
from harness.config.catalog import ROOT
from harness.config.guard import refuse_environment
from harness.config.model_path import model_words
from harness.config.outside import search_path_words, use
from harness.config.words import understood
from harness.errors import ConfigError, KvgaugeError, Stopped
from harness.launchers.hydra_plugin import register


def start() -> None:
    """Hand the command line to Hydra, which runs it.

    Raises:
        KvgaugeError, HydraException, OmegaConfBaseException, YAMLError: the command line cannot be run.
    """
    if any(word.startswith("hydra/launcher=") for word in sys.argv) and not any(
        word.startswith("-") for word in sys.argv
    ):
        sys.argv.insert(1, "--multirun")  # without it Hydra silently ignores the launcher
    sys.argv[1:] = understood(model_words(search_path_words(sys.argv[1:])))
    refuse_environment()
    register_resolvers()
    register()
    _hydra_main()


@hydra.main(config_path=str(ROOT / "conf"), config_name="config", version_base="1.3")
def _hydra_main(config: DictConfig) -> None:
    gc.disable()  # until torch and transformers are imported, because collecting meanwhile takes a tenth of the start
    try:
        from harness.run.main import run  # here, so that a wrong setting or --help does not wait for these imports

        use(HydraConfig.get().searchpath)
        if HydraConfig.get().mode == RunMode.MULTIRUN and OmegaConf.select(config, "model.tp_plan") is not None:
            report(ConfigError("model.tp_plan=auto is for one run, not for several: leave --multirun out"))
        whole = run(config)
    except (KvgaugeError, InstantiationException, OmegaConfBaseException, KeyboardInterrupt) as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN and not isinstance(error, Stopped):
            raise  # the other jobs continue
        report(error)  # here, because Hydra would print more than the message
    finally:
        gc.enable()
    if not whole:
        raise SystemExit(1)
