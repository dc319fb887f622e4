"""The job of a launched process: one command line, run as if it had been typed."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any, TextIO

# Codes from here on are not ours: with them submitit asks its controller for another start.
_OTHERS_EXIT_CODE = 144


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        code: its exit code; 137 if it was killed too often.
        text: description for the reader.
    """

    code: int
    text: str


@dataclass(frozen=True)
class Job:
    """A command line to be run somewhere.

    A run continues where it was killed, so starting a job again means calling it again.

    Attributes:
        words: words of the command line.
        name: name for the reader.
        folder: working directory.
    """

    words: tuple[str, ...]
    name: str
    folder: str

    def __call__(self) -> Outcome:
        """Run it in this process."""
        from harness.cli import main

        os.chdir(self.folder)
        sys.argv = ["run.py", *self.words]
        heard = io.StringIO()
        code: Any = 0
        with redirect_stderr(_Both(sys.stderr, heard)):
            try:
                main.main()
            except SystemExit as end:
                code = end.code or 0
                if not isinstance(code, int) or not 0 <= code < _OTHERS_EXIT_CODE:
                    raise
        lines = [
            line.removeprefix("kvgauge: ") for line in heard.getvalue().splitlines() if line.startswith("kvgauge: ")
        ]
        message = lines[-1] if lines else "some examples have errors"
        return Outcome(code, "done" if code == 0 else message)

    def checkpoint(self, *_: Any) -> Any:
        """The job that submitit submits in place of this one when it is preempted, which is the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def killed(times: int) -> Outcome:
    """The outcome of a job whose process was killed too often.

    Args:
        times: how many times it was started.
    """
    return Outcome(137, f"its process was killed {times} times, and is not started again")


class _Both(io.TextIOBase):
    def __init__(self, first: TextIO, second: TextIO) -> None:
        self._both = (first, second)

    def write(self, text: str) -> int:
        for stream in self._both:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._both:
            stream.flush()
