"""SIGTERM and SIGINT: what has begun is finished and written, then the run ends; a second signal ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from harness.errors import Stopped

_ENDING = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Listens for signals as a context manager, in the main thread of a process; elsewhere it hears nothing.

    SIGUSR2, by which submitit hears that a job will be preempted, waits for the end of what has begun; then its own
    handler has it. Slurm sends SIGTERM beside it, before or after: neither is a second signal.
    """

    def __init__(self) -> None:
        """Hear nothing yet."""
        self._number: int | None = None
        self._busy = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                # Ignored from the start: whoever started this process speaks for it, as a launcher does to its workers.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._heard)
            if callable(signal.getsignal(signal.SIGUSR2)):
                self._before[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """What is done within is done to its end.

        Raises:
            Stopped: a signal came meanwhile.
        """
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._number is not None:
            self._end(self._number)

    @property
    def heard(self) -> int:
        """The number of the signal that came; 0 where none did."""
        return self._number or 0

    def learn(self, number: int) -> None:
        """Hear what another process of the run has heard, while something is being finished."""
        if self._number is None and number:
            self._number = number

    def _heard(self, number: int, _: FrameType | None) -> None:
        # Not print: it may be what the signal has interrupted.
        if signal.SIGUSR2 in (number, self._number):
            if number == self._number or number == signal.SIGTERM:
                return
        elif self._number is not None:
            if number in _ENDING:
                os.write(2, b"kvgauge: stopped at once: what is written is kept\n")
                os._exit(128 + number)
            return
        self._number = number
        if not self._busy:
            self._end(number)
        os.write(
            2,
            f"kvgauge: {signal.Signals(number).name}: finishing the batch at hand; a second signal ends at once\n".encode(),
        )

    def _end(self, number: int) -> None:
        if number == signal.SIGUSR2:
            self._before[number](number, None)  # submitit's: queues the job again and exits
        raise Stopped(number)


class Relay:
    """Collects signals as a context manager, for a process that passes them on."""

    def __init__(self) -> None:
        """Hear nothing yet."""
        self.heard: list[int] = []
        self._taken = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.listen()
        return self

    def listen(self) -> None:
        """Take the handlers, which something else may have taken meanwhile."""
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                self._before.setdefault(number, signal.signal(number, lambda heard, _: self.heard.append(heard)))

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def take(self) -> int:
        """How many came since the last time."""
        new = len(self.heard) - self._taken
        self._taken += new
        return new

    def raise_if_heard(self) -> None:
        """Raises:
        Stopped: a signal came.
        """
        if self.heard:
            raise Stopped(self.heard[0])
