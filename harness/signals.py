"""SIGTERM and SIGINT: the batch at hand is finished and written, then the run ends; a second signal ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from harness.errors import Stopped


class Stop:
    """Listens for signals as a context manager, in the main thread of a process; elsewhere it hears nothing."""

    def __init__(self) -> None:
        """Hear nothing yet."""
        self._number: int | None = None
        self._busy = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # Ignored from the start: whoever started this process speaks for it, as a launcher does to its workers.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._heard)
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
            raise Stopped(self._number)

    def _heard(self, number: int, _: FrameType | None) -> None:
        # Not print: it may be what the signal has interrupted.
        if self._number is not None:
            os.write(2, b"kvgauge: stopped at once: what is written is kept\n")
            os._exit(128 + number)
        self._number = number
        if not self._busy:
            raise Stopped(number)
        name = signal.Signals(number).name
        line = f"kvgauge: {name}: finishing the batch at hand; a second signal ends at once\n"
        os.write(2, line.encode())
