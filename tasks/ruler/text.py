"""The text of one record: the message, the beginning of the answer, and the answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A text that was made.

    Attributes:
        message: the user's message: context and question.
        answer_prefix: the beginning of the answer, with the space before it.
        answers: what a response must contain.
    """

    message: str
    answer_prefix: str
    answers: tuple[str, ...]

    @property
    def whole(self) -> str:
        """The text that a model goes on with."""
        return self.message + self.answer_prefix


class Undrawable(Exception):
    """A text that cannot be made of the size asked for; another draw or size may do."""
