"""Objects built from what a results folder says of them: it may come from anyone, and nothing of it is called."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any, cast

from harness.config.build import SCORER, build, build_task, find_class, wrapped_settings
from harness.config.calls import calls, entries
from harness.config.catalog import choices
from harness.config.outside import used
from harness.errors import ConfigError
from harness.task import Suite, Task

if TYPE_CHECKING:
    from harness.compression.method import Method
    from harness.compression.storage import Storage


def recorded_tasks(node: Mapping[str, Any]) -> tuple[list[Task], Suite | None]:
    """``build_task`` for a configuration from a results folder, which may come from anyone and is not trusted.

    Raises:
        KvgaugeError: as ``build``; or the node names a class that no file of ``conf/task`` names, or contains more
            than plain values.
    """
    target = node.get("_target_")
    if target is None:
        raise ConfigError(
            "the results do not say which task they are of (task_config has no _target_): restore their manifests"
        )
    if target not in [choice.target for choice in choices("task", used()) if choice.target]:
        raise ConfigError(
            f"the results name {str(target)[:80]!r} as their task, which is none of conf/task: give the folder of a "
            "task of your own with --task-path"
        )
    _refuse_calls("task_config", {name: value for name, value in node.items() if name != "_target_"})
    return build_task(node)


def recorded_method(recorded: Mapping[str, Any], label: str, known: Container[str]) -> Method | str:
    """The method that a results folder names.

    Args:
        recorded: ``class``, the knobs and perhaps hashes of files, from a manifest, which may come from anyone and is
            not trusted; of a wrapped method also ``label``.
        label: its label.
        known: full names of the classes that may be called.

    Returns:
        The method; or the name of its class, or of a method's that it wraps, which is none of ``known``.

    Raises:
        ConfigError: a class does not accept the knobs, or they contain more than plain values.
    """
    target = str(recorded.get("class"))
    if target not in known:
        return target
    settings = wrapped_settings(find_class(target))
    hashes = ("source_sha256", "file_sha256")
    knobs = {name: value for name, value in recorded.items() if name not in ("class", "label", *hashes, *settings)}
    _refuse_calls("settings.method", knobs)
    for setting, field in settings.items():
        base = recorded.get(setting)
        if base is None:
            knobs |= {} if setting == SCORER else {field: None}
            continue
        if not isinstance(base, Mapping):
            raise ConfigError(f"settings.method.{setting} of the results is no method: restore their manifests")
        wrapped = recorded_method(base, str(base.get("label")), known)
        if isinstance(wrapped, str):
            return wrapped
        knobs[field] = wrapped
    return cast("Method", build({**knobs, "_target_": target, "label": label}))


def recorded_storage(recorded: object, label: str) -> Storage | None:
    """The storage that a results folder names; None if it names none, and entries are stored as they are.

    Args:
        recorded: ``class`` and the knobs from a manifest, which may come from anyone and is not trusted.
        label: the label of its cell.

    Raises:
        ConfigError: the class is none of ``conf/storage``, or does not accept the knobs.
    """
    if recorded is None:
        return None
    if not isinstance(recorded, Mapping):
        raise ConfigError("settings.storage of the results is no storage: restore their manifests")
    target = str(recorded.get("class"))
    if target not in [choice.target for choice in choices("storage")]:
        raise ConfigError(f"the results name {target[:80]!r} as storage, which is none of conf/storage: add its file")
    knobs = {name: value for name, value in recorded.items() if name != "class"}
    _refuse_calls("settings.storage", knobs)
    return cast("Storage", build({**knobs, "_target_": target, "label": label.rpartition("+")[2]}))


def _refuse_calls(where: str, values: Mapping[str, Any]) -> None:
    """Refuse values that Hydra would not take as they are: those under its own keys, and ``${...}``.

    Args:
        where: part of the manifest that contains the values, for the message.
        values: values from the manifest.

    Raises:
        ConfigError: names the path of the first such value.
    """
    if path := next(calls(values), None):
        raise ConfigError(
            f"{where}.{path} of the results would call something, and no part of a manifest is called: restore "
            "their manifests"
        )
    if path := next((path for path, _, value in entries(values) if isinstance(value, str) and "${" in value), None):
        raise ConfigError(
            f"{where}.{path} of the results is no value but asks for one by ${{...}}: restore their manifests"
        )
