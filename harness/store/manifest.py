"""The manifest of a cell: what its numbers depend on, checked when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from harness.compression.budget import parse_budget
from harness.errors import ConfigError, StoreError
from harness.results import Manifest, Name
from harness.store.files import Unfit, failed, read_json, write_atomically
from harness.store.records import has_records

_MANIFEST = "manifest.json"
_MOVED: Mapping[str, str] = {
    "tasks.longbench.LongBench": "tasks.longbench.suite.LongBench",
    "tasks.needle.Needle": "tasks.needle.task.Needle",
}
"""Classes of tasks that earlier releases had elsewhere, and where they are now. Manifests name them in ``task_config._target_``; settings,
which fingerprints are of, name none."""


class _Settings(Struct):
    model: Mapping[str, Any] = {}
    task: Mapping[str, Any] = {}
    method: Mapping[str, Any] = {}
    selection: Mapping[str, Any] = {}


class _TaskConfig(Struct):
    name: Name
    """Of the suite, or of the task itself."""


class _Provenance(Struct):
    packages: Mapping[str, Any] = {}


class _Parts(Struct):
    """What ``Manifest`` holds as any JSON object, and its readers take for more than that."""

    settings: _Settings
    task_config: _TaskConfig
    provenance: _Provenance


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash of a cell's settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a cell's folder; None where there is none yet.

    Raises:
        StoreError: it cannot be read, or there are records without one.
    """
    path = folder / _MANIFEST
    remedy = "restore it, or delete the folder to compute the cell again"
    try:
        values = read_json(path)
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
    except (Unfit, msgspec.ValidationError) as error:
        raise StoreError(f"{path} cannot be read ({error}): {remedy}") from error
    except (ValueError, TypeError, ConfigError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read ({type(error).__name__}): {remedy}") from error
    target = manifest.task_config.get("_target_")
    if isinstance(target, str) and target in _MOVED:
        return msgspec.structs.replace(manifest, task_config={**manifest.task_config, "_target_": _MOVED[target]})
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write or replace the manifest of a cell's folder.

    Raises:
        OSError: it cannot be written, and is what it was.
    """
    write_atomically(folder / _MANIFEST, json.dumps(msgspec.to_builtins(manifest), indent=2, sort_keys=True) + "\n")


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first setting that differs, with both values; None where none does."""
    if then == now:
        return None
    old, new = _flat(then), _flat(now)
    name = next(key for key in [*new, *old] if old.get(key) != new.get(key))
    return name, _short(old.get(name, "not set")), _short(new.get(name, "not set"))


def check_manifest(folder: Path, earlier: Manifest, wanted: Manifest) -> None:
    """Refuse to mix numbers of two settings in one cell.

    Raises:
        StoreError: with the first setting that differs.
    """
    if differs := difference(earlier.settings, wanted.settings):
        name, then, now = differs
        raise StoreError(
            f"{folder} was made with {name}={then}, now it is {now}: use another label for the method (--label of "
            "an import) or another results folder, or delete that folder"
        )


def check_sibling(folder: Path, earlier: Manifest, wanted: Manifest) -> None:
    """Refuse a cell beside cells of another model or of a task with other settings: a table would compare what cannot be compared.

    Raises:
        StoreError: with the first setting that differs.
    """
    for group in ("model", "task"):
        then, now = earlier.settings.get(group), wanted.settings.get(group)
        # An imported cell does not say how its texts were made.
        if then is not None and now is not None and (differs := difference(then, now)):
            name, old, new = differs
            raise StoreError(
                f"{folder} was made with {group}.{name}={old}, but {wanted.cell.name} beside it has {new}: use "
                "another results folder or model.name for one of them"
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
