"""Predictions on RULER by kvpress: one ``predictions.csv`` holds all tasks of one length.

    ruler__<length>__<model>__<press>__<ratio>[__…]/predictions.csv

Source: ``evaluation/evaluate.py`` of https://github.com/NVIDIA/kvpress at 7f5d6b8 (Apache-2.0); read, not copied.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from harness.errors import DataError
from harness.task import Example
from tasks.checks import short
from tasks.doubled import Line, without_doubled
from tasks.jsonl import TEXT, Kind, Text, check_fields
from tasks.kvpress import Run, budget_in, other_benchmark, run_of, table, tables
from tasks.prediction_files import read_bytes
from tasks.ruler.recipe import EXAMPLES, TASKS
from tasks.ruler.records import record_id

FORMATS = ("kvpress",)
_REMEDY = "give the file as the program wrote it"
_KINDS = {
    "predicted_answer": TEXT,
    "question": TEXT,
    "answers": Kind(Annotated[list[Text], Meta(min_length=1)], "a list of texts"),
}


@dataclass(frozen=True)
class Imported:
    """The predictions of one file on one task; other attributes are those of ``harness.task.Predictions``.

    Attributes:
        task: one of ``tasks.ruler.recipe.TASKS``.
        tokens: the length.
    """

    file: Path
    sha256: str
    task: str
    tokens: int
    model: str | None
    label: str | None
    budget: str | None
    rows: tuple[tuple[Example, str], ...]


def read_predictions(path: Path, doubled: str | None) -> list[Imported]:
    """Every table at or below a path, sorted by path, task by task in RULER's order.

    Args:
        path: a folder, or a file, the name of whose folder says the length.
        doubled: see ``tasks.doubled.without_doubled``.

    Raises:
        DataError: there is no such table, one is not of RULER, or it holds a record twice.
    """
    return [one for file in tables(path) for one in _read(file, doubled)]


def _read(file: Path, doubled: str | None) -> Iterator[Imported]:
    run = run_of(file)
    if run.benchmark not in (None, "ruler"):
        raise other_benchmark(file, run.benchmark, "RULER")
    raw = read_bytes(file)
    lines = list(table(raw, file, ("task", "question", "answer", "predicted_answer")))
    if not lines:
        raise DataError(f"{file} holds no prediction: leave it out, or run the program again")
    by_task: dict[str, list[Line]] = {}
    for where, values in lines:
        if values["task"] not in TASKS:
            raise DataError(f"{where} is of task {short(values['task'])}, which RULER has not: {_REMEDY}")
        values["answers"] = values.pop("answer")
        check_fields(values, _KINDS, where, _REMEDY)
        by_task.setdefault(values["task"], []).append((where, values))
    tokens, budget = _tokens(run, file), budget_in(run, lines)
    for task in sorted(by_task, key=TASKS.index):
        kept = without_doubled(by_task[task], task, EXAMPLES, file, doubled)
        yield Imported(
            file=file,
            sha256=hashlib.sha256(raw).hexdigest(),
            task=task,
            tokens=tokens,
            model=run.model,
            label=run.label,
            budget=budget,
            rows=tuple(_examples([values for _, values in kept])),
        )


def _tokens(run: Run, file: Path) -> int:
    if run.dataset is None or not run.dataset.isdecimal():
        raise DataError(
            f"the folder of {file} does not say the length of its texts: call it as kvpress does, "
            "ruler__4096__<model>__<press>__<ratio>"
        )
    return int(run.dataset)


def _examples(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Example, str]]:
    """Pairs of an example and its prediction; ids are those of runs on the same records."""
    seen: Counter[str] = Counter()
    for values in rows:
        name = record_id(values["question"], values["answers"], seen)
        yield Example(id=name, prompt=(), references=tuple(values["answers"])), values["predicted_answer"]
