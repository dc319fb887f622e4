"""A time limit on a piece of work of this process.

An alarm (SIGALRM of POSIX) raises an exception in the main thread, between two steps of the interpreter. Work that
hangs inside a call of a compiled library is interrupted only when that call returns.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.errors import ConfigError

# The alarm rings again after this long, in case the code that hangs swallows the exception.
_AGAIN_SECONDS = 0.5


class TimeLimit(BaseException):
    """The time is up. Not an ``Exception``, so that work which catches every ``Exception`` ends too.

    Attributes:
        at: what was being computed; None if that is not known.
    """

    at: object = None


def check_time_limit() -> None:
    """Refuse a time limit if this system or thread has no alarm.

    Raises:
        ConfigError: this is not a POSIX system, or not the main thread.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        raise ConfigError(
            "engine.time_limit_seconds needs a POSIX system and the main thread of a process: use null here"
        )


def too_long(what: str, seconds: float | None) -> str:
    """The text of an error record for work that took longer than ``engine.time_limit_seconds``."""
    return f"{what} took longer than engine.time_limit_seconds={seconds}: raise it, or look at the example"


def too_slow(tokens: int, seconds: float) -> str:
    """The text of an error record for a row that decoded for longer than ``engine.row_time_limit_seconds``."""
    return (
        f"decoding took longer than engine.row_time_limit_seconds={seconds}: the {tokens} tokens so far are kept and "
        "not scored; with a higher limit, retry_errors=true goes on from there"
    )


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise ``TimeLimit`` in the body after this many seconds; None for no limit."""
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
        # The alarm may ring once more right here: the timer must be off before the former handler, which would end the
        # process, is back.
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
