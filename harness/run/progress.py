"""The progress of a run: a bar with rate and remaining time in a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_LINE_EVERY_SECONDS = 10.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.2f}/s" if task.speed else "–/s")


class Bar:
    """A context manager that shows how many of ``total`` items are done."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        """Prepare the bar, which appears on entering the context.

        Args:
            console: where to print.
            what: name of the items, in the plural: "prompts".
            total: number of items.
        """
        self._console = console
        self._what = what
        self._total = total
        self._done = 0
        self._bar: Progress | None = None
        self._started = self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, line: str) -> None:
        """Print a line beside the bar."""
        self._console.print(line, markup=False, soft_wrap=True)

    def advance(self, count: int) -> None:
        """Note that ``count`` more items are done."""
        self._done += count
        if self._bar is not None:
            self._bar.advance(self._task, count)
            return
        now = time.monotonic()
        if now - self._last >= _LINE_EVERY_SECONDS or self._done == self._total:
            self._last = now
            rate = self._done / max(now - self._started, 1e-9)
            left = f", {(self._total - self._done) / rate:.0f} s left" if self._done < self._total else ""
            self._console.print(f"{self._done} of {self._total} {self._what}, {rate:.2f}/s{left}", soft_wrap=True)
