"""What a generated solution gives as its answer: the text behind the thinking, and its last box."""

from __future__ import annotations

BOX = "\\boxed{"


def without_thinking(text: str, tags: tuple[str, str] | None) -> str:
    """The text behind the thinking.

    Args:
        text: the generated text.
        tags: the tags before and behind the thinking; None if there is none. A chat template may have written the
            first of them already, so that the text has the second one alone.

    Returns:
        What follows the last closing tag; the whole text if there is no tag; "" if the thinking never ended.
    """
    if tags is None:
        return text
    before, behind = tags
    answer = text.rpartition(behind)[2]
    return "" if before in answer else answer


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{…}`` whose braces are balanced, without white space around it.

    A brace behind a backslash is a character of the formula and neither opens nor closes a group.

    Returns:
        The content; None if there is no such box.
    """
    at = text.rfind(BOX)
    while at >= 0:
        content = _group(text, at + len(BOX))
        if content is not None:
            return content.strip()
        at = text.rfind(BOX, 0, at)
    return None


def _group(text: str, start: int) -> str | None:
    """The text from ``start`` to the brace that closes a group opened before it; None if nothing closes it."""
    depth, at = 1, start
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] in "{}":
            depth += 1 if text[at] == "{" else -1
            if depth == 0:
                return text[start:at]
        at += 1
    return None
