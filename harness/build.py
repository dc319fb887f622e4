"""A configuration node to the object that its ``_target_`` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from harness.errors import ConfigError, KvgaugeError
from harness.task import Suite, Task

ROOT = Path(__file__).resolve().parents[1]


def build(node: Mapping[str, Any], whose: str = "") -> Any:
    """The object of a node.

    Args:
        node: ``_target_`` and its arguments.
        whose: begins the message of an error.

    Raises:
        KvgaugeError: what its constructor raised, or a ``ConfigError`` for a setting it does not know.
    """
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
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
        KvgaugeError: as ``build``, or the target is no task of ``conf/task``.
    """
    known = {OmegaConf.to_container(OmegaConf.load(path)).get("_target_") for path in (ROOT / "conf/task").glob("*.yaml")}  # type: ignore[union-attr]
    if node.get("_target_") not in known:
        raise ConfigError(
            f"the results name {str(node.get('_target_'))[:80]!r} as their task, which is none of conf/task: add its YAML there"
        )
    return build_task(node)


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
