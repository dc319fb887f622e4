"""The command line: words to a command or to Hydra's configuration, errors to one line and an exit code."""

from __future__ import annotations

import difflib
import gc
import logging
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from harness.cli.commands import command_line
from harness.config.catalog import ROOT, SETTINGS
from harness.config.guard import refuse_environment
from harness.config.method_path import import_from, search_path_words
from harness.config.names import importable
from harness.errors import ConfigError, EngineError, KvgaugeError, Stopped
from harness.launchers.hydra_plugin import register
from harness.text import plain

_INTERRUPTED = 130


def main() -> None:
    """Run the command line; every error raised on purpose is one line, with its exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would stand above the one line
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    refuse_environment()
    OmegaConf.register_new_resolver("root", lambda: str(ROOT), replace=True)
    OmegaConf.register_new_resolver("user", os.path.expanduser, replace=True)
    OmegaConf.register_new_resolver("importable", importable, replace=True)
    try:
        if len(sys.argv) > 1 and re.fullmatch(r"\w+", sys.argv[1]):
            command_line(sys.argv[1:])
        else:
            if any(word.startswith("hydra/launcher=") for word in sys.argv) and not any(word.startswith("-") for word in sys.argv):
                sys.argv.insert(1, "--multirun")  # without it Hydra passes over a launcher in silence
            sys.argv[1:] = search_path_words(sys.argv[1:])
            register()
            _hydra_main()
    except (KvgaugeError, HydraException, OmegaConfBaseException, YAMLError, KeyboardInterrupt) as error:
        _report(error)
    except ValueError as error:
        if "Config group override" not in str(error):  # model=3
            raise
        _report(error)


@hydra.main(config_path=str(ROOT / "conf"), config_name="config", version_base="1.3")
def _hydra_main(config: DictConfig) -> None:
    gc.disable()  # until the run has imported torch and transformers: collecting meanwhile takes a tenth of a start
    try:
        from harness.run.main import run  # last: a wrong word or --help must not wait for what a run imports

        import_from(HydraConfig.get().searchpath)
        if HydraConfig.get().mode == RunMode.MULTIRUN and OmegaConf.select(config, "model.tp_plan") is not None:
            _report(ConfigError("model.tp_plan=auto is for one run, not for several: leave --multirun out"))
        whole = run(config)
    except (KvgaugeError, InstantiationException, OmegaConfBaseException, KeyboardInterrupt) as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN and not isinstance(error, Stopped):
            raise  # the other jobs go on
        _report(error)  # inside, as Hydra would print more than the message
    finally:
        gc.enable()
    if not whole:
        raise SystemExit(1)


def _report(error: BaseException) -> NoReturn:
    """Print an error as one line and exit with its code."""
    if isinstance(error, KvgaugeError):
        message, code = str(error), error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        message, code = "interrupted: what is finished is kept, and the same command goes on from there", _INTERRUPTED
    elif isinstance(error, YAMLError):
        message, code = f"a YAML file cannot be read ({error}): write plain values, without tags", ConfigError.exit_code
    else:
        message, code = _configuration_error(error), ConfigError.exit_code
    # torchrun gives every process the same words, so the first one speaks for all, but for what only one can know. The others must not
    # fail before it has spoken, as torchrun would end it.
    if "model.tp_plan=auto" in sys.argv and os.environ.get("RANK", "0") != "0" and not isinstance(error, EngineError):
        raise SystemExit(0)
    print(f"kvgauge: {plain(message)}", file=sys.stderr)
    raise SystemExit(code)


def _configuration_error(error: BaseException) -> str:
    """Hydra's and OmegaConf's messages in one line: fact, value, remedy."""
    text = str(error).strip()
    if isinstance(error, MissingConfigException) and (found := re.search(r"Could not \w+ '([\w/]+)/([^'/]*)'", text)):
        group, value = found.groups()
        # Hydra names the options, or, for one of a list, where it has looked.
        places = re.findall(r"path=file://(.+)$", text, re.MULTILINE)
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE) or sorted(
            path.stem for place in places for path in Path(place, group).glob("*.yaml")
        )
        near = difflib.get_close_matches(value, options, 1)
        return f"{group}={value} is not there: {f'did you mean {near[0]}?' if near else 'use ' + ', '.join(options)}"
    if found := re.search(r"ConfigError raised while resolving interpolation: (.*)", text):
        return found[1]
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set: give {error.full_key}=…"
    if found := re.search(r"Could not override '([^']+)'", text):
        return f"{found[1]} is not a setting of this run: {_closest(found[1])}"
    if found := re.search(r"Ambiguous value for argument '([^'=]+)=([^'\[]*)'", text):
        return f"{found[1]}={found[2]} is no list: write {found[1]}=[{found[2]}]"
    if found := re.search(r"no viable alternative at input '(\[[^'\]]*)'", text):
        return f"the list {found[1]} has no end: write it without spaces, as in method=[snapkv,pyramidkv]"
    return f"the command line cannot be read ({_first_line(error)}): --help shows examples"


def _closest(key: str) -> str:
    """A remedy for a setting that is not there."""
    stem, _, last = key.rpartition(".")
    if stem.startswith("method."):
        return f"check its name, and that method= names {stem.removeprefix('method.')}; --cfg job prints all settings"
    near = difflib.get_close_matches(last, [*SETTINGS, "experiment"], 1) if not stem else []
    return f"did you mean {near[0]}?" if near else "--cfg job prints all settings"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
