"""Rows: what decodes together, when a row ends, and what it has generated then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.engine.buckets import LayerKV
from harness.engine.sampling import Draws


@dataclass(frozen=True)
class Limits:
    """When a row ends.

    Attributes:
        stop_ids: a row ends with the first of these tokens.
        max_new_tokens: a row ends after this many new tokens, 1 or more.
        min_new_tokens: no stop token can be generated before a row has this many new tokens.
        seconds: a row ends with an error when it has been decoding for longer; None for no limit.
        is_said: whether a row ends with the tokens that it has, 1 or more, for what they say; None if no text ends it.
    """

    stop_ids: frozenset[int]
    max_new_tokens: int
    min_new_tokens: int = 0
    seconds: float | None = None
    is_said: Callable[[Sequence[int]], bool] | None = None

    def end(self, tokens: Sequence[int]) -> bool:
        """Whether a row ends with its newest token.

        Args:
            tokens: all that it has generated, 1 or more.
        """
        return (
            tokens[-1] in self.stop_ids
            or len(tokens) == self.max_new_tokens
            or (self.is_said is not None and self.is_said(tokens))
        )


@dataclass(frozen=True)
class Row:
    """One sequence to decode.

    Attributes:
        prompt_tokens: the position of the first new token: the length of its prompt, whatever was dropped, unless kept
            keys were turned to new positions.
        logits: float32 logits of its first new token, [vocabulary]; with a question, those of the question's.
        layers: its kept entries, one ``LayerKV`` per layer. Decoding takes them over.
        broken: where the prefill's numbers stopped being finite; None if they did not or this is not known.
        question: the last tokens of its prompt, which are not among its entries and run through them first; none if
            the whole prompt was prefilled.
        draws: what decides its tokens; None for the best ones.
        begun: tokens that it generated in an earlier run, which run through its entries behind the question.
        most: a limit of its own below ``Limits.max_new_tokens``; None if it has none.
        goes_on: whether its entries, with those of its question and of its tokens but the last, are put back into
            ``layers`` when it ends.
    """

    prompt_tokens: int
    logits: Tensor
    layers: list[LayerKV]
    broken: str | None = None
    question: tuple[int, ...] = ()
    draws: Draws | None = None
    begun: tuple[int, ...] = ()
    most: int | None = None
    goes_on: bool = False

    @property
    def kind(self) -> list[tuple[Any, ...]]:
        """What rows are sorted by, so that those that can share buckets are neighbours."""
        return [(layer.layout, layer.runs) for layer in self.layers]

    @property
    def asked(self) -> tuple[int, ...]:
        """The tokens that run through its entries before it goes on: the question, and what it had begun to answer."""
        return self.question + self.begun


@dataclass(frozen=True)
class Generated:
    """A finished row.

    Attributes:
        tokens: new token ids, with the stop token if there was one.
        error: why the row ended without a result; None if it has one.
        partial: whether the tokens are the beginning of an answer that a time limit ended.
    """

    tokens: tuple[int, ...]
    error: str | None = None
    partial: bool = False
