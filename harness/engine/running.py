"""Requests that were begun and are not finished, and the rows that decode for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.compression.grid import Plan, Variant
from harness.engine.audit import is_audited
from harness.engine.decode import Decoding, Generated, Row
from harness.engine.prefill import Kept, Prefilled
from harness.engine.request import Known, Outcome, Request
from harness.results import Audit, Cell


@dataclass(frozen=True)
class Part:
    """The variants of a request that are computed at once: all that are missing, or fewer where memory is short.

    Attributes:
        index: of the request among all.
        request: the request, with the variants of this part alone.
        later: variants of further parts, one after the other.
        outcomes: of parts that are done.
        begun: whether it was taken before, so that it is computed to its end whatever else is not.
    """

    index: int
    request: Request
    later: tuple[tuple[Variant, ...], ...] = ()
    outcomes: Mapping[Cell, Outcome] = field(default_factory=dict)
    begun: bool = False

    def halved(self) -> Part:
        """With the first half of its variants; there must be two."""
        missing = self.request.missing
        middle = len(missing) // 2
        request = replace(self.request, missing=missing[:middle])
        return replace(self, request=request, later=(missing[middle:], *self.later))

    def rest(self, outcomes: Mapping[Cell, Outcome]) -> Part:
        """What comes after it, now that it has these outcomes; there must be something."""
        known = {
            cell: Known(outcome.kept.sha256, outcome.generated)
            for cell, outcome in outcomes.items()
            if outcome.kept is not None
        }
        request = replace(self.request, missing=self.later[0], known={**self.request.known, **known})
        return replace(self, request=request, later=self.later[1:], outcomes={**self.outcomes, **outcomes})


@dataclass
class SharedRow:
    """Variants of one prompt that kept the same entries: one row.

    Attributes:
        members: these variants, with what they kept.
        leader: the first cell of the grid that kept these entries; the others are its aliases.
        full_bytes: bytes of the stock full cache.
        row: what is decoded.
        known: whether another cell has its tokens already, so that it is not decoded.
        generated: None until it is decoded.
        alone: its row once more, where that is to be decoded again alone.
        audit: what decoding it again alone gave, if it was.
    """

    members: Sequence[tuple[Cell, Kept]]
    leader: Cell
    full_bytes: int
    row: Row
    known: bool
    generated: Generated | None
    alone: Row | None = None
    audit: Audit | None = None

    def outcomes(self) -> dict[Cell, Outcome]:
        """One for each member; it must have been decoded."""
        assert self.generated is not None
        first = self.members[0][0]
        return {
            cell: Outcome(
                generated=self.generated,
                kept=kept,
                full_bytes=self.full_bytes,
                alias_of=None if self.leader == cell else self.leader,
                audit=self.audit if cell == first else None,  # a row is counted once
            )
            for cell, kept in self.members
        }


def shared_rows(
    request: Request, plans: Mapping[Variant, Plan], prefilled: Prefilled, order: Mapping[Cell, int], audit: float
) -> list[SharedRow]:
    """The rows of a prefilled prompt, one for each set of kept entries.

    Args:
        request: the prompt.
        plans: of the variants that were prefilled.
        prefilled: what they kept, in that order.
        order: the index of every cell in the grid.
        audit: share of the rows that are decoded again alone, 0-1.
    """
    by_hash: dict[str, list[tuple[Cell, Kept]]] = {}
    for variant, kept in zip(plans, prefilled.kept, strict=True):
        by_hash.setdefault(kept.sha256, []).append((variant.cell, kept))
    rows = []
    for sha256, members in by_hash.items():
        twins = {cell: known for cell, known in request.known.items() if known.kept_sha256 == sha256}
        twin = next(iter(twins.values()), None)
        row = Row(len(request.prompt.ids), prefilled.logits, members[0][1].layers, prefilled.broken)
        audited = twin is None and is_audited(request.prompt.example.id, members[0][0], audit)
        rows.append(
            SharedRow(
                members=members,
                leader=min([*twins, *(cell for cell, _ in members)], key=order.__getitem__),
                full_bytes=prefilled.full_bytes,
                row=row,
                known=twin is not None,
                generated=None if twin is None else twin.generated,
                alone=replace(row, layers=list(row.layers)) if audited else None,
            )
        )
    return rows


@dataclass(eq=False)
class RunningPart:
    """A part that was taken.

    Attributes:
        part: what it is.
        failed: why variants have no row.
        rows: None until the prompt is prefilled.
    """

    part: Part
    failed: dict[Cell, Outcome] = field(default_factory=dict)
    rows: list[SharedRow] | None = None

    @property
    def undecoded(self) -> int:
        """Rows that are still to be decoded; at most, while the prompt is not prefilled."""
        return len(self.part.request.missing) if self.rows is None else sum(row.generated is None for row in self.rows)

    @property
    def decoded(self) -> int:
        """Rows that were decoded for it."""
        return sum(not row.known for row in self.rows or ())

    def outcomes(self) -> dict[Cell, Outcome]:
        """Of all its variants; all its rows must have ended."""
        return {**self.failed, **{cell: one for row in self.rows or () for cell, one in row.outcomes().items()}}


class Running:
    """Parts that were taken and are not finished, in that order, and the rows that decode."""

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
    def rows(self) -> int:
        """Rows that are still to be decoded."""
        return sum(part.undecoded for part in self.parts)

    def has_room(self, rows: int, width: int) -> bool:
        """Whether another part of so many rows may be taken.

        True when idle; False while the last part taken has further parts behind it.
        """
        return not self.parts or (not self.parts[-1].part.later and self.rows + rows <= width)

    def take(self, part: Part) -> None:
        """Add a part that is to be prefilled."""
        self.parts.append(RunningPart(replace(part, begun=True)))

    def enqueue(self, rows: Sequence[SharedRow]) -> None:
        """Add rows that are to be decoded; those whose tokens are known give up their entries."""
        for row in rows:
            if row.known:
                row.row.layers.clear()
            else:
                self._waiting.append(row)

    def advance(self, width: int) -> list[SharedRow]:
        """Decode one more token of each row; when at most half of the width is decoding, those that wait join first.

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

    def finished(self) -> list[RunningPart]:
        """Parts whose rows have all ended; they stay until they are removed."""
        return [part for part in self.parts if not part.undecoded]

    def remove(self, finished: Sequence[RunningPart]) -> None:
        """Drop parts that are finished."""
        self.parts = [part for part in self.parts if part not in finished]
