"""The manifest of a cell: what its numbers depend on, checked when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.compression.budget import parse_budget
from harness.errors import ConfigError, StoreError
from harness.results import Cell, Manifest
from harness.store.files import failed, write_atomically
from harness.store.records import MAX_RECORD_BYTES, Unfit, has_records, is_plain
from harness.text import check_name


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash of a cell's settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_MANIFEST, _SCORES = "manifest.json", "scores.json"


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a cell's folder; None where there is none yet.

    Raises:
        StoreError: it cannot be read, or there are records without one.
    """
    path = folder / _MANIFEST
    try:
        values = _read_json(path)
        manifest = Manifest(**values | {"cell": Cell(**values["cell"])})
        _check_fields(manifest)
        suite = manifest.task_config["name"]  # or the task itself
        for name in (manifest.model, manifest.task, manifest.cell.label, suite):
            check_name(name, f"a name in {path}")
        if parse_budget(manifest.cell.budget).text != manifest.cell.budget:
            raise Unfit("its cell.budget")
        return manifest
    except FileNotFoundError:
        if has_records(folder):
            raise StoreError(
                f"{folder} has records but no {_MANIFEST}: restore it, or delete the folder to compute the cell again"
            ) from None
        return None
    except OSError as error:
        raise failed(path, "read", error) from error
    except Unfit as error:
        raise StoreError(f"{path} cannot be read ({error}): restore it, or delete the folder to compute the cell again") from error
    except (ValueError, TypeError, KeyError, AttributeError, ConfigError, RecursionError) as error:
        raise StoreError(
            f"{path} cannot be read ({type(error).__name__}): restore it, or delete the folder to compute the cell again"
        ) from error


def _check_fields(manifest: Manifest) -> None:
    """Whether a manifest's fields are of the kinds that ``Manifest`` says.

    Raises:
        Unfit: with the first that is not.
    """
    axes, published = manifest.heatmap_axes, manifest.published
    fits = {
        "cell": isinstance(manifest.cell.label, str) and isinstance(manifest.cell.budget, str),
        "place": _is_count(manifest.place),
        "settings": isinstance(manifest.settings, dict),
        "metrics": isinstance(manifest.metrics, list) and all(map(_is_metric, manifest.metrics)),
        "heatmap_axes": axes is None or (isinstance(axes, list) and len(axes) == 2 and all(isinstance(axis, str) for axis in axes)),
        "note": isinstance(manifest.note, str),
        "task_config": isinstance(manifest.task_config, dict),
        "provenance": isinstance(manifest.provenance, dict),
        "breakdown": manifest.breakdown is None or isinstance(manifest.breakdown, str),
        "published": published is None or _is_count(published),
    }
    if wrong := [name for name, fit in fits.items() if not fit]:
        raise Unfit(f"its {wrong[0]}")
    parts = {f"settings.{name}": manifest.settings.get(name, {}) for name in ("model", "task", "method", "selection")}
    parts["provenance.packages"] = manifest.provenance.get("packages", {})
    if wrong := [name for name, part in parts.items() if not isinstance(part, dict)]:
        raise Unfit(f"its {wrong[0]}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_metric(metric: object) -> bool:
    if not isinstance(metric, dict) or metric.keys() != {"name", "title", "maximum"}:
        return False
    texts = isinstance(metric["name"], str) and isinstance(metric["title"], str)
    return texts and type(metric["maximum"]) in (int, float) and 0 < metric["maximum"] < 2**53


def _read_json(path: Path) -> dict[str, Any]:
    """A file that holds one object; never more of it than a record may have.

    Raises:
        OSError, RecursionError: it cannot be read.
        TypeError, ValueError: it holds something else, or too much.
    """
    with path.open("rb") as file:
        text = file.read(MAX_RECORD_BYTES + 1)
    if len(text) > MAX_RECORD_BYTES:
        raise Unfit(f"more than {MAX_RECORD_BYTES} bytes")
    values = json.loads(text.decode("utf-8"))
    if not isinstance(values, dict):
        raise TypeError
    if not is_plain(values):
        raise Unfit("a number that is none, or lists in lists without end")
    return values


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first setting that differs, with both values; None where none does."""
    if then == now:
        return None
    old, new = _flat(then), _flat(now)
    name = next(key for key in [*new, *old] if old.get(key) != new.get(key))
    return name, _short(old.get(name, "not set")), _short(new.get(name, "not set"))


def check_manifest(folder: Path, found: Manifest, wanted: Manifest) -> None:
    """Refuse to mix numbers of two settings in one cell.

    Raises:
        StoreError: with the first setting that differs.
    """
    if differs := difference(found.settings, wanted.settings):
        name, then, now = differs
        raise StoreError(
            f"{folder} was made with {name}={then}, now it is {now}: use another label for the method (--label of an import) or another "
            "results folder, or delete that folder"
        )


def check_sibling(folder: Path, found: Manifest, wanted: Manifest) -> None:
    """Refuse a cell beside cells of another model or of a task with other settings: a table would compare what cannot be compared.

    Raises:
        StoreError: with the first setting that differs.
    """
    for group in ("model", "task"):
        then, now = found.settings.get(group), wanted.settings.get(group)
        # An imported cell does not say how its texts were made.
        if then is not None and now is not None and (differs := difference(then, now)):
            name, old, new = differs
            raise StoreError(
                f"{folder} was made with {group}.{name}={old}, but {wanted.cell.name} beside it has {new}: use another results folder or "
                "model.name for one of them"
            )


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    write_atomically(folder / _MANIFEST, json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
