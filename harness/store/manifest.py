"""The manifest of a cell, which states what its numbers depend on, and the checks when it is read or compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from harness.compression.budget import parse_budget
from harness.config.catalog import choices
from harness.errors import ConfigError, OtherVersionError, StoreError
from harness.results import Manifest, Name
from harness.store.files import Unfit, failed, read_json, write_atomically
from harness.store.records import has_records
from harness.text import plain

_MANIFEST = "manifest.json"
_MOVED: Mapping[str, str] = {
    "tasks.longbench.LongBench": "tasks.longbench.suite.LongBench",
    "tasks.needle.Needle": "tasks.needle.task.Needle",
}
"""Classes of tasks by the names that they had in earlier releases, and their names now.

Manifests name them in ``task_config._target_``; settings, which the fingerprint is computed from, do not.
"""


class _Settings(Struct):
    model: Mapping[str, Any] = {}
    task: Mapping[str, Any] = {}
    method: Mapping[str, Any] = {}
    selection: Mapping[str, Any] = {}


class _TaskConfig(Struct):
    name: Name
    """Name of the suite, or of the task itself."""


class _Provenance(Struct):
    packages: Mapping[str, Any] = {}


class _Parts(Struct):
    """Parts of a manifest that ``Manifest`` types as any JSON object, with the fields that readers rely on."""

    settings: _Settings
    task_config: _TaskConfig
    provenance: _Provenance


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash of a cell's settings; the order of their keys does not matter."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def boundary(settings: Mapping[str, Any]) -> str | None:
    """Where a cell's entries were selected, after the ``prompt`` or after the ``context``; None if nobody knows.

    Only ``context`` is recorded. The manifest of an imported cell need not say.
    """
    after: str | None = settings.get("selection", {}).get("after")
    return after or ("prompt" if "method" in settings else None)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a cell's folder; None if there is none yet.

    Raises:
        OtherVersionError: another version of kvgauge wrote the manifest, and this one cannot read all of it.
        StoreError: the manifest cannot be read, or is missing although there are records.
    """
    return _read(folder, lambda values: values)


def read_known(folder: Path) -> Manifest | None:
    """What this version knows of a manifest that another version wrote, for readers alone.

    Raises:
        StoreError: as in ``read_manifest``.
    """
    return _read(folder, lambda values: {name: values[name] for name in Manifest.__struct_fields__ if name in values})


def writer_of(manifest: Manifest) -> str | None:
    """The version of kvgauge that began a cell, if it is not this one; None if it is, or nobody knows."""
    return _other_version(manifest.provenance)


def _read(folder: Path, chosen: Callable[[dict[str, Any]], dict[str, Any]]) -> Manifest | None:
    path = folder / _MANIFEST
    remedy = "restore it, or move the folder out of the results to compute the cell again"
    values: dict[str, Any] = {}
    try:
        values = chosen(read_json(path))
        manifest = msgspec.convert(values, Manifest)
        msgspec.convert(values, _Parts)
        if parse_budget(manifest.cell.budget).text != manifest.cell.budget:
            raise Unfit("its cell.budget")
    except FileNotFoundError:
        if has_records(folder):
            raise StoreError(f"{folder} has records but no {_MANIFEST}: {remedy}") from None
        return None
    except OSError as error:
        raise failed(path, "read", error) from error
    except (ValueError, TypeError, ConfigError, RecursionError) as error:
        reason = str(error) if isinstance(error, Unfit | msgspec.ValidationError) else type(error).__name__
        if version := _other_version(values.get("provenance")):
            raise OtherVersionError(
                f"{folder} was written by kvgauge {version}, and this is {_own_version() or 'not installed'}, which "
                f"cannot read all of it ({reason}): use that version, or another results folder"
            ) from error
        raise StoreError(f"{path} cannot be read ({reason}): {remedy}") from error
    target = manifest.task_config.get("_target_")
    if isinstance(target, str) and target in _MOVED:
        return msgspec.structs.replace(manifest, task_config={**manifest.task_config, "_target_": _MOVED[target]})
    return manifest


def _other_version(provenance: object) -> str | None:
    """The version that a manifest's provenance names, if it is not this one."""
    packages = provenance.get("packages") if isinstance(provenance, dict) else None
    version = packages.get("kvgauge") if isinstance(packages, dict) else None
    return plain(version)[:40] if isinstance(version, str) and version != _own_version() else None


