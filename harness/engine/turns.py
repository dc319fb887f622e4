"""Turns of a conversation: questions that run through the cache behind the model's own answers, which stay in it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from harness.engine.request import Begun, Request
from harness.engine.rows import Row
from harness.engine.sampling import Draws, Sampling


@dataclass(frozen=True)
class Turn:
    """A question, and how it is answered. A prompt by itself is one turn.

    Attributes:
        question: the tokens that run through the cache; none if the whole prompt was prefilled.
        most: its own limit of new tokens; None for that of all rows.
        draws: what decides the tokens of its answer; None for the best ones.
    """

    question: tuple[int, ...]
    most: int | None
    draws: Draws | None


def turns_of(request: Request, sampling: Sampling, sample: int | None) -> tuple[Turn, ...]:
    """The turns of a request.

    Args:
        request: the request.
        sampling: how answers are drawn.
        sample: index of the answer that is drawn, 0 first; None for a greedy one.
    """
    return tuple(
        Turn(
            tuple(prompt.question.tolist()),
            prompt.example.max_new_tokens,
            None if sample is None else sampling.draws(prompt.example.id, sample),
        )
        for prompt in request.turns
    )


def said(tokens: Sequence[int], stop_ids: Collection[int]) -> tuple[int, ...]:
    """An answer without its end token, as later turns have it."""
    return tuple(tokens[:-1] if tokens and tokens[-1] in stop_ids else tokens)


def asked(turns: Sequence[Turn], begun: Begun, stop_ids: Collection[int]) -> tuple[int, ...]:
    """The tokens that run through what was kept before the first turn that has no answer: all turns up to its question.

    Args:
        turns: all turns.
        begun: what there is of their answers, fewer than turns.
        stop_ids: the tokens that end an answer.
    """
    before = [
        token
        for turn, answer in zip(turns, begun.answers, strict=False)
        for token in (*turn.question, *said(answer.tokens, stop_ids))
    ]
    return (*before, *turns[len(begun.answers)].question)


def next_row(row: Row, tokens: Sequence[int], turn: Turn, last: bool, stop_ids: Collection[int]) -> Row:
    """The row of the next turn, whose entries are those of a row that has ended.

    Args:
        row: that row, with its entries but that of its last token.
        tokens: what it generated, 1 or more.
        turn: the next turn.
        last: whether no turn comes after it.
        stop_ids: the tokens that end an answer.
    """
    answer = said(tokens, stop_ids)
    return replace(
        row,
        prompt_tokens=row.prompt_tokens + len(answer) + len(turn.question),
        layers=list(row.layers),
        question=(*answer[len(tokens) - 1 :], *turn.question),
        draws=turn.draws,
        begun=(),
        most=turn.most,
        goes_on=not last,
    )
