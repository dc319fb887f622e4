"""Cells on disk: a manifest that is written first, records that are appended and flushed, scores that are written last.

    <results>/<model>/<task>/<label>-<budget>/manifest.json           what the cell is: settings, versions, device
                                              records.<worker>.jsonl  one line per example, appended by one process
                                              scores.json             when every example asked for is there; gone while more are added

Records are the truth. A process that is killed leaves at most one torn line at the end of its own file; readers pass over it and the
next writer cuts it off. A torn line anywhere else is corruption, and is reported.

Of several records of one example the last counts, and a result counts before any error: a retried example needs no order of files. A
writer that works alone first makes one file of those that shards left, so that whatever it adds comes last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.compression.budget import parse_budget
from harness.errors import ConfigError, StoreError
from harness.names import check_name
from harness.results import Cell, Manifest, Record
from harness.store.files import failed, write_atomically
from harness.store.locks import Claim
from harness.store.records import MAX_RECORD_BYTES, Unfit, has_records, is_plain, read_records, stamp
from harness.store.shards import ALONE, Worker

_MANIFEST, _SCORES = "manifest.json", "scores.json"


def cell_folder(results: Path, model: str, task: str, cell: Cell) -> Path:
    """Where a cell lies."""
    return results / model / task / cell.name


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


def read_scores(folder: Path) -> dict[str, Any] | None:
    """A cell's scores as they are on disk; None where there are none.

    Raises:
        StoreError: they cannot be read.
    """
    try:
        return _read_json(folder / _SCORES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(folder / _SCORES, "read", error) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{folder / _SCORES} is not JSON of scores: delete it, and kvgauge score {folder} writes it again") from error


def is_whole(folder: Path) -> bool:
    """Whether the last run that added records to a cell came to its end."""
    return (folder / _SCORES).exists()


def scores_lack(folder: Path, records: Mapping[str, Record]) -> str:
    """What is wrong with a cell's scores, in words; "" where they count what its records hold.

    Args:
        folder: the cell's.
        records: what it holds.
    """
    errors = sum(record.error is not None for record in records.values())
    try:
        scores = read_scores(folder)
    except StoreError:
        return "scores cannot be read"
    if scores is None:
        return "no scores"
    return "" if (scores.get("n"), scores.get("errors")) == (len(records) - errors, errors) else "scores are of other records"


def count_lines(folder: Path, worker: Worker) -> int:
    """Records that a worker wrote to a cell."""
    path = folder / f"records.{worker.name}.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


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


class CellWriter:
    """The one process that adds records to a cell as ``worker``."""

    def __init__(self, folder: Path, manifest: Manifest, worker: Worker = ALONE) -> None:
        """Lock the cell, write or check its manifest, cut off a torn last line.

        Args:
            folder: the cell's; created if need be.
            manifest: what the cell is to be.
            worker: names the records file, and says who may write beside it.

        Raises:
            StoreError: the folder cannot be written, holds other settings, or another process is writing.
        """
        self._folder = folder
        self._path = folder / f"records.{worker.name}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim = Claim(folder, worker, lambda shared: self._begin(manifest, shared))
        except OSError as error:
            raise failed(folder, "written", error) from error
        try:
            self._open(worker)
        except OSError as error:
            self._claim.release()
            raise failed(folder, "written", error) from error
        except StoreError:
            self._claim.release()
            raise

    def _begin(self, manifest: Manifest, shared: bool) -> None:
        found = read_manifest(self._folder)
        if found is None or not (shared or has_records(self._folder)):
            _write_manifest(self._folder, manifest)
        else:
            check_manifest(self._folder, found, manifest)

    def _open(self, worker: Worker) -> None:
        if worker == ALONE:
            self._fold()
        self._file = self._path.open("ab", buffering=0)
        written = self._path.read_bytes()
        self._file.truncate(written.rfind(b"\n") + 1)

    def _fold(self) -> None:
        """One file of all. Killed in between, some records are in two files, and the next writer that works alone folds them again."""
        others = [file for file in self._folder.glob("records.*.jsonl") if file != self._path]
        if others:
            write_atomically(self._path, _lines(read_records(self._folder).values()))
            for file in others:
                file.unlink()

    def append(self, records: Iterable[Record]) -> None:
        """Add records; when this returns they survive the end of the process and of the machine.

        Raises:
            StoreError: they cannot be written; then none of them is in the file.
        """
        # A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape.
        data = _lines(records).encode("utf-8", "backslashreplace")
        size = os.fstat(self._file.fileno()).st_size
        try:
            (self._folder / _SCORES).unlink(missing_ok=True)
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
            # Again, for another shard may have written scores meanwhile, of records without these.
            (self._folder / _SCORES).unlink(missing_ok=True)
        except OSError as error:
            self._file.truncate(size)
            raise failed(self._path, "written", error) from error

    def finish(self, scores: Mapping[str, Any], of: tuple[tuple[str, int], ...] | None = None) -> None:
        """Write the scores of a whole cell.

        Args:
            scores: what its records say.
            of: the stamp of those records, where other shards may add some; if they did, the scores do not stay.

        Raises:
            StoreError: they cannot be written.
        """
        text = json.dumps(scores, indent=2, sort_keys=True, allow_nan=False) + "\n"
        try:
            write_atomically(self._folder / _SCORES, text)
            if of is not None and stamp(self._folder) != of:
                (self._folder / _SCORES).unlink(missing_ok=True)
        except OSError as error:
            raise failed(self._folder / _SCORES, "written", error) from error

    def close(self) -> None:
        """Let others write."""
        self._file.close()
        self._claim.release()


def replace_manifests(manifests: Mapping[Path, Manifest]) -> None:
    """Give cells other manifests. Their records are then to be scored again: they have no scores until that is done.

    Killed in between, some cells have theirs and some do not; the same call later gives it to all.

    Args:
        manifests: by the folders of the cells.

    Raises:
        StoreError: another process is writing one of them (then none is changed), or one cannot be written.
    """
    with ExitStack() as stack:
        for folder in manifests:
            try:
                stack.callback(Claim(folder, ALONE).release)
            except OSError as error:
                raise failed(folder, "written", error) from error
        for folder, manifest in manifests.items():
            try:
                (folder / _SCORES).unlink(missing_ok=True)
                _write_manifest(folder, manifest)
            except OSError as error:
                raise failed(folder, "written", error) from error


def _lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record.to_json(), ensure_ascii=False, allow_nan=False) + "\n" for record in records)


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
