"""Answers that are not finished, saved beside a cell's records for a run that goes on after a kill.

    <cell>/unfinished.<worker>.jsonl   one line per answer; replaced as a whole, and removed when the run has ended

Nothing but time is lost with such a file: one that cannot be read, or a line of other settings or another prompt, is as
none.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from harness.results import TokenId
from harness.store.files import failed, write_atomically
from harness.store.shards import Worker
from harness.values import Count


class Unfinished(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An answer that is not finished.

    Attributes:
        example_id: id of the example, or of the first turn's.
        prompt_sha256: hash of its prompt's token ids.
        fingerprint: that of the cell's settings.
        sample: index of the answer among those that are drawn, 0 first.
        answers: token ids of the turns that ended.
        tokens: token ids of the turn behind them.
    """

    example_id: str
    prompt_sha256: str
    fingerprint: str
    sample: Count
    answers: tuple[tuple[TokenId, ...], ...]
    tokens: tuple[TokenId, ...]


_READ = msgspec.json.Decoder(Unfinished).decode


def write_unfinished(folder: Path, worker: Worker, answers: Iterable[Unfinished]) -> None:
    """Replace what a worker has saved of a cell; with no answer, remove it.

    Raises:
        StoreError: the file cannot be written.
    """
    path = folder / f"unfinished.{worker.name}.jsonl"
    lines = [msgspec.json.encode(answer).decode() for answer in answers]
    try:
        if lines:
            write_atomically(path, "\n".join(lines) + "\n")
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise failed(path, "written", error) from error


def read_unfinished(folder: Path, fingerprint: str) -> dict[tuple[str, int], Unfinished]:
    """What is saved of a cell under these settings, by example and sample; of several, what has most tokens."""
    found: dict[tuple[str, int], Unfinished] = {}
    for path in sorted(folder.glob("unfinished.*.jsonl")):
        try:
            answers = [_READ(line) for line in path.read_bytes().splitlines()]
        except (OSError, msgspec.MsgspecError):
            continue
        for answer in answers:
            before = found.get((answer.example_id, answer.sample))
            if answer.fingerprint == fingerprint and (before is None or _length(before) < _length(answer)):
                found[answer.example_id, answer.sample] = answer
    return found


def _length(answer: Unfinished) -> int:
    return sum(map(len, answer.answers)) + len(answer.tokens)
