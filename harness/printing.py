"""Printing that never fails, and fits: no character, closed pipe or full device costs a run its results."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from harness.text import plain

if TYPE_CHECKING:
    from rich.console import Console  # the commands, which a tab wants in no time, import this module

WIDTH = 100
"""The most columns of what is printed, wherever it goes; only a path, or a command to copy, can be longer."""
_GLUE = "\0"
_WHOLE = re.compile(r"`[^`]*`|kvgauge \w+ \S+")
"""What is to be copied, and so stands on one line."""
_PLAIN = str.maketrans({"–": "-", "—": "-", "…": "~", "×": "x", "‘": "'", "’": "'", "“": '"', "”": '"'})
"""What stands for the commonest characters beyond ASCII where a stream cannot show them; for others it is ``?``."""


def unfailing(stream: TextIO) -> TextIO:
    """A stream that prints to another one as well as that can be done, and raises nothing.

    A character that the other one cannot encode is replaced by one that it can. When it can be written no more, as
    after ``| head`` or on a full disk, printing is over: what comes later goes nowhere.

    Args:
        stream: where to print.
    """
    return cast(TextIO, _Unfailing(stream))


@contextmanager
def unfailing_output() -> Iterator[None]:
    """Make standard output and standard error unfailing until the end of the ``with`` block.

    One that is closed from the start is opened on the null device, so that no file that is opened later gets its
    number and with it what libraries print.
    """
    before = sys.stdout, sys.stderr
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        setattr(sys, name, unfailing(open(os.devnull, "w", encoding="utf-8") if stream is None else stream))  # noqa: SIM115
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def width_of(console: Console) -> int:
    """How many columns there are for what is printed: at most ``WIDTH``, and fewer in a narrower terminal."""
    return min(WIDTH, console.width) if console.is_terminal else WIDTH


def lines(text: str, width: int = WIDTH, indent: str = "", most: int | None = None) -> list[str]:
    """A text broken into lines between its words; commands and long words stay whole.

    Args:
        text: the text; made safe to show.
        width: most columns of a line.
        indent: what all lines but the first begin with.
        most: most lines; what is cut off leaves an ellipsis.
    """
    whole = _WHOLE.sub(lambda found: found[0].replace(" ", _GLUE), plain(text))
    broken = textwrap.wrap(
        whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, max_lines=most,
        placeholder=" ...",
    )  # fmt: skip
    return [line.replace(_GLUE, " ") for line in broken]


def say(console: Console, text: str, indent: str = "") -> None:
    """Print a text within the columns that there are.

    Args:
        console: where to print.
        text: the text.
        indent: what all lines but the first begin with.
    """
    broken = "\n".join(lines(text, width_of(console), indent))
    console.print(broken, markup=False, highlight=False, soft_wrap=True)


class _Unfailing:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not self._over:
            try:
                self._write(text)
            except (OSError, ValueError) as error:  # the latter of a stream that is closed
                self._end(error)
        return len(text)

    def flush(self) -> None:
        if not self._over:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._end(error)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            shown = "".join(c if _fits(c, encoding) else c.translate(_PLAIN) for c in text)
            self._stream.write(shown.encode(encoding, "replace").decode(encoding))

    def _end(self, error: OSError | ValueError) -> None:
        self._over = True
        with suppress(OSError, ValueError):  # what is buffered would be an error once more when the process ends
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError) and self._stream is not sys.__stderr__:
            print(
                f"kvgauge: what is printed has no place to go ({error.strerror}): nothing more is printed, and files "
                "are written as ever",
                file=sys.stderr,
            )


def _fits(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
