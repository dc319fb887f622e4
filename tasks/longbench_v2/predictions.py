"""Predictions on LongBench v2 by kvpress: one ``predictions.csv`` holds all records.

    longbench-v2__0shot__<model>__<press>__<ratio>[__…]/predictions.csv

Source: ``evaluation/evaluate.py`` of https://github.com/NVIDIA/kvpress at 7f5d6b8 (Apache-2.0); read, not copied.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from harness.errors import DataError
from harness.task import Example
from tasks.doubled import Line, without_doubled
from tasks.jsonl import TEXT, Kind, Text, check_fields
from tasks.kvpress import budget_in, other_benchmark, run_of, table, tables
from tasks.prediction_files import read_bytes

FORMATS = ("kvpress",)
GROUPS = ("difficulty", "length", "domain")
"""The fields that examples are grouped by."""
LETTER = Kind(Annotated[str, Meta(pattern=r"^[A-D]\Z")], "one of A, B, C, D")
"""A right answer."""
ID = Kind(Annotated[Text, Meta(min_length=1)], "a text")
_REMEDY = "give the file as the program wrote it"
_KINDS = {"_id": ID, "answer": LETTER, "predicted_answer": TEXT} | dict.fromkeys(GROUPS, TEXT)


@dataclass(frozen=True)
class Imported:
    """The predictions of one file; the attributes are those of ``harness.task.Predictions``."""

    file: Path
    sha256: str
    model: str | None
    label: str | None
    budget: str | None
    rows: tuple[tuple[Example, str], ...]


def read_predictions(path: Path, published: int, doubled: str | None) -> list[Imported]:
    """Every table at or below a path, sorted by path.

    Args:
        path: a folder, or a file.
        published: the number of records that were published.
        doubled: see ``tasks.doubled.without_doubled``.

    Raises:
        DataError: there is no such table, one is not of LongBench v2, or it holds a record twice.
    """
    return [_read(file, published, doubled) for file in tables(path)]


def _read(file: Path, published: int, doubled: str | None) -> Imported:
    run = run_of(file)
    if run.benchmark not in (None, "longbench-v2"):
        raise other_benchmark(file, run.benchmark, "LongBench v2")
    raw = read_bytes(file)
    lines = list(table(raw, file, tuple(_KINDS), plain=("answer", "length")))
    if not lines:
        raise DataError(f"{file} holds no prediction: leave it out, or run the program again")
    for where, values in lines:
        check_fields(values, _KINDS, where, _REMEDY)
    kept = without_doubled(lines, "LongBench v2", published, file, doubled)
    budget = budget_in(run, lines)
    return Imported(file, hashlib.sha256(raw).hexdigest(), run.model, run.label, budget, tuple(_examples(kept)))


def _examples(lines: Sequence[Line]) -> Iterator[tuple[Example, str]]:
    """Pairs of an example and its prediction; further predictions for a record get a number."""
    seen: Counter[str] = Counter()
    for _, values in lines:
        stem = values["_id"]
        seen[stem] += 1
        yield (
            Example(
                id=stem if seen[stem] == 1 else f"{stem}-{seen[stem]}",
                prompt=(),
                references=(values["answer"],),
                group={name: values[name] for name in GROUPS},
            ),
            values["predicted_answer"],
        )
