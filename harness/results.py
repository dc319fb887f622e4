"""What flows through the harness: frozen values without behaviour. What is read a million times from disk is a ``msgspec.Struct``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from harness.task import Average, Json, Metric
from harness.text import NAME
from harness.values import LARGEST, Count, Size

Whole = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
Finite = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Share = Annotated[float, Meta(ge=2**-53, le=1)]
Name = Annotated[str, Meta(pattern=rf"^{NAME}\Z")]
"""What names a folder."""
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]


class Audit(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What decoding a row again alone gave, held against what it gave among others.

    Attributes:
        same: whether all tokens are.
        first_divergence: the place of the first other one, 0 first; None where they are the same.
        margin: by how much the row's best logit led its second there when it was alone; None where they are the same or
            it had ended.
    """

    same: bool
    first_divergence: Count | None
    margin: Finite | None


class Record(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The outcome of one example under one (method, budget): one line of a cell's records file.

    Reading checks a line against the types and ranges of these fields.

    Attributes:
        example_id: the example's id.
        group: the example's group.
        references: the example's references.
        details: the example's details.
        prompt_tokens: length of the prompt; None for an imported text.
        prompt_sha256: hash of the prompt's token ids; None for an imported text.
        tokens_before_truncation: the example's.
        prompt_ends: how the prompt begins and ends, for readers; the whole text if it is short, and nothing where it is
            not a text.
        tokens: generated ids, a stop token included.
        text: the decoded tokens without special tokens; None where the task has no tokenizer.
        scores: one value per metric name; empty where the task scores nothing or the example failed.
        kept: entries kept per layer and head, first layer first.
        retention: mean of ``kept`` / ``prompt_tokens``, 0-1.
        kept_bytes: bytes of the kept keys and values.
        retention_bytes: ``kept_bytes`` / bytes of the stock full cache (kv heads). Above 1 is possible: a cache of
            query heads is larger than the stock one.
        kept_sha256: hash of the kept indices of all layers and heads.
        tied_heads: how many (layer, head) cuts fell between equal scores.
        alias_of: the cell whose row kept exactly the same entries and was decoded in this one's place.
        error: why there is no result.
        audit: what decoding the row again alone gave; None where it was not.
    """

    example_id: str
    group: Mapping[str, Finite | Whole | str]
    references: Sequence[str]
    details: Json
    prompt_tokens: Size | None
    prompt_sha256: str | None
    tokens_before_truncation: Size | None = None
    prompt_ends: Sequence[str] = ()
    tokens: Sequence[TokenId] = ()
    text: str | None = None
    scores: Mapping[str, Finite | Whole] = {}
    kept: Sequence[Size] = ()
    retention: Share | None = None
    kept_bytes: Count | None = None
    retention_bytes: Annotated[float, Meta(ge=0, le=LARGEST)] | None = None
    kept_sha256: str | None = None
    tied_heads: Count | None = None
    alias_of: str | None = None
    error: str | None = None
    audit: Audit | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as values that ``json`` can write."""
        return structs.asdict(self) | {"audit": self.audit and structs.asdict(self.audit)}


@dataclass(frozen=True)
class Cell:
    """One (method, budget) of a task and a model.

    Attributes:
        label: the method's label.
        budget: the budget as written: ``128``, ``12%``, ``full``.
    """

    label: Name
    budget: str

    @property
    def name(self) -> str:
        """The cell's folder name."""
        return f"{self.label}-{self.budget}"


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a cell is; written before its first record.

    Reading checks a file against the types and ranges of these fields.

    Attributes:
        cell: which one.
        place: where it stood in the grid that began it; tables are in this order.
        model: the model's name.
        task: the task's name.
        settings: everything that can change a number of the cell, and nothing else, as plain JSON values.
        metrics: the task's metrics, the headline first.
        heatmap_axes: see ``TaskResult``.
        note: see ``TaskResult``.
        task_config: the task's configuration, by which records can be scored again without the model.
        provenance: versions, commit, device and command of the run that began the cell.
        breakdown: see ``TaskResult``.
        published: see ``TaskResult``.
    """

    cell: Cell
    place: Count
    model: Name
    task: Name
    settings: Json
    metrics: tuple[Metric, ...]
    heatmap_axes: tuple[str, str] | None
    note: str
    task_config: Json
    provenance: Json
    breakdown: str | None
    published: Count | None = None


@dataclass(frozen=True)
class CellResult:
    """What is known of one cell.

    Attributes:
        cell: which one.
        expected: number of examples that were asked for.
        records: those of them that are done, in the order of the examples.
    """

    cell: Cell
    expected: int
    records: tuple[Record, ...]

    @cached_property
    def done(self) -> tuple[Record, ...]:
        """Records that are results, not errors."""
        return tuple(r for r in self.records if r.error is None)

    @property
    def errors(self) -> int:
        """Number of error records."""
        return len(self.records) - len(self.done)


@dataclass(frozen=True, eq=False)
class TaskResult:
    """A grid of cells of one task and one model: what a report is made of. Two are equal only if they are one.

    Attributes:
        model: the model's name.
        task: the task's name.
        metrics: the task's metrics, the headline first; empty where it scores nothing.
        heatmap_axes: the two ``group`` keys (column, row) that a heatmap pivots on.
        note: what a reader must know about the numbers, or "".
        cells: in the order of the grid.
        breakdown: the ``group`` key by whose values a table shows scores apart, or None.
        published: number of examples behind published numbers of the task; None where there are none.
    """

    model: str
    task: str
    metrics: tuple[Metric, ...]
    heatmap_axes: tuple[str, str] | None
    note: str
    cells: tuple[CellResult, ...]
    breakdown: str | None
    published: int | None = None


@dataclass(frozen=True)
class SuiteResult:
    """The grids of several tasks that are reported together.

    Attributes:
        model: the model's name.
        suite: the suite's name.
        tasks: one grid per task, all with the same cells.
        averages: means over tasks.
    """

    model: str
    suite: str
    tasks: tuple[TaskResult, ...]
    averages: tuple[Average, ...]
