"""Objects built from configuration nodes: the class that ``_target_`` names, called with the other values.

Nothing but this one class is called: a nested ``_target_``, ``_partial_`` and the like are refused, whoever wrote them.
Hydra is imported only where a configuration is composed, because reading results does not need it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from harness.config.calls import HYDRA_KEYS, calls
from harness.config.catalog import ROOT, choice
from harness.config.names import importable
from harness.config.outside import used
from harness.config.words import understood
from harness.errors import ConfigError, KvgaugeError, Stopped
from harness.folders import cache_folder
from harness.task import Suite, Task
from harness.text import label_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from harness.compression.method import Method

SCORER, BASE = "scorer", "base"
"""The setting of a wrapper that names the wrapped method, and the field that has this method."""


def build(node: Mapping[str, Any], whose: str = "") -> Any:
    """Build the object of a node.

    Args:
        node: ``_target_``, the full name of a class, and the arguments of that class.
        whose: beginning of error messages.

    Raises:
        KvgaugeError: raised by the constructor; or a ``ConfigError`` for an argument that it does not have.
    """
    if not isinstance(node, dict):
        from omegaconf import OmegaConf

        node = cast(
            "dict[str, Any]", OmegaConf.to_container(cast("DictConfig", node), resolve=True, throw_on_missing=True)
        )
    target, arguments = node.get("_target_"), {name: value for name, value in node.items() if name != "_target_"}
    if path := next(calls(arguments), None):
        raise ConfigError(
            f"{whose}{path} of {target} would call something, and only the class itself is called: leave it out"
        )
    try:
        kind = find_class(target)
        for setting, field in wrapped_settings(kind).items():
            given = arguments.get(setting)
            if is_dataclass(given):  # a method that is built already
                continue
            if given is not None or (setting == SCORER and SCORER in arguments):
                arguments[field] = _wrapped(arguments.pop(setting), f"method.{arguments.get('label')}.{setting}")
        return kind(**arguments)
    except Stopped:  # a signal came meanwhile
        raise
    except KvgaugeError as error:
        raise type(error)(f"{whose}{error}") from error
    except Exception as error:  # a user's own class may raise anything
        reason = str(error).strip().splitlines() or [""]
        raise ConfigError(f"{target} cannot be made ({reason[0][:300]}): check its settings") from error


def build_task(node: Mapping[str, Any]) -> tuple[list[Task], Suite | None]:
    """The tasks that the configuration of a task describes, and the suite that they belong to, if any.

    Raises:
        KvgaugeError: as ``build``.
    """
    built = build(node)
    if not hasattr(built, "tasks"):
        return [cast(Task, built)], None
    suite = cast(Suite, built)
    return list(suite.tasks()), suite


def wrapped_settings(kind: type) -> dict[str, str]:
    """The settings of a class of methods around others that name these, with the fields that have them; else none.

    That is ``scorer``, and what the class names in ``also_wraps``, which may be null.
    """
    if getattr(kind, "wraps", False) is not True:  # a Wrapper, which cannot be imported where only results are read
        return {}
    return {SCORER: BASE, **{name: name for name in getattr(kind, "also_wraps", ())}}


def split_scorer(value: object, setting: str) -> tuple[str, Mapping[str, Any]]:
    """The name and the changed knobs of a wrapped method.

    Args:
        value: its name, ``snapkv``, or its name and knobs, ``{snapkv: {window: 16}}``.
        setting: the setting whose value that is, for errors.

    Raises:
        ConfigError: the value has neither form.
    """
    match value:
        case str(name):
            return name, {}
        case Mapping() if len(value) == 1:
            ((name, knobs),) = value.items()
            if isinstance(name, str) and isinstance(knobs, Mapping) and not set(HYDRA_KEYS) & set(knobs):
                return name, knobs
    raise ConfigError(
        f"{setting}={str(value)[:60]} names no method: give a name, as snapkv, or a name with its knobs, as "
        "{snapkv:{window:16}}"
    )


def method_node(name: str, setting: str) -> dict[str, Any]:
    """The node of one method as its file in ``conf/method`` has it, or a file in a folder of the user's own.

    Args:
        name: stem of the file.
        setting: the setting that names it, for errors.

    Raises:
        ConfigError: there is no such file, or it combines others.
    """
    from omegaconf import OmegaConf

    chosen = choice("method", name, used(), setting)
    if not chosen.target:
        raise ConfigError(f"{setting}={name} stands for other files: name one method, as snapkv")
    return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.create(chosen.text), resolve=True))


def _wrapped(value: object, setting: str) -> Method:
    """The method that a wrapper's setting ``scorer`` names."""
    name, knobs = split_scorer(value, setting)
    return cast("Method", build({**method_node(name, setting), **knobs}, f"{setting}={name}: "))


def find_class(target: object) -> type:
    """The class with a full name.

    Raises:
        ConfigError, ImportError: there is no such class.
    """
    module, _, name = importable(str(target)).rpartition(".")
    value = getattr(import_module(module), name, None) if module else None
    if not isinstance(value, type):
        raise ConfigError(f"_target_={str(target)[:80]} is no class: give its full name, as methods.snapkv.SnapKV")
    return value


def register_resolvers() -> None:
    """Register the resolvers of ``conf``.

    ``root``, ``cache``, ``user`` (expands ``~``), ``importable``, and ``stem``, which makes a label of a file's name.
    """
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("root", lambda: str(ROOT), replace=True)
    OmegaConf.register_new_resolver("cache", lambda: str(cache_folder()), replace=True)
    OmegaConf.register_new_resolver("user", os.path.expanduser, replace=True)
    OmegaConf.register_new_resolver("importable", importable, replace=True)
    OmegaConf.register_new_resolver("stem", lambda path: label_of(str(path)), replace=True)


def composed(*overrides: str) -> DictConfig:
    """Compose the configuration of a run without Hydra's command line, for other commands and for Python.

    Args:
        overrides: settings as on the command line: ``task.datasets=all``.

    Raises:
        ConfigError: an override takes a value from the environment.
    """
    from hydra import compose, initialize_config_dir

    from harness.config.guard import environment_error
    from harness.config.model_path import model_words

    for word in overrides:
        if named := re.search(r"\$\{oc\.env:([^,}]*)", word):
            raise environment_error(named[1])
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=understood(model_words(overrides)))


def task_config(name: str, *overrides: str) -> dict[str, Any]:
    """The configuration of ``conf/task/<name>.yaml``, with some settings changed.

    Args:
        name: stem of the file.
        overrides: settings as on the command line.
    """
    from omegaconf import OmegaConf

    # There is no run and so no model; the preset hf sets nothing that a task takes from its model.
    config = composed(f"task={name}", "model=hf", *overrides)
    return cast("dict[str, Any]", OmegaConf.to_container(config.task, resolve=True, throw_on_missing=True))


def parse_settings(changes: Sequence[str]) -> dict[str, Any]:
    """The settings of the task that ``--set`` options give, named without ``task.``.

    Args:
        changes: the options' values, ``task.KNOB=VALUE``.

    Raises:
        ConfigError: an option sets something else.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if wrong := [change for change in changes if not re.match(r"task\.\w+=", change)]:
        raise ConfigError(
            f"--set {wrong[0]} is no setting of the task: give, for example, --set task.code_similarity=levenshtein"
        )
    parsed = OverridesParser.create().parse_overrides(understood(changes))
    return {change.key_or_group.removeprefix("task."): change.value() for change in parsed}
