"""Cells on disk: a manifest written first, records appended and flushed, scores written last.

    <results>/<model>/<task>/<label>-<budget>/manifest.json           settings, versions and device of the cell
                                              records.<worker>.jsonl  one line per example, appended by one process
                                              scores.json             there once every example asked for has a record;
                                                                      removed while more are added

Scores can always be computed again from the records. A process that is killed leaves at most one torn line, at the end
of its own file; readers skip it, and the next writer cuts it off. A torn line anywhere else is corruption, and an
error.

If an example has several records, the last one counts, but an error record never counts over a result; so a retried
example needs no order of files. A writer that works alone first merges the files that shards left into one, so that
whatever it adds comes last.
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
    """The folder of a cell.

    Args:
        results: the results folder.
        model: name of the model.
        task: name of the task.
        cell: the cell.
    """
    return results / model / task / cell.name


def read_scores(folder: Path) -> dict[str, Any] | None:
    """The contents of a cell's ``scores.json``; None if there is none.

    Raises:
        StoreError: the file cannot be read.
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
    """Whether the cell in a folder is complete: its last run came to its end and wrote scores."""
    return (folder / _SCORES).exists()


def scores_lack(folder: Path, records: Mapping[str, Record]) -> str:
    """What is wrong with a cell's scores, in words; "" if they count the same records and errors as there are.

    Args:
        folder: the cell's folder.
        records: the cell's records, by example.
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
    """The number of records that a worker has written to a cell."""
    path = folder / f"records.{worker.name}.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


class CellWriter:
    """Adds records to a cell; only one process at a time can do so as the same worker."""

    def __init__(self, folder: Path, manifest: Manifest, worker: Worker = ALONE) -> None:
        """Lock the cell, write or check its manifest, and cut off a torn last line.

        Args:
            folder: the cell's folder; created if it does not exist.
            manifest: the cell's manifest.
            worker: names the records file, and determines which other workers may write at the same time.

        Raises:
            StoreError: the folder cannot be written, has a manifest with other settings, or another process is
                writing.
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
        earlier = read_manifest(self._folder)
        if earlier is None or not (shared or has_records(self._folder)):
            write_manifest(self._folder, manifest)
        else:
            check_manifest(self._folder, earlier, manifest)

    def _open(self, worker: Worker) -> None:
        if worker == ALONE:
            self._merge_files()
        self._file = self._path.open("ab", buffering=0)
        written = self._path.read_bytes()
        self._file.truncate(written.rfind(b"\n") + 1)

    def _merge_files(self) -> None:
        """Merge all records files into this worker's.

        If the process is killed meanwhile, some records are in two files, and the next writer that works alone merges
        them again.
        """
        others = [file for file in self._folder.glob("records.*.jsonl") if file != self._path]
        if others:
            write_atomically(self._path, _lines(read_records(self._folder).values()))
            for file in others:
                file.unlink()

    def append(self, records: Iterable[Record]) -> None:
        """Add records; once this returns they survive a crash of the process or of the machine.

        Raises:
            StoreError: the records cannot be written; then the file contains none of them.
        """
        # A lone surrogate, which UTF-8 cannot encode, becomes its JSON escape.
        data = _lines(records).encode("utf-8", "backslashreplace")
        size = os.fstat(self._file.fileno()).st_size
        try:
            (self._folder / _SCORES).unlink(missing_ok=True)
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
            # Again, because another shard may meanwhile have written scores that do not count these records.
            (self._folder / _SCORES).unlink(missing_ok=True)
        except OSError as error:
            self._file.truncate(size)
            raise failed(self._path, "written", error) from error

    def finish(self, scores: Mapping[str, Any], scored: tuple[tuple[str, int], ...] | None = None) -> None:
        """Write the scores of a complete cell.

        Args:
            scores: the summary of its records.
            scored: the stamp of these records, if other shards may still be adding some; if the stamp on disk has
                changed, the scores are removed again.

        Raises:
            StoreError: the scores cannot be written.
        """
        text = json.dumps(scores, indent=2, sort_keys=True, allow_nan=False) + "\n"
        try:
            write_atomically(self._folder / _SCORES, text)
            if scored is not None and stamp(self._folder) != scored:
                (self._folder / _SCORES).unlink(missing_ok=True)
        except OSError as error:
            raise failed(self._folder / _SCORES, "written", error) from error

    def close(self) -> None:
        """Close the file and release the lock."""
        self._file.close()
        self._lock.release()


def replace_manifests(manifests: Mapping[Path, Manifest]) -> None:
    """Replace the manifests of cells, and remove their scores until the records are scored again.

    If the process is killed meanwhile, only some cells have their new manifest; repeating the call replaces the rest.

    Args:
        manifests: the new manifests, by the folders of the cells.

    Raises:
        StoreError: another process is writing one of the cells (then none is changed), or a manifest cannot be
            written.
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
