"""Running requests: those that have started and not finished, and the rows that decode for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.compression.grid import Plan, Variant
from harness.engine.audit import is_audited
from harness.engine.decode import Decoding
from harness.engine.prefill import Kept, Prefilled
from harness.engine.request import Begun, Outcome, Request
from harness.engine.rows import Generated, Row
from harness.engine.sampling import GREEDY, Sampling
from harness.engine.turns import Turn, asked, next_row, turns_of
from harness.results import Audit, Cell


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


@dataclass
class SharedRow:
    """One row that is decoded for all variants of a prompt that kept the same entries.

    Attributes:
        members: the cells of these variants, with what they kept.
        leader: the first cell of the grid that kept these entries; the others are its aliases.
        full_bytes: bytes of the full cache as transformers stores it.
        row: the row to decode, of the turn at hand.
        turns: the turns of the conversation; one for a prompt by itself.
        known: whether a stored result has its answers already, so that it is not decoded.
        answers: the answers so far, one per turn.
        alone: a copy of the row to decode again alone; None if it is not audited. Of a conversation, the first turn
            stands for all.
        audit: the comparison with the row decoded again alone; None if it was not.
        drawn: whether its answers are drawn, and are one of the samples of its members.
    """

    members: Sequence[tuple[Cell, Kept]]
    leader: Cell
    full_bytes: int
    row: Row
    turns: Sequence[Turn]
    known: bool
    answers: list[Generated]
    alone: Row | None = None
    audit: Audit | None = None
    drawn: bool = False

    @property
    def ended(self) -> bool:
        """Whether all turns have an answer."""
        return len(self.answers) == len(self.turns)

    def answer(self, generated: Generated, stop_ids: Collection[int]) -> None:
        """Take the answer of the turn at hand, and make the row of the next one, if there is one."""
        self.answers.append(generated)
        if generated.error is not None:
            self.give_up(f"an earlier turn of the conversation has no result: {generated.error}")
        elif not self.ended:
            place = len(self.answers)
            last = place == len(self.turns) - 1
            self.row = next_row(self.row, generated.tokens, self.turns[place], last, stop_ids)

    def give_up(self, error: str) -> None:
        """End the turns without an answer with an error."""
        self.answers += [Generated((), error)] * (len(self.turns) - len(self.answers))

    def outcomes(self) -> dict[Cell, Outcome]:
        """The outcome of each member, with all turns; the row must have ended."""
        first = self.members[0][0]
        outcomes = {}
        for cell, kept in self.members:
            turns = [
                Outcome(
                    generated=generated,
                    kept=kept,
                    full_bytes=self.full_bytes,
                    alias_of=None if self.leader == cell else self.leader,
                    samples=(generated,) if self.drawn else (),
                )
                for generated in self.answers
            ]
            audit = self.audit if cell == first else None  # so that a row counts once
            outcomes[cell] = replace(turns[0], audit=audit, later=tuple(turns[1:]))
        return outcomes


def shared_rows(
    request: Request,
    plans: Mapping[Variant, Plan],
    prefilled: Prefilled,
    order: Mapping[Cell, int],
    audit: float,
    sampling: Sampling = GREEDY,
    stop_ids: Collection[int] = (),
) -> list[SharedRow]:
    """The rows of a prefilled prompt, one for each set of kept entries, or one for each answer drawn from it.

    Args:
        request: the request.
        plans: plans of the variants that were prefilled.
        prefilled: what they kept, in the same order.
        order: the index of every cell in the grid.
        audit: share of the rows that are decoded again alone, 0-1; of several answers, the first stands for all.
        sampling: how the answers of variants that draw them are drawn.
        stop_ids: the tokens that end an answer.
    """
    alike: dict[tuple[str, int, tuple[Begun, ...]], list[tuple[Cell, Kept]]] = {}
    for variant, kept in zip(plans, prefilled.kept, strict=True):
        begun = tuple(request.begun.get((variant.cell, sample), Begun()) for sample in range(max(1, variant.drawn)))
        alike.setdefault((kept.sha256, variant.drawn, begun), []).append((variant.cell, kept))
    rows = []
    prompt = request.prompt
    for (sha256, drawn, begun), members in alike.items():
        twins = {
            cell: known
            for cell, known in request.known.items()
            if known.kept_sha256 == sha256 and len(known.samples) == drawn and not any(one.answers for one in begun)
        }
        twin = next(iter(twins.values()), None)
        example = prompt.example.id
        audited = twin is None and is_audited(example, members[0][0], audit)
        # What was kept may be held for the next question, and each row empties a list of its own. All answers begin
        # with the same entries, which the batch copies as they join.
        entries = list(members[0][1].layers)
        members = [(cell, replace(kept, layers=[])) for cell, kept in members]
        for sample, before in enumerate(begun):
            turns, place = turns_of(request, sampling, sample if drawn else None), len(before.answers)
            question = asked(turns, before, stop_ids)
            row = Row(
                members[0][1].first_new(prompt.context_tokens, len(question)),
                prefilled.logits,
                list(entries),
                prefilled.broken,
                question,
                turns[place].draws,
                before.tokens,
                turns[place].most,
                goes_on=place < len(turns) - 1,
            )
            rows.append(
                SharedRow(
                    members=members,
                    leader=min([*twins, *(cell for cell, _ in members)], key=order.__getitem__),
                    full_bytes=prefilled.full_bytes,
                    row=row,
                    turns=turns,
                    known=twin is not None,
                    answers=list(before.answers if twin is None else twin.answers(sample)),
                    alone=replace(row, layers=list(row.layers), goes_on=False)
                    if audited and not sample and before == Begun()
                    else None,
                    drawn=drawn > 0,
                )
            )
    return rows


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
