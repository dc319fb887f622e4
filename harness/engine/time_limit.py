"""A time limit on a piece of work of this process.

An alarm (POSIX's SIGALRM) raises an exception in the main thread, between two steps of the interpreter: what hangs
inside one call of a compiled library is interrupted only when that call returns.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.errors import ConfigError

# Rings again, should the code that hangs swallow the exception.
_AGAIN_SECONDS = 0.5


class TimeLimit(BaseException):
    """The time is over. No ``Exception``, so that work which catches all of those ends, too.

    Attributes:
        at: what was being computed, if that is known.
    """

    at: object = None


def check_time_limit() -> None:
    """Refuse a limit where there can be none.

    Raises:
        ConfigError: no alarm on this system or in this thread.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        raise ConfigError(
            "engine.time_limit_seconds needs a POSIX system and the main thread of a process: use null here"
        )


def too_long(what: str, seconds: float | None) -> str:
    """What an error record says of work that took longer than ``engine.time_limit_seconds``."""
    return f"{what} took longer than engine.time_limit_seconds={seconds}: raise it, or look at the example"


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise ``TimeLimit`` in the body after so many seconds; None for no limit."""
    if seconds is None:
        yield
        return

    def ring(*_: Any) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        # It may have rung just before: the timer is off before the handler that would end the process is back.
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
