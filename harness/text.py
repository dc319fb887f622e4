"""Text as it may be shown."""

from __future__ import annotations


def plain(text: str) -> str:
    """``text`` on one line, without characters that move a cursor, change colours or reverse the reading direction."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)
