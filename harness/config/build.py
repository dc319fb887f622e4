"""A configuration node to the object that its ``_target_`` names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from harness.config.catalog import ROOT
from harness.config.names import importable
from harness.errors import ConfigError, KvgaugeError, Stopped
from harness.task import Suite, Task

if TYPE_CHECKING:
    from harness.compression.method import Method

_HYDRA = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")
"""Keys by which ``instantiate`` makes something other than the value that stands there."""


def build(node: Mapping[str, Any], whose: str = "") -> Any:
    """The object of a node.

    Args:
        node: ``_target_`` and its arguments.
        whose: begins the message of an error.

    Raises:
        KvgaugeError: what its constructor raised, or a ``ConfigError`` for a setting it does not know.
    """
    try:
        return instantiate(node, _target_=importable(str(node.get("_target_"))), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, Stopped):  # a signal that came meanwhile
            raise cause from None
        if isinstance(cause, KvgaugeError):
            raise type(cause)(f"{whose}{cause}") from error
        reason = str(cause or error).strip().splitlines() or [""]
        raise ConfigError(f"{node.get('_target_')} cannot be made ({reason[0][:300]}): check its settings") from error


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
        KvgaugeError: as ``build``, or it would call something that no file of ``conf/task`` calls at that place.
    """
    target = node.get("_target_")
    if target is None:
        raise ConfigError("the results do not say which task they are of (task_config has no _target_): restore their manifests")
    files = [_called(OmegaConf.to_container(OmegaConf.load(path))) for path in (ROOT / "conf/task").glob("*.yaml")]
    same = [called for called in files if called.get(("_target_",)) == target]
    if not same:
        raise ConfigError(f"the results name {str(target)[:80]!r} as their task, which is none of conf/task: add its YAML there")
    _check_recorded("task_config", node, same)
    return build_task(node)


def recorded_method(target: str, label: str, knobs: Mapping[str, Any]) -> Method:
    """The method that a results folder names.

    Args:
        target: its class, one that is known here.
        label: its label.
        knobs: its other fields, as the manifest has them, which may come from anyone.

    Raises:
        ConfigError: they do not make one, or would call something else.
    """
    _check_recorded("settings.method", knobs, [{}])  # they were fields of a dataclass, which are values
    return cast("Method", build({"_target_": target, "label": label, **knobs}))


_Place = tuple[str | int, ...]


def _check_recorded(where: str, node: Mapping[str, Any], allowed: Sequence[Mapping[_Place, Any]]) -> None:
    """Refuse what Hydra would do beyond making one object: calls below the top, and ``${...}``, by which a text can become a call.

    Raises:
        ConfigError: with the first such place.
    """
    called = _called(node)
    if called not in allowed:
        wrong = next((place for place in called if called[place] != allowed[0].get(place)), ("_target_",))
        raise ConfigError(f"{_words(where, wrong)} of the results would call what no YAML of conf calls there: restore their manifests")
    if texts := [place for place, value in _entries(node) if isinstance(value, str) and "${" in value]:
        raise ConfigError(f"{_words(where, texts[0])} of the results is no value but asks for one by ${{...}}: restore their manifests")


def _words(where: str, place: _Place) -> str:
    return ".".join([where, *(str(part)[:40] for part in place[:4])])


def _called(node: Any) -> dict[_Place, Any]:
    """What of a configuration lets Hydra call something, by its place."""
    return {place: value for place, value in _entries(node) if place[-1] in _HYDRA}


def _entries(node: Any) -> Iterator[tuple[_Place, Any]]:
    """Every value of every depth with its place, containers included."""
    waiting: list[tuple[_Place, Any]] = [((), node)]
    while waiting:
        place, of = waiting.pop()
        for key, value in of.items() if isinstance(of, Mapping) else enumerate(of) if isinstance(of, list | tuple) else ():
            yield (*place, key), value
            waiting.append(((*place, key), value))


def composed(*overrides: str) -> DictConfig:
    """The configuration of a run, for commands that run none.

    Args:
        overrides: as on the command line, ``task.datasets=all``.
    """
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def task_config(name: str, *overrides: str) -> dict[str, Any]:
    """What ``conf/task/<name>.yaml`` says, with some settings changed.

    Args:
        name: the file's stem.
        overrides: as on the command line.
    """
    # No run, so no model: of what a task takes from one, hf has nothing set.
    config = composed(f"task={name}", "model=hf", *overrides)
    values = OmegaConf.to_container(config.task, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return cast("dict[str, Any]", values)


def parse_settings(changes: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` says of the task, without ``task.``.

    Raises:
        ConfigError: a change of something else.
    """
    if wrong := [change for change in changes if not re.match(r"task\.\w+=", change)]:
        raise ConfigError(f"--set {wrong[0]} is no setting of the task: give, for example, --set task.code_similarity=levenshtein")
    parsed = OverridesParser.create().parse_overrides(list(changes))
    return {change.key_or_group.removeprefix("task."): change.value() for change in parsed}
