"""Cells on disk: a manifest that is written first, records that are appended and flushed, scores that are written last.

    <results>/<model>/<task>/<label>-<budget>/manifest.json           what the cell is: settings, versions, device
                                              records.<worker>.jsonl  one line per example, appended by one process
                                              scores.json             when every example asked for is there; gone while
                                              more are added

Records are the truth. A process that is killed leaves at most one torn line at the end of its own file; readers pass
over it and the next writer cuts it off. A torn line anywhere else is corruption, and is reported.

Of several records of one example the last counts, and a result counts before any error: a retried example needs no
order of files. A writer that works alone first makes one file of those that shards left, so that whatever it adds comes
last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.results import Cell, Manifest, Record
from harness.store.files import failed, read_json, write_atomically
from harness.store.locks import WriteLock
from harness.store.manifest import check_manifest, read_manifest, write_manifest
from harness.store.records import has_records, read_records, stamp
from harness.store.shards import ALONE, Worker

_SCORES = "scores.json"


def cell_folder(results: Path, model: str, task: str, cell: Cell) -> Path:
    """Where a cell lies."""
    return results / model / task / cell.name


def read_scores(folder: Path) -> dict[str, Any] | None:
    """A cell's scores as they are on disk; None where there are none.

    Raises:
        StoreError: they cannot be read.
    """
    try:
        return read_json(folder / _SCORES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(folder / _SCORES, "read", error) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{folder / _SCORES} is not JSON of scores: delete it, and kvgauge score {folder} writes it again"
        ) from error


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
    return (
        ""
        if (scores.get("n"), scores.get("errors")) == (len(records) - errors, errors)
        else "scores are of other records"
    )


def count_lines(folder: Path, worker: Worker) -> int:
    """Records that a worker wrote to a cell."""
    path = folder / f"records.{worker.name}.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


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
            self._lock = WriteLock(folder, worker, lambda shared: self._begin(manifest, shared))
        except OSError as error:
            raise failed(folder, "written", error) from error
        try:
            self._open(worker)
        except OSError as error:
            self._lock.release()
            raise failed(folder, "written", error) from error
        except StoreError:
            self._lock.release()
            raise

    def _begin(self, manifest: Manifest, shared: bool) -> None:
        there = read_manifest(self._folder)
        if there is None or not (shared or has_records(self._folder)):
            write_manifest(self._folder, manifest)
        else:
            check_manifest(self._folder, there, manifest)

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
        self._lock.release()


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
                stack.callback(WriteLock(folder, ALONE).release)
            except OSError as error:
                raise failed(folder, "written", error) from error
        for folder, manifest in manifests.items():
            try:
                (folder / _SCORES).unlink(missing_ok=True)
                write_manifest(folder, manifest)
            except OSError as error:
                raise failed(folder, "written", error) from error


def _lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record.to_json(), ensure_ascii=False, allow_nan=False) + "\n" for record in records)
