"""Lock files: the system's locks, and on a file system without them files that name their holder.

The system releases its locks when a process ends, however it ends. A file can only do so on the machine of its holder,
where the next process sees that there is none of that id; on another machine it stays, and errors say how to free it.
"""

from __future__ import annotations

import errno
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from harness.errors import StoreError

_WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_SOFT = ".soft"
"""What the name of a file begins with that stands for a lock of the system."""
_LONGEST_SECONDS = 600.0
"""How long to wait for a file that stands for a lock, where the wait has no end otherwise."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock on a file system without locks.

    Attributes:
        who: the process, its machine and since when.
        is_here: whether its machine is this one, where one that has ended is noticed.
        remedy: how to know that it has ended, and the command that then frees all of its locks in the same place.
    """

    who: str
    is_here: bool
    remedy: str


class HeldError(Exception):
    """A lock is held by another process."""

    def __init__(self, holder: Holder | None) -> None:
        """Keep who holds it; None if it is a lock of the system, which ends with its process."""
        super().__init__()
        self.holder = holder

    @property
    def remedy(self) -> str:
        """What to add to a message that begins with the fact; "" for a lock of the system."""
        return "" if self.holder is None else f"; held by {self.holder.who}, {self.holder.remedy}"


def take(path: Path, seconds: float = 0.0) -> BaseFileLock:
    """Take a lock; ``release`` gives it back.

    Args:
        path: the lock file.
        seconds: how long to wait for it; -1 without end, or 10 minutes on a file system without locks.

    Raises:
        HeldError: another process holds it.
        OSError: the lock file cannot be written.
    """
    lock: BaseFileLock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=seconds)
        return lock
    except Timeout:
        raise HeldError(None) from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    lock = SoftFileLock(_soft(path))
    try:
        # Even without a wait, a second look: the first one may take away what a process that has ended left.
        lock.acquire(timeout=max(seconds, 0.2) if seconds >= 0 else _LONGEST_SECONDS)
    except Timeout:
        raise HeldError(holder_of(path)) from None
    return lock


@contextmanager
def waited_for(path: Path, seconds: float = -1) -> Iterator[None]:
    """Hold a lock during the ``with`` block, and wait for it before.

    Args:
        path: the lock file.
        seconds: how long to wait, as in ``take``.

    Raises:
        StoreError: another process has held it all that time.
        OSError: the lock file cannot be written.
    """
    begun = time.monotonic()
    try:
        lock = take(path, seconds)
    except HeldError as error:
        raise StoreError(
            f"{path} is held for more than {time.monotonic() - begun:.0f} s"
            + (error.remedy or ": end the process that holds it")
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether another lock than this process could take is held at a path.

    Raises:
        OSError: the lock file cannot be written.
    """
    try:
        take(path).release()
    except HeldError:
        return True
    return False


def lock_files(folder: Path, stem: str) -> list[Path]:
    """The lock files of a folder whose names begin with ``stem`` and a dot, of either kind."""
    found = [*folder.glob(f"{stem}.*"), *folder.glob(f"{_SOFT}{stem}.*")]
    return sorted({folder / path.name.removeprefix(_SOFT) for path in found})


def holder_of(path: Path) -> Holder | None:
    """Who holds a lock by a file that stands for it; None if there is none."""
    soft = _soft(path)
    try:
        lines = soft.read_text(encoding="utf-8", errors="replace").split()
        since = datetime.fromtimestamp(soft.stat().st_mtime, UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    except OSError:
        return None
    pid, host = ([*lines, "", ""])[:2]
    host = host.partition("?pidns")[0]  # a container's processes are numbered by themselves
    if not (pid.isdigit() and host):
        who, sign, free = "a process without a name", "once no run is at work there", f"rm {shlex.quote(str(soft))}"
    else:
        who, sign = f"process {pid} on {host}", f"if `ps -p {pid}` on {host} finds no such process"
        # The last line is the most particular one, such as the moment when the process began.
        same = f"-exec grep -qFx {shlex.quote(lines[-1])} {{}} \\; -delete"
        free = f"find {shlex.quote(str(path.parent.parent))} -name '{_SOFT}*' {same}"
    return Holder(
        f"{who} since {since} UTC",
        host == socket.gethostname(),
        f"and this file system has no locks that end with a process: {sign}, free what it held with `{free}`",
    )


def _soft(path: Path) -> Path:
    return path.with_name(_SOFT + path.name)
