"""Rows that are decoded for all variants of a prompt that kept the same entries, turn by turn."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.compression.grid import Plan, Variant
from harness.engine.audit import is_audited
from harness.engine.prefill import Kept, Prefilled
from harness.engine.request import Begun, Outcome, Request
from harness.engine.rows import Generated, Row
from harness.engine.sampling import GREEDY, Sampling
from harness.engine.turns import Turn, asked, next_row, turns_of
from harness.results import Audit, Cell


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
        sample: index of the sample, 0 first.
        resumable: whether its tokens can run through its entries at once as they did one by one: not if entries leave
            while it decodes, or change their form.
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
    sample: int = 0
    resumable: bool = True

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
        # with the same entries, which the batch copies or shares as they join.
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
                    sample=sample,
                    resumable=all(layer.stays for layer in entries),
                )
            )
    return rows
