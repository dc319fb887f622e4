"""The requests of a run: prompts and conversations that lack records, with what earlier runs left of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from harness.compression.grid import Variant
from harness.engine.prompt import Prompt
from harness.engine.request import Begun, Known, Request
from harness.engine.request import Unfinished as Running
from harness.engine.rows import Generated
from harness.results import Cell, Record
from harness.store.unfinished import Unfinished, read_unfinished, write_unfinished

if TYPE_CHECKING:
    from harness.run.prepare import Prepared

Saved = Mapping[tuple[str, int], Unfinished]


def conversations(prompts: Sequence[Prompt]) -> list[tuple[Prompt, ...]]:
    """Prompts in their order, each with the turns that follow it."""
    found: list[list[Prompt]] = []
    place: dict[str, int] = {}
    for prompt in prompts:
        follows = prompt.example.follows
        if follows is None:
            found.append([])
        number = place[prompt.example.id] = len(found) - 1 if follows is None else place[follows]
        found[number].append(prompt)
    return [tuple(turns) for turns in found]


def requests_of(prepared: Prepared, records: Mapping[Cell, Mapping[str, Record]]) -> list[Request]:
    """The conversations of a run's shard in which a variant lacks a record.

    Args:
        prepared: the run.
        records: by cell and example, the records that there are.
    """
    run = prepared.run
    saved: dict[Cell, Saved] = {}
    if run.results is not None:
        for cell, manifest in prepared.manifests.items():
            saved[cell] = read_unfinished(run.folder(cell), str(manifest.provenance["fingerprint"]))
    requests = []
    for turns in prepared.conversations:
        done = {cell: _done(turns, by_id, run.retry_errors) for cell, by_id in records.items()}
        missing = tuple(variant for variant in run.variants if len(done[variant.cell]) < len(turns))
        if missing:
            begun: dict[tuple[Cell, int], Begun] = {}
            for variant in missing:
                cell = variant.cell
                begun |= _begun(turns, variant, done[cell], records[cell], saved.get(cell, {}))
            known = {
                cell: _known(of_cell)
                for cell, of_cell in done.items()
                if len(of_cell) == len(turns) and all(record.kept_sha256 is not None for record in of_cell)
            }
            recorded = {variant.cell: len(done[variant.cell]) for variant in missing}
            requests.append(Request(turns[0], missing, known, later=turns[1:], begun=begun, recorded=recorded))
    return requests


def saver(prepared: Prepared) -> Callable[[Sequence[Running]], None]:
    """A function that saves answers which are not finished, in place of those that it saved before.

    Args:
        prepared: the run, which has a results folder.
    """
    prints = {cell: str(manifest.provenance["fingerprint"]) for cell, manifest in prepared.manifests.items()}

    def save(rows: Sequence[Running]) -> None:
        by_cell: dict[Cell, list[Unfinished]] = {cell: [] for cell in prints}
        for row in rows:
            answers = tuple(answer.tokens for answer in row.begun.answers)
            by_cell[row.cell].append(
                Unfinished(row.example, row.prompt_sha256, prints[row.cell], row.sample, answers, row.begun.tokens)
            )
        for cell, answers_of in by_cell.items():
            write_unfinished(prepared.run.folder(cell), prepared.worker, answers_of)

    return save


def _done(turns: Sequence[Prompt], by_id: Mapping[str, Record], retry_errors: bool) -> list[Record]:
    """The records that a cell has of the first turns of a conversation, up to one that is missing.

    Where later turns are missing, so are those from the first error on.
    """
    found: list[Record] = []
    for prompt in turns:
        record = by_id.get(prompt.example.id)
        if record is None or (retry_errors and record.error is not None):
            return [*takewhile(lambda record: record.error is None, found)]
        found.append(record)
    return found


def _known(records: Sequence[Record]) -> Known:
    """The stored results of one or more turns."""
    first, *later = records
    samples = tuple(Generated(tuple(sample.tokens), first.error) for sample in first.samples)
    generated = Generated(tuple(first.tokens), first.error, first.partial)
    return Known(first.kept_sha256 or "", generated, samples, tuple(_known([record]) for record in later))


def _begun(
    turns: Sequence[Prompt], variant: Variant, done: Sequence[Record], by_id: Mapping[str, Record], saved: Saved
) -> dict[tuple[Cell, int], Begun]:
    """What earlier runs left of a variant's conversation, by sample: recorded turns, and what was saved of the next.

    An answer that a time limit ended, and that is tried again, goes on as well.
    """
    found = {}
    first, following = turns[0], by_id.get(turns[len(done)].example.id)
    for sample in range(max(1, variant.drawn)):
        answers = _known(done).answers(sample) if done else ()
        tokens: tuple[int, ...] = ()
        left = saved.get((first.example.id, sample))
        if left is not None and left.prompt_sha256 == first.sha256:
            ended = tuple(map(Generated, left.answers))
            if len(ended) < len(turns) and ended[: len(answers)] == answers:
                answers, tokens = ended, left.tokens
        elif following is not None and following.partial and not variant.drawn:
            tokens = tuple(following.tokens)
        if answers or tokens:
            found[variant.cell, sample] = Begun(answers, tokens)
    return found
