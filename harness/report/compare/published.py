"""Numbers from papers: what ``results/published`` holds. Its README describes the files and their columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field, structs

from harness.config.catalog import ROOT
from harness.errors import DataError

FOLDER = ROOT / "results" / "published"
Scale = Literal["score", "percent_of_full"]
_Row = TypeVar("_Row", bound=Struct)
AVERAGE = "average"
"""The ``dataset`` of a printed mean over a row's columns."""


@dataclass(frozen=True)
class Number:
    """One published number.

    Attributes:
        text: as printed.
        source: paper and table.
        note: what is wrong or peculiar about it, or "".
    """

    text: str
    source: str
    note: str

    @property
    def value(self) -> float:
        """The number."""
        return float(self.text)


@dataclass(frozen=True)
class Table:
    """One published table.

    Attributes:
        name: its file's stem.
        suite: the benchmark, which is the name of the task's class in lower case.
        title: paper and table.
        average: what the mean over its columns is called; "" where it is no number that anybody uses.
        scale: ``score`` (0-100), or ``percent_of_full`` for scores in percent of the full cache's.
        metric: the metric that was published, or "" for the task's own.
        protocol: how it was made, as far as that is known.
        rows: by model, method and budget; numbers by dataset.
    """

    name: str
    suite: str
    title: str
    average: str
    scale: Scale
    metric: str
    protocol: str
    rows: Mapping[tuple[str, str, str], Mapping[str, Number]]

    @property
    def models(self) -> tuple[str, ...]:
        """The models it has, in its order."""
        return tuple(dict.fromkeys(model for model, _, _ in self.rows))

    def of(self, model: str) -> dict[tuple[str, str], Mapping[str, Number]]:
        """A model's rows by method and budget, in its order."""
        return {(method, budget): numbers for (name, method, budget), numbers in self.rows.items() if name == model}


class Claim(Struct, frozen=True):
    """A share of the cache that a text says a budget is.

    Attributes:
        suite: the benchmark.
        text: as printed.
        percent: the share of the prompt that is kept.
        budget: entries per head and layer.
        source: where it is said.
        note: what there is to know about it.
    """

    suite: str
    text: str = field(name="claim")
    percent: Annotated[float, Meta(gt=0, le=100)]
    budget: str
    source: str
    note: str


class _Column(Struct):
    suite: str
    dataset: str
    title: str


class _Score(Struct):
    model: str
    dataset: str
    method: str
    budget: str
    score: Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?\Z")]
    source: str
    note: str


class _Listed(Struct):
    """A table as ``tables.csv`` lists it; see ``Table``."""

    name: str
    suite: str
    title: str
    average: str
    scale: Scale
    metric: str
    protocol: str


@cache
def tables() -> tuple[Table, ...]:
    """All tables; of several for one model, the one to compare with first.

    Raises:
        DataError: a file is missing, or not what it is to be.
    """
    return tuple(Table(**structs.asdict(listed), rows=_rows(listed.name)) for listed in _read("tables", _Listed))


@cache
def columns(suite: str) -> Mapping[str, str]:
    """A suite's datasets in the order of the papers, and what they are called there.

    Raises:
        DataError: a file is missing, or not what it is to be.
    """
    return {column.dataset: column.title for column in _read("columns", _Column) if column.suite == suite}


@cache
def claims(suite: str) -> tuple[Claim, ...]:
    """What texts say of the shares that budgets are.

    Raises:
        DataError: a file is missing, or not what it is to be.
    """
    return tuple(claim for claim in _read("claims", Claim) if claim.suite == suite)


def same_model(names: Sequence[str], published: Sequence[str]) -> str | None:
    """The published model that has one of the names, or None.

    Organisation, case, separators and the prefix "Meta-" do not count.
    """
    by_words = {_words(model): model for model in published}
    return next((by_words[words] for name in names if (words := _words(name.rpartition("/")[2])) in by_words), None)


def related_models(model: str, published: Sequence[str]) -> list[str]:
    """Other versions or less exact names: published models whose name begins with this one's, or the reverse."""
    words = _words(model)
    return [other for other in published if other != model and (w := _words(other))[: len(words)] == words[: len(w)]]


def _words(name: str) -> tuple[str, ...]:
    words = tuple(re.findall(r"[a-z0-9]+", name.lower()))
    return words[1:] if words[:1] == ("meta",) else words


def _rows(table: str) -> dict[tuple[str, str, str], dict[str, Number]]:
    rows: dict[tuple[str, str, str], dict[str, Number]] = {}
    for row in _read(table, _Score):
        numbers = rows.setdefault((row.model, row.method, row.budget), {})
        if row.dataset in numbers:
            raise DataError(
                f"{FOLDER / table}.csv has {row.model}, {row.method}, {row.budget} on {row.dataset} twice: delete one "
                "of the lines"
            )
        numbers[row.dataset] = Number(row.score, row.source, row.note)
    return rows


def _read(name: str, kind: type[_Row]) -> list[_Row]:
    path: Path = FOLDER / f"{name}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return msgspec.convert(list(csv.DictReader(file)), list[kind], strict=False)  # type: ignore[valid-type]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): restore it, or install kvgauge again") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}): restore it, or install kvgauge again") from error
