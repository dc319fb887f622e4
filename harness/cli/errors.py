"""Errors on the command line: one line of fact, value and remedy, and an exit code."""

from __future__ import annotations

import difflib
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from harness.cli.commands.completion import settings
from harness.config.catalog import GROUPS
from harness.config.words import quoted
from harness.errors import ConfigError, EngineError, KvgaugeError
from harness.text import plain

_MOST_NAMED = 8
"""Settings that a remedy names."""
_INTERRUPTED = 130


def is_told(error: BaseException) -> bool:
    """Whether an error is reported in one line: one raised on purpose, an interrupt, or an error of Hydra's."""
    if isinstance(error, KvgaugeError | KeyboardInterrupt):
        return True
    # Here, because most commands do not need Hydra.
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    # The last is what Hydra raises for model=3.
    return isinstance(error, HydraException | OmegaConfBaseException | YAMLError) or (
        isinstance(error, ValueError) and "Config group override" in str(error)
    )


def report(error: BaseException) -> NoReturn:
    """Print an error for which ``is_told`` is true as one line, and exit with its code."""
    if isinstance(error, KvgaugeError):
        message, code = str(error), error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        message, code = "interrupted: what is finished is kept, and the same command goes on from there", _INTERRUPTED
    else:
        message, code = _configuration_error(error), ConfigError.exit_code
    # torchrun gives every process the same command line, so the first one reports for all, except errors of the engine,
    # which may concern one process alone. The others must not fail before it has reported, or torchrun would end it.
    if "model.tp_plan=auto" in sys.argv and os.environ.get("RANK", "0") != "0" and not isinstance(error, EngineError):
        raise SystemExit(0)
    print(f"kvgauge: {plain(message)}", file=sys.stderr)
    raise SystemExit(code)


def _configuration_error(error: BaseException) -> str:
    """An error of Hydra's or OmegaConf's in one line: fact, value, remedy."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue
    from yaml import YAMLError

    text = str(error).strip()
    if isinstance(error, YAMLError):
        return f"a YAML file cannot be read ({error}): write plain values, without tags"
    if isinstance(error, MissingConfigException) and (match := re.search(r"Could not \w+ '([\w/]+)/([^'/]*)'", text)):
        group, value = match.groups()
        # Hydra's message lists the options or, if the value is in a list, the folders it searched.
        folders = re.findall(r"path=file://(.+)$", text, re.MULTILINE)
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE) or sorted(
            path.stem for folder in folders for path in Path(folder, group).glob("*.yaml")
        )
        near = difflib.get_close_matches(value, options, 1)
        return f"{group}={value} is not there: {f'did you mean {near[0]}?' if near else 'use ' + ', '.join(options)}"
    if match := re.search(r"ConfigError raised while resolving interpolation: (.*)", text):
        return match[1]
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set: give {error.full_key}=…"
    if match := re.search(r"Could not override '([^']+)'", text):
        return f"{match[1]} is not a setting of this run: {_closest(match[1])}"
    if match := re.search(r"Ambiguous value for argument '([^=]+)=(.*)'$", text, re.MULTILINE):
        setting, value = match.groups()
        several = f"write {setting}=[{value}]"
        one = None if setting in (*GROUPS, "budget") else quoted(f"{setting}={value}")
        return f"{setting}={value} is no list: {several}" + (f"; or, if it is one value, {one}" if one else "")
    if match := re.search(r"Interpolation key '([^']+)' not found", text):
        return f"${{{match[1]}}} stands for a setting of this run, and none has this name: write \\${{…}} for the text"
    if match := re.search(r"no viable alternative at input '(\[[^'\]]*)'", text):
        return f"the list {match[1]} has no end: write it without spaces, as in method=[snapkv,pyramidkv]"
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    return f"the command line cannot be read ({_first_line(error)}): --help shows examples"


def _unreadable(word: str) -> str:
    """Fact and remedy for a word that is no setting in Hydra's grammar."""
    setting, given, value = word.partition("=")
    if not given:
        return f"{word} is no setting: write {word}=…, and a command first, as in kvgauge report results"
    if "=" in value and re.search(r"\s\w[\w.]*=", value):
        return f"{word} is several settings in one word: take the quotes away between them"
    if better := quoted(word):
        return f"{setting}={value} needs quotes of its own: write {better}"
    return f"{word} cannot be read as a setting and its value: --help shows examples"


def _closest(setting: str) -> str:
    """The remedy for a setting that does not exist."""
    known = settings(sys.argv[1:], setting)
    if setting in known:  # of a method or a storage that is there
        group, name, *_ = setting.split(".")
        return f"{group}= does not name {name}, so name it, too"
    stem, _, last = setting.rpartition(".")
    stems = [stem, *difflib.get_close_matches(stem, {name.rpartition(".")[0] for name in known}, 1)]
    for above in stems:
        lasts = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == above]
        if near := [last] if last in lasts else difflib.get_close_matches(last, lasts, 1):
            return f"did you mean {'.'.join(filter(None, [above, near[0]]))}?"
    if stem and (names := [name.removeprefix(f"{stem}.") for name in known if name.startswith(f"{stem}.")]):
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        return f"{stem} has {', '.join(names[:_MOST_NAMED])}{more}; --cfg job prints all settings"
    return "--cfg job prints all settings"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
