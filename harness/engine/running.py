"""Running requests: those that have started and not finished, and the rows that decode for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.compression.grid import Variant
from harness.engine.decode import Decoding
from harness.engine.request import Begun, Outcome, Request, Unfinished
from harness.engine.rows import Generated
from harness.engine.shared_rows import SharedRow
from harness.results import Cell


@dataclass(frozen=True)
class Part:
    """The variants of a request that are computed at once: all missing ones, or fewer if memory is short.

    Attributes:
        index: index of the request among all.
        request: the request, with the variants of this part alone.
        later: the variants of further parts of the request, part by part.
        outcomes: outcomes of its earlier parts.
        begun: whether the request has started, so that it runs to its end even when no new prompt starts.
        alone: whether it decodes without others, because a step with others failed.
    """

    index: int
    request: Request
    later: tuple[tuple[Variant, ...], ...] = ()
    outcomes: Mapping[Cell, Outcome] = field(default_factory=dict)
    begun: bool = False
    alone: bool = False

    def halved(self) -> Part:
        """This part with the first half of its variants, of which there must be 2 or more; the rest comes later."""
        missing = self.request.missing
        middle = len(missing) // 2
        request = replace(self.request, missing=missing[:middle])
        return replace(self, request=request, later=(missing[middle:], *self.later))

    def rest(self, outcomes: Mapping[Cell, Outcome]) -> Part:
        """The next part of the request, given the outcomes of this one; there must be one."""
        known = {cell: outcome.known() for cell, outcome in outcomes.items() if outcome.kept is not None}
        request = replace(self.request, missing=self.later[0], known={**self.request.known, **known})
        return replace(self, request=request, later=self.later[1:], outcomes={**self.outcomes, **outcomes})


@dataclass(eq=False)
class RunningPart:
    """A part that has started.

    Attributes:
        part: the part.
        failed: outcomes of variants that have no row.
        rows: its rows; None until the prompt is prefilled.
    """

    part: Part
    failed: dict[Cell, Outcome] = field(default_factory=dict)
    rows: list[SharedRow] | None = None

    @property
    def undecoded(self) -> int:
        """Number of rows still to decode; before the prefill, the largest possible number."""
        return self.part.request.rows if self.rows is None else sum(not row.ended for row in self.rows)

    @property
    def decoded(self) -> int:
        """Number of rows that were decoded for it."""
        return sum(not row.known for row in self.rows or ())

    def outcomes(self) -> dict[Cell, Outcome]:
        """The outcomes of all its variants; all its rows must have ended."""
        outcomes = dict(self.failed)
        for row in self.rows or ():
            for cell, one in row.outcomes().items():
                first = outcomes.get(cell)
                outcomes[cell] = one if first is None else first.with_sample(one)
        return outcomes


class Running:
    """Parts that have started and not finished, in the order of their start, and the rows that decode.

    Attributes:
        parts: these parts.
    """

    def __init__(self, decoding: Decoding, stop_ids: Collection[int]) -> None:
        """Start without parts.

        Args:
            decoding: an empty batch.
            stop_ids: the tokens that end an answer.
        """
        self.parts: list[RunningPart] = []
        self._decoding = decoding
        self._stop_ids = stop_ids
        self._by_number: dict[int, SharedRow] = {}
        self._waiting: list[SharedRow] = []

    @property
    def generated(self) -> int:
        """Number of tokens generated so far."""
        return self._decoding.generated

    @property
    def asked(self) -> int:
        """Number of tokens of questions that ran through the cache so far."""
        return self._decoding.asked

    @property
    def rows(self) -> int:
        """Number of rows still to decode."""
        return sum(part.undecoded for part in self.parts)

    def has_room(self, part: Part, width: int) -> bool:
        """Whether a part may start.

        True when idle. False while the last part that started has further parts to come, or if one of the two is to
        decode alone.
        """
        if not self.parts:
            return True
        last = self.parts[-1].part
        return not (last.later or last.alone or part.alone) and self.rows + part.request.rows <= width

    def take(self, part: Part) -> None:
        """Add a part that is to be prefilled."""
        self.parts.append(RunningPart(replace(part, begun=True)))

    def enqueue(self, rows: Sequence[SharedRow]) -> None:
        """Add rows to decode; rows whose tokens are known free their entries at once."""
        for row in rows:
            if row.known:
                row.row.layers.clear()
            else:
                self._waiting.append(row)

    def advance(self, width: int) -> list[tuple[SharedRow, Generated]]:
        """Decode one more token of each row.

        Waiting rows join first if at most half of the width is decoding. Rows with a further turn wait with the others.

        Args:
            width: largest number of rows that decode together.

        Returns:
            The rows that came to the end of a turn, and what they generated in it.
        """
        alive = self._decoding.alive
        if self._waiting and alive <= width // 2:
            joining, self._waiting = self._waiting[: width - alive], self._waiting[width - alive :]
            numbers = self._decoding.add([shared.row for shared in joining])
            self._by_number.update(zip(numbers, joining, strict=True))
        if self._decoding.alive:
            self._decoding.step()
        ended = []
        for number, generated in self._decoding.take().items():
            shared = self._by_number.pop(number)
            shared.answer(generated, self._stop_ids)
            ended.append((shared, generated))
            if not shared.ended:
                self._waiting.append(shared)
        return ended

    def unfinished(self, least: int) -> list[Unfinished]:
        """What the rows of the batch have that have generated so many tokens or more."""
        found = []
        numbers = {id(shared): number for number, shared in self._by_number.items()}
        so_far = self._decoding.so_far()
        for part in self.parts:
            prompt = part.part.request.prompt
            for shared in part.rows or ():
                tokens = so_far.get(numbers.get(id(shared), -1), ())
                begun = Begun(tuple(shared.answers), tokens)
                there = len(tokens) + sum(len(answer.tokens) for answer in shared.answers)
                if shared.resumable and not (shared.known or shared.ended) and there >= least:
                    found += [
                        Unfinished(prompt.example.id, prompt.sha256, cell, shared.sample, begun)
                        for cell, _ in shared.members
                    ]
        return found

    def give_up(self, error: str) -> None:
        """End all rows that still decode with an error; nothing can be decoded here afterwards."""
        for part in self.parts:
            if part.rows is None:
                part.failed |= {variant.cell: Outcome(Generated((), error)) for variant in part.part.request.missing}
                part.rows = []
            for row in part.rows:
                row.give_up(error)

    def finished(self) -> list[RunningPart]:
        """Parts whose rows have all ended; they stay until ``remove``."""
        return [part for part in self.parts if not part.undecoded]

    def remove(self, finished: Sequence[RunningPart]) -> None:
        """Remove finished parts."""
        self.parts = [part for part in self.parts if part not in finished]
