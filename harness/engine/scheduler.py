"""What is computed at a time: prompts whose rows decode together, and which others join when rows have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.compression.grid import Variant
from harness.engine.decode import Decoding, Generated, Row
from harness.engine.prefill import Kept
from harness.engine.prefix import prefix_order
from harness.engine.prompt import Prompt
from harness.results import Audit, Cell, Record


@dataclass(frozen=True)
class Part:
    """What is computed of a prompt at once: all that is missing, or less where that was too much for the memory.

    Attributes:
        place: of the prompt among all.
        job: the prompt, with the variants of this part alone.
        later: variants of further parts, one after the other.
        found: records of parts that are done.
        begun: whether it has been taken before, so that it is computed to its end whatever else is not.
    """

    place: int
    job: Job
    later: tuple[tuple[Variant, ...], ...] = ()
    found: Mapping[Cell, Record] = field(default_factory=dict)
    begun: bool = False

    def halved(self) -> Part:
        """With the first half of its variants; there must be two."""
        missing = self.job.missing
        middle = len(missing) // 2
        return replace(self, job=replace(self.job, missing=missing[:middle]), later=(missing[middle:], *self.later))

    def rest(self, records: Mapping[Cell, Record]) -> Part:
        """What comes after it, now that it has these records; there must be something."""
        found = {**self.found, **records}
        job = replace(self.job, missing=self.later[0], done={**self.job.done, **records})
        return replace(self, job=job, later=self.later[1:], found=found)


@dataclass
class Group:
    """Variants of one prompt that kept the same entries: one row.

    Attributes:
        leader: the first cell of the grid that kept these entries; the others are its aliases.
        full_bytes: bytes of the stock full cache.
        known: whether another cell's record has its outcome, so that it is not decoded.
        outcome: None until it is decoded.
        alone: its row once more, where that is to be decoded again alone.
        audit: what decoding it again alone gave, if it was.
    """

    prompt: Prompt
    members: Sequence[tuple[Cell, Kept]]
    leader: Cell
    full_bytes: int
    row: Row
    known: bool
    outcome: Generated | None
    alone: Row | None = None
    audit: Audit | None = None


@dataclass(eq=False)
class Flying:
    """A part that has been taken.

    Attributes:
        part: what it is.
        failed: records of those of its variants that have no row.
        groups: None until the prompt is prefilled.
    """

    part: Part
    failed: dict[Cell, Record] = field(default_factory=dict)
    groups: list[Group] | None = None

    @property
    def rows(self) -> int:
        """Rows that are still to be decoded; at most, where that is not known yet."""
        return len(self.part.job.missing) if self.groups is None else sum(group.outcome is None for group in self.groups)


class Flight:
    """Parts that were taken and not finished, in that order, and the rows that decode."""

    def __init__(self, decoding: Decoding) -> None:
        """Hold nothing yet."""
        self.flying: list[Flying] = []
        self._decoding = decoding
        self._by_number: dict[int, Group] = {}
        self._waiting: list[Group] = []

    @property
    def rows(self) -> int:
        """Rows that are still to be decoded."""
        return sum(flying.rows for flying in self.flying)

    def has_room(self, rows: int, width: int) -> bool:
        """Whether another part may be taken, of so many rows: always where there is none, and never behind one that others come after."""
        return not self.flying or (not self.flying[-1].part.later and self.rows + rows <= width)

    def take(self, part: Part) -> None:
        """A part to be prefilled."""
        self.flying.append(Flying(replace(part, begun=True)))

    def wait(self, groups: Sequence[Group]) -> None:
        """Rows to be decoded; what is known of others gives up its entries."""
        for group in groups:
            if group.known:
                group.row.layers.clear()
            else:
                self._waiting.append(group)

    def advance(self, width: int) -> list[Group]:
        """One token more for each row; where at most half of the width goes on, those that wait join first.

        Returns:
            Those that ended.
        """
        alive = self._decoding.alive
        if self._waiting and alive <= width // 2:
            joining, self._waiting = self._waiting[: width - alive], self._waiting[width - alive :]
            self._by_number.update(zip(self._decoding.add([group.row for group in joining]), joining, strict=True))
        if self._decoding.alive:
            self._decoding.step()
        ended = []
        for number, outcome in self._decoding.take().items():
            ended.append(self._by_number.pop(number))
            ended[-1].outcome = outcome
        return ended

    def landed(self) -> list[Flying]:
        """Parts whose rows have all ended; they stay until they are removed."""
        return [flying for flying in self.flying if not flying.rows]

    def remove(self, landed: Sequence[Flying]) -> None:
        """Parts that are finished leave."""
        self.flying = [flying for flying in self.flying if flying not in landed]


@dataclass(frozen=True)
class Job:
    """What is still to do for one prompt.

    Attributes:
        prompt: the prompt.
        missing: variants without a record, in the order of the grid.
        done: records that other cells of the grid have of this prompt, by cell.
        held: lengths of those of its beginnings that later jobs go on from, ascending.
    """

    prompt: Prompt
    missing: tuple[Variant, ...]
    done: Mapping[Cell, Record]
    held: tuple[int, ...] = ()


def by_prefix(jobs: Sequence[Job]) -> list[Job]:
    """Jobs in the order in which what their prompts begin with is prefilled once, each with what is held for later ones."""
    return [replace(jobs[place], held=held) for place, held in prefix_order([job.prompt.ids for job in jobs])]
