"""The progress of a run: how much is prefilled, decoded and written, and how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from harness.engine.request import Request
from harness.printing import say
from harness.run.meter import Meter

_LINE_EVERY_SECONDS = 10.0


class Bar(Meter):
    """A context manager that shows how far a run is: a bar in a terminal, elsewhere a line every ten seconds."""

    def __init__(self, console: Console) -> None:
        """Prepare the bar, which appears on entering the context.

        Args:
            console: where to print.
        """
        super().__init__()
        self._console = console
        self._bar: Progress | None = None
        self._last = self._started

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(BarColumn(20), TextColumn("{task.description}"), console=self._console)
            self._task = self._bar.add_task(self._line(), total=1.0)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, line: str) -> None:
        """Print a line beside the bar."""
        say(self._console, line)

    def prefilled(self, request: Request, rows: int, seconds: float) -> None:
        """A prompt was prefilled; see ``Watch``."""
        super().prefilled(request, rows, seconds)
        self._show()

    def decoded(self, tokens: int, ended: Sequence[int], seconds: float) -> None:
        """Rows went on by a token; see ``Watch``."""
        super().decoded(tokens, ended, seconds)
        self._show()

    def advance(self, count: int) -> None:
        """Note that ``count`` more prompts are written."""
        super().advance(count)
        if self.prompts:
            self._show(at_once=self.written == self.prompts)

    def _show(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._bar is not None:
            spent, left = now - self._started, self.seconds_left
            done = 1.0 if at_once else spent / (spent + left) if left is not None else 0.0
            self._bar.update(self._task, completed=done, description=self._line())
        elif at_once or now - self._last >= _LINE_EVERY_SECONDS:
            self._last = now
            say(self._console, self._line())

    def _line(self) -> str:
        line = f"{self.written} of {self.prompts} prompts"
        if self.written < self.prompts:
            line += f"; prefilled {self.prompt_tokens:,} of {self.total_tokens:,} tokens, decoded {self.generated:,}"
            left = self.seconds_left
            return line if left is None else f"{line}; {duration(left)} left"
        return f"{line} in {duration(time.monotonic() - self._started)}"


def duration(seconds: float) -> str:
    """A duration, rounded: 90 s, 12 min, 3.4 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
