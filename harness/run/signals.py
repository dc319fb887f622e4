"""Signals to a run: after SIGTERM or SIGINT it finishes the batch at hand; a second signal ends it at once."""

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
    """A context manager that listens for signals in the main thread of a process; in another thread it hears nothing.

    SIGUSR2, by which submitit learns that a job will be preempted, is passed to submitit's handler once the current
    batch is finished. Slurm sends SIGTERM before or after it; of the two, neither counts as a second signal.
    """

    def __init__(self) -> None:
        """Prepare to listen, which begins on entering the context."""
        self._number: int | None = None
        self._busy = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                # A signal ignored from the start is left to the process that started this one, such as a launcher.
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
        """Defer signals until the end of the ``with`` block.

        Raises:
            Stopped: a signal came during the block.
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
        """The number of the signal that came; 0 if none did."""
        return self._number or 0

    def learn(self, number: int) -> None:
        """Take over the signal ``number`` that another process of the run has received; 0 is none."""
        if self._number is None and number:
            self._number = number

    def _heard(self, number: int, _: FrameType | None) -> None:
        # os.write and not print, because the signal may have interrupted a print.
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
        name = signal.Signals(number).name
        os.write(2, f"kvgauge: {name}: finishing the batch at hand; a second signal ends at once\n".encode())

    def _end(self, number: int) -> None:
        if number == signal.SIGUSR2:
            self._before[number](number, None)  # submitit's: queues the job again and exits
        raise Stopped(number)


class Relay:
    """A context manager that collects signals, for a process that passes them on to others."""

    def __init__(self) -> None:
        """Prepare to listen, which begins on entering the context."""
        self.heard: list[int] = []
        self._taken = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.listen()
        return self

    def listen(self) -> None:
        """Install the handlers, again if another library has replaced them."""
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                self._before.setdefault(number, signal.signal(number, lambda heard, _: self.heard.append(heard)))

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def take(self) -> int:
        """The number of signals since the last call."""
        new = len(self.heard) - self._taken
        self._taken += new
        return new

    def raise_if_heard(self) -> None:
        """Raise an error if a signal came.

        Raises:
            Stopped: a signal came.
        """
        if self.heard:
            raise Stopped(self.heard[0])
