"""Locks on a cell: it is written by one process alone, or by shards of the same split at the same time.

Each writer holds a lock file of its own, ``.lock.<worker>``, from the first to the last record; the system releases it
when the process ends, however it ends. ``.lock`` is held only for a moment, by a process that looks at the other locks
in order to write or to tell who is at work. ``lock_files`` has what stands for them where a file system has no locks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.errors import StoreError
from harness.lock_files import HeldError, Holder, holder_of, is_held, lock_files, take, waited_for
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
        shared = False
        with waited_for(folder / _DOOR, _DOOR_SECONDS):
            for path in lock_files(folder, _DOOR):
                if path.name == _name(worker):
                    continue
                if is_held(path):
                    if not worker.split or not path.name.endswith(worker.split):
                        raise _busy(path, HeldError(holder_of(path)))
                    shared = True
                else:
                    path.unlink(missing_ok=True)
            try:
                self._lock = take(folder / _name(worker))
            except HeldError as error:
                raise _busy(folder / _name(worker), error) from error
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
        with waited_for(folder / _DOOR, _DOOR_SECONDS):
            return {_worker(path.name) for path in lock_files(folder, _DOOR) if is_held(path)}
    except OSError:
        return None


def held_elsewhere(folder: Path) -> set[Holder]:
    """Processes of other machines that hold a cell on a file system without locks, and that may have ended."""
    holders = (holder_of(path) for path in [folder / _DOOR, *lock_files(folder, _DOOR)])
    return {holder for holder in holders if holder and not holder.is_here}


def _name(worker: Worker) -> str:
    if not worker.split:
        return f"{_DOOR}.{worker.name}"
    return f"{_DOOR}.{worker.name.partition('of')[0]}{worker.split}"


def _worker(name: str) -> str:
    return name.removeprefix(f"{_DOOR}.").partition("-")[0]


def _busy(path: Path, error: HeldError) -> StoreError:
    who = _worker(path.name)
    whose = f" (shard {who.replace('of', ' of ')})" if "of" in who else ""
    return StoreError(
        f"{path.parent} is being written by another run{whose}: wait for it, or use another results_dir{error.remedy}"
    )
