"""Requests to the engine, one for each prompt, and their outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.compression.grid import Variant
from harness.engine.prefill import Kept
from harness.engine.prefix import prefix_order
from harness.engine.prompt import Prompt
from harness.engine.rows import Generated
from harness.results import Audit, Cell


@dataclass(frozen=True)
class Known:
    """The stored result of a variant: what it kept of a prompt, and what it generated.

    Attributes:
        kept_sha256: hash of the kept indices.
        generated: its tokens.
        samples: all answers that were drawn, the first of which is ``generated``; none if it is greedy.
        later: the results of the later turns of its conversation.
    """

    kept_sha256: str
    generated: Generated
    samples: tuple[Generated, ...] = ()
    later: tuple[Known, ...] = ()

    def answers(self, sample: int) -> tuple[Generated, ...]:
        """The answers of all turns, greedy or of one sample."""
        own = self.samples[sample] if self.samples else self.generated
        return (own, *(turn.samples[sample] if turn.samples else turn.generated for turn in self.later))


@dataclass(frozen=True)
class Begun:
    """What an earlier run left of a row that did not come to its end.

    Attributes:
        answers: the answers of the turns that ended, first turn first.
        tokens: what there is of the answer of the turn behind them.
    """

    answers: tuple[Generated, ...] = ()
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Unfinished:
    """A row that is still decoding, as it is saved for a run that goes on after a kill.

    Attributes:
        example: id of the example, or of the first turn's.
        prompt_sha256: hash of its prompt.
        cell: a cell that the row stands for.
        sample: index of the answer among those that are drawn, 0 first.
        begun: what it has generated.
    """

    example: str
    prompt_sha256: str
    cell: Cell
    sample: int
    begun: Begun


@dataclass(frozen=True)
class Request:
    """What is still to be generated from one prompt, or in a conversation.

    Attributes:
        prompt: the prompt, or that of the first turn.
        missing: variants without a result, in the order of the grid.
        known: stored results of this prompt, with all turns, in other cells of the grid.
        hold: lengths of the beginnings of this prompt that later requests go on from, ascending.
        shared: whether the next request has the same context, so that what was kept of it is held.
        later: the prompts of the later turns of the conversation; none if there is one turn.
        begun: by cell and sample, what an earlier run left of a missing variant.
        recorded: by cell, number of turns, from the first, that have a record; none where there is no entry.
    """

    prompt: Prompt
    missing: tuple[Variant, ...]
    known: Mapping[Cell, Known]
    hold: tuple[int, ...] = ()
    shared: bool = False
    later: tuple[Prompt, ...] = ()
    begun: Mapping[tuple[Cell, int], Begun] = field(default_factory=dict)
    recorded: Mapping[Cell, int] = field(default_factory=dict)

    @property
    def turns(self) -> tuple[Prompt, ...]:
        """The prompts of all turns, 1 or more."""
        return (self.prompt, *self.later)

    @property
    def rows(self) -> int:
        """The most rows that decode for it: fewer where variants keep the same entries."""
        return sum(variant.rows for variant in self.missing)


@dataclass(frozen=True)
class Outcome:
    """The result of one variant for one prompt.

    Attributes:
        generated: its tokens, or why there are none.
        kept: what was kept of the prompt, without the entries, which decoding took over; None if the prefill failed.
        full_bytes: bytes of the full cache as transformers stores it; 0 if ``kept`` is None.
        alias_of: the cell whose row was decoded for this one, because both kept exactly the same entries; None if this
            cell has a row of its own.
        audit: the comparison with the row decoded again alone; None if it was not.
        samples: all answers that were drawn, the first of which is ``generated``; none if it is greedy.
        later: the outcomes of the later turns of its conversation; none of a row that has none.
    """

    generated: Generated
    kept: Kept | None = None
    full_bytes: int = 0
    alias_of: Cell | None = None
    audit: Audit | None = None
    samples: tuple[Generated, ...] = ()
    later: tuple[Outcome, ...] = ()

    def with_sample(self, sample: Outcome) -> Outcome:
        """This outcome with one more answer to each turn; an error of any answer is the outcome's."""
        error = self.generated.error or sample.generated.error
        later = tuple(one.with_sample(other) for one, other in zip(self.later, sample.later, strict=True))
        partial = self.generated.partial or sample.generated.partial
        generated = replace(self.generated, error=error, partial=partial)
        return replace(self, generated=generated, samples=(*self.samples, sample.generated), later=later)

    def of_turn(self, turn: int) -> Outcome:
        """The outcome of a turn, 0 first; one without a row has the same for all turns."""
        return self.later[turn - 1] if turn and self.later else self

    def known(self) -> Known:
        """The outcome as a stored result; it must have kept entries."""
        assert self.kept is not None
        later = tuple(turn.known() for turn in self.later)
        return Known(self.kept.sha256, self.generated, self.samples, later)


def by_context(requests: Sequence[Request]) -> list[Request]:
    """Requests with one context behind each other, in the order in which their contexts come first."""
    groups: dict[bytes, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.prompt.context.tobytes(), []).append(request)
    return [
        replace(request, shared=place < len(group))
        for group in groups.values()
        for place, request in enumerate(group, 1)
    ]


def prompts_of(requests: Sequence[Request]) -> list[Prompt]:
    """The prompts of requests, with all turns."""
    return [prompt for request in requests for prompt in request.turns]


def contexts(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompt of each context."""
    return list({prompt.context.tobytes(): prompt for prompt in reversed(prompts)}.values())[::-1]


def in_prefix_order(requests: Sequence[Request]) -> list[Request]:
    """Requests in the order of ``prefix_order``, each with the beginnings to hold."""
    order = prefix_order([request.prompt.context for request in requests])
    return [replace(requests[index], hold=hold) for index, hold in order]
