"""What a scheduler tells of its work while it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from harness.engine.request import Request


class Watch:
    """Is told of every prefill and every decoding step. This one does nothing."""

    def prefilled(self, request: Request, rows: int, seconds: float) -> None:
        """A prompt, or a part of its variants, was prefilled.

        Args:
            request: the prompt with these variants.
            rows: number of rows to decode for it.
            seconds: how long it took.
        """

    def decoded(self, tokens: int, ended: Sequence[int], seconds: float) -> None:
        """All rows of the batch went on by one token.

        Args:
            tokens: number of tokens generated; rows that joined have generated two.
            ended: number of tokens of each row that ended.
            seconds: how long it took.
        """
