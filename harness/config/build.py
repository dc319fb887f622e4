"""A configuration node to the object that its ``_target_`` names.

Nothing but that one class is called: ``_target_`` further down, ``_partial_`` and their like are refused, whoever wrote
them. Hydra itself is imported where a configuration is composed, as reading results needs none of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from harness.config.catalog import ROOT, choices
from harness.config.names import importable
from harness.errors import ConfigError, KvgaugeError, Stopped
from harness.task import Suite, Task

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from harness.compression.method import Method

_HYDRA = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")
"""Keys by which Hydra's own ``instantiate`` would make something other than the value that stands there."""


def build(node: Mapping[str, Any], whose: str = "") -> Any:
    """The object of a node.

    Args:
        node: ``_target_``, the full name of a class, and its arguments.
        whose: begins the message of an error.

    Raises:
        KvgaugeError: what its constructor raised, or a ``ConfigError`` for a setting it does not know.
    """
    if not isinstance(node, dict):
        from omegaconf import OmegaConf

        node = cast(
            "dict[str, Any]", OmegaConf.to_container(cast("DictConfig", node), resolve=True, throw_on_missing=True)
        )
    target, arguments = node.get("_target_"), {name: value for name, value in node.items() if name != "_target_"}
    if path := next(_calls(arguments), None):
        raise ConfigError(
            f"{whose}{path} of {target} would call something, and only the class itself is called: leave it out"
        )
    try:
        return _find_class(target)(**arguments)
    except Stopped:  # a signal that came meanwhile
        raise
    except KvgaugeError as error:
        raise type(error)(f"{whose}{error}") from error
    except Exception as error:  # whatever a user's own class raises
        reason = str(error).strip().splitlines() or [""]
        raise ConfigError(f"{target} cannot be made ({reason[0][:300]}): check its settings") from error


def build_task(node: Mapping[str, Any]) -> tuple[list[Task], Suite | None]:
    """The tasks of a task's configuration, and the suite that they belong to, if any.

    Raises:
        KvgaugeError: as ``build``.
    """
    built = build(node)
    if not hasattr(built, "tasks"):
        return [cast(Task, built)], None
    suite = cast(Suite, built)
    return list(suite.tasks()), suite


def recorded_tasks(node: Mapping[str, Any]) -> tuple[list[Task], Suite | None]:
    """``build_task`` of a configuration that a results folder brings, which may come from anyone.

    Raises:
        KvgaugeError: as ``build``, or it names a class that no file of ``conf/task`` names, or asks for more than
            values.
    """
    target = node.get("_target_")
    if target is None:
        raise ConfigError(
            "the results do not say which task they are of (task_config has no _target_): restore their manifests"
        )
    if target not in [choice.target for choice in choices("task") if choice.target]:
        raise ConfigError(
            f"the results name {str(target)[:80]!r} as their task, which is none of conf/task: add its YAML there"
        )
    _refuse_calls("task_config", {name: value for name, value in node.items() if name != "_target_"})
    return build_task(node)


def recorded_method(target: str, label: str, knobs: Mapping[str, Any]) -> Method:
    """The method that a results folder names.

    Args:
        target: its class, one that is known here.
        label: its label.
        knobs: its other fields, as the manifest has them, which may come from anyone.

    Raises:
        ConfigError: they do not make one, or ask for more than values.
    """
    _refuse_calls("settings.method", knobs)
    return cast("Method", build({**knobs, "_target_": target, "label": label}))


def _find_class(target: object) -> type:
    """The class that a full name means.

    Raises:
        ConfigError, ImportError: there is none.
    """
    module, _, name = importable(str(target)).rpartition(".")
    named = getattr(import_module(module), name, None) if module else None
    if not isinstance(named, type):
        raise ConfigError(f"_target_={str(target)[:80]} is no class: give its full name, as methods.snapkv.SnapKV")
    return named


def _refuse_calls(where: str, values: Mapping[str, Any]) -> None:
    """Refuse what Hydra would make more of than a value: its keys, and ``${...}``.

    Args:
        where: the part of a manifest that the values are, for the message.
        values: from the manifest.

    Raises:
        ConfigError: with the first such place.
    """
    if path := next(_calls(values), None):
        raise ConfigError(
            f"{where}.{path} of the results would call something, and no part of a manifest is called: restore "
            "their manifests"
        )
    if path := next((path for path, _, value in _entries(values) if isinstance(value, str) and "${" in value), None):
        raise ConfigError(
            f"{where}.{path} of the results is no value but asks for one by ${{...}}: restore their manifests"
        )


def _calls(values: Mapping[str, Any]) -> Iterator[str]:
    """Where Hydra's keys stand, at any depth."""
    return (path for path, key, _ in _entries(values) if key in _HYDRA)


def _entries(values: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """Every value of every depth, containers included, with its key and with its path cut to a readable length."""
    waiting: list[tuple[tuple[str, ...], object]] = [((), values)]
    while waiting:
        above, inside = waiting.pop()
        for key, value in (
            inside.items()
            if isinstance(inside, Mapping)
            else enumerate(inside)
            if isinstance(inside, list | tuple)
            else ()
        ):
            path = (*above, str(key)[:40])[:4]
            yield ".".join(path), key, value
            waiting.append((path, value))


def register_resolvers() -> None:
    """Teach OmegaConf what the files of ``conf`` ask for: the root of the project, a path of the user's, a class."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("root", lambda: str(ROOT), replace=True)
    OmegaConf.register_new_resolver("user", os.path.expanduser, replace=True)
    OmegaConf.register_new_resolver("importable", importable, replace=True)


def composed(*overrides: str) -> DictConfig:
    """The configuration of a run, for commands that run none and for Python.

    Args:
        overrides: as on the command line, ``task.datasets=all``.

    Raises:
        ConfigError: one takes a value from the environment.
    """
    from hydra import compose, initialize_config_dir

    from harness.config.guard import environment_error

    for word in overrides:
        if named := re.search(r"\$\{oc\.env:([^,}]*)", word):
            raise environment_error(named[1])
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def task_config(name: str, *overrides: str) -> dict[str, Any]:
    """What ``conf/task/<name>.yaml`` says, with some settings changed.

    Args:
        name: the file's stem.
        overrides: as on the command line.
    """
    from omegaconf import OmegaConf

    # No run, so no model: of what a task takes from one, hf has nothing set.
    config = composed(f"task={name}", "model=hf", *overrides)
    return cast("dict[str, Any]", OmegaConf.to_container(config.task, resolve=True, throw_on_missing=True))


def parse_settings(changes: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` says of the task, without ``task.``.

    Raises:
        ConfigError: a change of something else.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if wrong := [change for change in changes if not re.match(r"task\.\w+=", change)]:
        raise ConfigError(
            f"--set {wrong[0]} is no setting of the task: give, for example, --set task.code_similarity=levenshtein"
        )
    parsed = OverridesParser.create().parse_overrides(list(changes))
    return {change.key_or_group.removeprefix("task."): change.value() for change in parsed}