@cache
def _own_version() -> str | None:
    try:
        return metadata.version("kvgauge")
    except metadata.PackageNotFoundError:
        return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write or replace the manifest in a cell's folder.

    Raises:
        OSError: the manifest cannot be written, and is unchanged.
    """
    write_atomically(folder / _MANIFEST, json.dumps(msgspec.to_builtins(manifest), indent=2, sort_keys=True) + "\n")


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The name of the first setting that differs and both of its values; None if all are equal."""
    if then == now:
        return None
    old, new = _flat(then), _flat(now)
    name = next(key for key in [*new, *old] if old.get(key) != new.get(key))
    return name, _short(old.get(name, "not set")), _short(new.get(name, "not set"))


def check_manifest(folder: Path, earlier: Manifest, wanted: Manifest) -> None:
    """Refuse to mix records of different cells, or of different settings, in one folder.

    Args:
        folder: the cell's folder.
        earlier: the manifest on disk.
        wanted: the manifest that the cell is to have.

    Raises:
        StoreError: names the other cell, or the first setting that differs.
    """
    then, now = (f"{one.model}/{one.task}/{one.cell.name}" for one in (earlier, wanted))
    if then != now:
        raise StoreError(
            f"{folder} was written as {then}, and moved or copied there: move it back, or use another results folder"
        )
    if changed := difference(earlier.settings, wanted.settings):
        name, then, now = changed
        raise StoreError(
            f"{folder} was made with {name}={then}, now it is {now}: "
            f"{_another_name(wanted, name, now)} or another results folder"
        )


def check_sibling(folder: Path, earlier: Manifest, wanted: Manifest) -> None:
    """Refuse a cell beside one of another model, other task settings or another boundary: a table has one of each.

    Args:
        folder: the folder of the earlier cell.
        earlier: the earlier cell's manifest.
        wanted: the manifest of the cell that is to stand beside it.

    Raises:
        StoreError: names the first setting that differs.
    """
    old, new = boundary(earlier.settings), boundary(wanted.settings)
    if None not in (old, new) and old != new:
        raise StoreError(
            f"{folder} was made with selection.after={old}, but {wanted.cell.name} beside it has {new}, and one table "
            "has one of them: use another task.name or another results folder for one of them"
        )
    drawn = difference(_sampling(earlier.settings), _sampling(wanted.settings))
    if drawn and "method" in earlier.settings and "method" in wanted.settings:
        raise StoreError(
            f"{folder} was made with sampling.{drawn[0]}={drawn[1]}, but {wanted.cell.name} beside it has {drawn[2]}: "
            "use another task.name or another results folder for one of them"
        )
    for group in ("model", "task"):
        then, now = earlier.settings.get(group), wanted.settings.get(group)
        # The manifest of an imported cell does not say how its texts were made.
        if then is not None and now is not None and (changed := difference(then, now)):
            name, old, new = changed
            raise StoreError(
                f"{folder} was made with {group}.{name}={old}, but {wanted.cell.name} beside it has {new}: "
                f"{_another_name(wanted, f'{group}.{name}', new)} or another results folder for one of them"
            )


def _sampling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How a table's answers are drawn, whether a cell is the greedy reference among them or not; greedy if empty."""
    return {name: value for name, value in settings.get("sampling", {}).items() if name != "reference"}


def _another_name(wanted: Manifest, setting: str, value: str) -> str:
    """How a cell with another value of a setting gets a name of its own; the beginning of a list of remedies."""
    group, _, name = setting.partition(".")
    if group in ("model", "task"):
        return f"use another {group}.name"
    if group == "storage" and (label := wanted.cell.label.rpartition("+")[2]) in {one.name for one in choices(group)}:
        return f"give storage.{label}.{name}=[{value}], a list, for a cell of its own, or use another label"
    if group == "sampling" or setting == "selection.after":
        return "use another task.name"
    if group == "method" and name not in ("class", "source_sha256", "file_sha256") and re.fullmatch(r"[\w.+-]+", value):
        target = wanted.settings["method"].get("class")
        method = next((choice.name for choice in choices("method") if choice.target == target), wanted.cell.label)
        return f"give method.{method}.{name}=[{value}], a list, for a cell of its own, or use another label"
    return "use another label for the method (--label of an import)"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
