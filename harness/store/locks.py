"""Locks on a cell: it is written by one process alone, or by shards of the same split at the same time.

Each writer holds a lock file of its own, ``.lock.<worker>``, from the first to the last record; the system releases it
when the process ends, however it ends. ``.lock`` is held only for a moment, by a process that looks at the other locks
in order to write or to tell who is at work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import StoreError
from harness.store.shards import Worker

_DOOR, _DOOR_SECONDS = ".lock", 60.0


class WriteLock:
    """The right to write a cell as one worker."""

    def __init__(self, folder: Path, worker: Worker, begin: Callable[[bool], None] = lambda shared: None) -> None:
        """Take the lock.

        Args:
            folder: the cell's folder, which must exist.
            worker: the worker that is to write.
            begin: called before any other process can take a lock, with whether other workers are writing the cell.

        Raises:
            StoreError: another process is writing the cell, and not as another shard of the same split.
            OSError: the folder cannot be written.
        """
        self._lock = FileLock(folder / _name(worker))
        shared = False
        with _door(folder):
            for path in sorted(folder.glob(f"{_DOOR}.*")):
                if path.name == _name(worker):
                    continue
                if _is_held(path):
                    if not worker.split or not path.name.endswith(worker.split):
                        raise _busy(folder, path.name)
                    shared = True
                else:
                    path.unlink(missing_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise _busy(folder, _name(worker)) from error
            try:
                begin(shared)
            except BaseException:
                self.release()
                raise

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


def at_work(folder: Path) -> set[str] | None:
    """The names of the workers that are writing a cell now; None if this user may not look at the locks."""
    try:
        with _door(folder):
            return {_worker(path.name) for path in folder.glob(f"{_DOOR}.*") if _is_held(path)}
    except OSError:
        return None


@contextmanager
def _door(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / _DOOR, timeout=_DOOR_SECONDS):
            yield
    except Timeout as error:
        raise StoreError(
            f"{folder / _DOOR} is held for more than {_DOOR_SECONDS:.0f} s: end the process that holds it"
        ) from error


def _is_held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _name(worker: Worker) -> str:
    if not worker.split:
        return f"{_DOOR}.{worker.name}"
    return f"{_DOOR}.{worker.name.partition('of')[0]}{worker.split}"


def _worker(name: str) -> str:
    return name.removeprefix(f"{_DOOR}.").partition("-")[0]


def _busy(folder: Path, lock: str) -> StoreError:
    who = _worker(lock)
    whose = f" (shard {who.replace('of', ' of ')})" if "of" in who else ""
    return StoreError(f"{folder} is being written by another run{whose}: wait for it, or use another results_dir")
