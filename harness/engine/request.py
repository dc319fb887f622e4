"""Requests to the engine, one for each prompt, and their outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
    """

    kept_sha256: str
    generated: Generated
    samples: tuple[Generated, ...] = ()


@dataclass(frozen=True)
class Request:
    """What is still to be generated from one prompt.

    Attributes:
        prompt: the prompt.
        missing: variants without a result, in the order of the grid.
        known: stored results of this prompt in other cells of the grid.
        hold: lengths of the beginnings of this prompt that later requests go on from, ascending.
        shared: whether the next request has the same context, so that what was kept of it is held.
    """

    prompt: Prompt
    missing: tuple[Variant, ...]
    known: Mapping[Cell, Known]
    hold: tuple[int, ...] = ()
    shared: bool = False

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
    """

    generated: Generated
    kept: Kept | None = None
    full_bytes: int = 0
    alias_of: Cell | None = None
    audit: Audit | None = None
    samples: tuple[Generated, ...] = ()

    def with_sample(self, sample: Generated) -> Outcome:
        """This outcome with one more answer; an error of any answer is the outcome's."""
        error = self.generated.error or sample.error
        return replace(self, generated=replace(self.generated, error=error), samples=(*self.samples, sample))


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


def contexts(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompt of each context."""
    return list({prompt.context.tobytes(): prompt for prompt in reversed(prompts)}.values())[::-1]


def in_prefix_order(requests: Sequence[Request]) -> list[Request]:
    """Requests in the order of ``prefix_order``, each with the beginnings to hold."""
    order = prefix_order([request.prompt.context for request in requests])
    return [replace(requests[index], hold=hold) for index, hold in order]
