"""Running requests: those that have started and not finished, and the rows that decode for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.compression.grid import Plan, Variant
from harness.engine.audit import is_audited
from harness.engine.decode import Decoding, Generated, Row
from harness.engine.prefill import Kept, Prefilled
from harness.engine.request import Known, Outcome, Request
from harness.engine.sampling import GREEDY, Sampling
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
        known = {
            cell: Known(outcome.kept.sha256, outcome.generated, outcome.samples)
            for cell, outcome in outcomes.items()
            if outcome.kept is not None
        }
        request = replace(self.request, missing=self.later[0], known={**self.request.known, **known})
        return replace(self, request=request, later=self.later[1:], outcomes={**self.outcomes, **outcomes})


@dataclass
class SharedRow:
    """One row that is decoded for all variants of a prompt that kept the same entries.

    Attributes:
        members: the cells of these variants, with what they kept.
        leader: the first cell of the grid that kept these entries; the others are its aliases.
        full_bytes: bytes of the full cache as transformers stores it.
        row: the row to decode.
        known: whether a stored result has its tokens already, so that it is not decoded.
        generated: its tokens; None until it is decoded.
        alone: a copy of the row to decode again alone; None if it is not audited.
        audit: the comparison with the row decoded again alone; None if it was not.
        drawn: whether its answer is drawn, and is one of the samples of its members.
    """

    members: Sequence[tuple[Cell, Kept]]
    leader: Cell
    full_bytes: int
    row: Row
    known: bool
    generated: Generated | None
    alone: Row | None = None
    audit: Audit | None = None
    drawn: bool = False

    def outcomes(self) -> dict[Cell, Outcome]:
        """The outcome of each member; the row must have been decoded."""
        assert self.generated is not None
        first = self.members[0][0]
        return {
            cell: Outcome(
                generated=self.generated,
                kept=kept,
                full_bytes=self.full_bytes,
                alias_of=None if self.leader == cell else self.leader,
                audit=self.audit if cell == first else None,  # so that a row counts once
                samples=(self.generated,) if self.drawn else (),
            )
            for cell, kept in self.members
        }


def shared_rows(
    request: Request,
    plans: Mapping[Variant, Plan],
    prefilled: Prefilled,
    order: Mapping[Cell, int],
    audit: float,
    sampling: Sampling = GREEDY,
) -> list[SharedRow]:
    """The rows of a prefilled prompt, one for each set of kept entries, or one for each answer drawn from it.

    Args:
        request: the request.
        plans: plans of the variants that were prefilled.
        prefilled: what they kept, in the same order.
        order: the index of every cell in the grid.
        audit: share of the rows that are decoded again alone, 0-1; of several answers, the first stands for all.
        sampling: how the answers of variants that draw them are drawn.
    """
    alike: dict[tuple[str, int], list[tuple[Cell, Kept]]] = {}
    for variant, kept in zip(plans, prefilled.kept, strict=True):
        alike.setdefault((kept.sha256, variant.drawn), []).append((variant.cell, kept))
    rows = []
    for (sha256, drawn), members in alike.items():
        # The rows' own lists, as decoding empties them: all answers begin with the same entries.
        layers = members[0][1].layers
        members = [(cell, replace(kept, layers=[])) for cell, kept in members]
        twins = {
            cell: known
            for cell, known in request.known.items()
            if known.kept_sha256 == sha256 and len(known.samples) == drawn
        }
        twin = next(iter(twins.values()), None)
        example = request.prompt.example.id
        audited = twin is None and is_audited(example, members[0][0], audit)
        for sample in range(max(1, drawn)):
            draws = sampling.draws(example, sample) if drawn else None
            row = Row(len(request.prompt.ids), prefilled.logits, list(layers), prefilled.broken, draws)
            rows.append(
                SharedRow(
                    members=members,
                    leader=min([*twins, *(cell for cell, _ in members)], key=order.__getitem__),
                    full_bytes=prefilled.full_bytes,
                    row=row,
                    known=twin is not None,
                    generated=None if twin is None else twin.samples[sample] if drawn else twin.generated,
                    alone=replace(row, layers=list(row.layers)) if audited and not sample else None,
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
        return self.part.request.rows if self.rows is None else sum(row.generated is None for row in self.rows)

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
                outcomes[cell] = one if first is None else first.with_sample(one.generated)
        return outcomes


class Running:
    """Parts that have started and not finished, in the order of their start, and the rows that decode.

    Attributes:
        parts: these parts.
    """

    def __init__(self, decoding: Decoding) -> None:
        """Start without parts.

        Args:
            decoding: an empty batch.
        """
        self.parts: list[RunningPart] = []
        self._decoding = decoding
        self._by_number: dict[int, SharedRow] = {}
        self._waiting: list[SharedRow] = []

    @property
    def generated(self) -> int:
        """Number of tokens generated so far."""
        return self._decoding.generated

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

    def advance(self, width: int) -> list[SharedRow]:
        """Decode one more token of each row.

        Waiting rows join first if at most half of the width is decoding.

        Args:
            width: largest number of rows that decode together.

        Returns:
            The rows that ended.
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
            ended.append(self._by_number.pop(number))
            ended[-1].generated = generated
        return ended

    def give_up(self, error: str) -> None:
        """End all rows that still decode with an error; nothing can be decoded here afterwards."""
        for part in self.parts:
            if part.rows is None:
                part.failed |= {variant.cell: Outcome(Generated((), error)) for variant in part.part.request.missing}
                part.rows = []
            for row in part.rows:
                row.generated = row.generated or Generated((), error)

    def finished(self) -> list[RunningPart]:
        """Parts whose rows have all ended; they stay until ``remove``."""
        return [part for part in self.parts if not part.undecoded]

    def remove(self, finished: Sequence[RunningPart]) -> None:
        """Remove finished parts."""
        self.parts = [part for part in self.parts if part not in finished]
