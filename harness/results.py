"""What flows through the harness: frozen values without behaviour. What is read a million times from disk is a ``msgspec.Struct``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, structs

Json = Mapping[str, Any]

_LARGEST = 2**53
"""Of a number in a file: what JSON's readers agree on."""
Count = Annotated[int, Meta(ge=0, le=_LARGEST)]
Size = Annotated[int, Meta(ge=1, le=_LARGEST)]
Whole = Annotated[int, Meta(ge=-_LARGEST, le=_LARGEST)]
Finite = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]
Share = Annotated[float, Meta(ge=2**-53, le=1)]
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]


@dataclass(frozen=True)
class Example:
    """One question to one prompt.

    Attributes:
        id: unique within its task and stable between runs; resuming goes by it.
        prompt: text, or token ids that are used as they are.
        references: acceptable answers.
        group: where the example stands in its task, for plots: ``{"length": 4000, "depth": 44}``.
        details: what scoring needs beside the references, as plain JSON values.
        tokens_before_truncation: length of the prompt before the task cut it; None where it cuts nothing.
    """

    id: str
    prompt: str | tuple[int, ...]
    references: tuple[str, ...] = ()
    group: Mapping[str, float | int | str] = field(default_factory=dict)
    details: Json = field(default_factory=dict)
    tokens_before_truncation: int | None = None


@dataclass(frozen=True)
class Metric:
    """A score of one example.

    Attributes:
        name: its key in ``Record.scores``.
        title: what tables and plots call it.
        maximum: the largest value it can take; scores are stored on the scale that was published.
    """

    name: str
    title: str
    maximum: float


@dataclass(frozen=True)
class Selection:
    """How the entries to keep are picked from scores.

    Attributes:
        granularity: one kept set per query head (as published: the cache then stores every query head) or per kv head.
        group: how the scores of the query heads that share a kv head are reduced (``kv_head`` only).
        ties: ``stable`` prefers the lowest index, on every device; ``torch`` takes what ``torch.topk`` takes.
        dtype: scores in float32, or in the model's dtype as the published code has them.
    """

    granularity: Literal["query_head", "kv_head"]
    group: Literal["mean", "max", "sum"]
    ties: Literal["stable", "torch"]
    dtype: Literal["float32", "model"]


class Audit(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What decoding a row again alone gave, held against what it gave among others.

    Attributes:
        same: whether all tokens are.
        first_divergence: the place of the first other one, 0 first; None where they are the same.
        margin: by how much the row's best logit led its second there when it was alone; None where they are the same or it had ended.
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
        prompt_ends: how the prompt begins and ends, for readers; the whole text if it is short, and nothing where it is not a text.
        tokens: generated ids, a stop token included.
        text: the decoded tokens without special tokens; None where the task has no tokenizer.
        scores: one value per metric name; empty where the task scores nothing or the example failed.
        kept: entries kept per layer and head, first layer first.
        retention: mean of ``kept`` / ``prompt_tokens``, 0-1.
        kept_bytes: bytes of the kept keys and values.
        retention_bytes: ``kept_bytes`` / bytes of the stock full cache (kv heads). Above 1 is possible: a cache of query heads is
            larger than the stock one.
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
    retention_bytes: Annotated[float, Meta(ge=0, le=_LARGEST)] | None = None
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

    label: str
    budget: str

    @property
    def name(self) -> str:
        """The cell's folder name."""
        return f"{self.label}-{self.budget}"


@dataclass(frozen=True)
class Manifest:
    """What a cell is; written before its first record.

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
    place: int
    model: str
    task: str
    settings: Json
    metrics: Sequence[Json]
    heatmap_axes: Sequence[str] | None
    note: str
    task_config: Json
    provenance: Json
    breakdown: str | None
    published: int | None = None


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
class Average:
    """A mean over the headline scores of several tasks: the mean of the means of its groups.

    Attributes:
        title: what tables call it.
        groups: task names; an average of single tasks has groups of one.
    """

    title: str
    groups: tuple[tuple[str, ...], ...]


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


@dataclass(frozen=True)
class DataFile:
    """What is known of one of a task's data files.

    Attributes:
        name: the file's.
        expected: records that were published.
        found: records that are there; None where there is no file, or none that can be read.
        problem: what is wrong with it, in one line; None where nothing is, or where there is no file.
    """

    name: str
    expected: int
    found: int | None
    problem: str | None


@dataclass(frozen=True)
class Predictions:
    """Texts that another program generated for one task: one file.

    Attributes:
        file: where they come from.
        sha256: of the file.
        task: the task's name.
        config: changes of the task's configuration by which it has this task.
        settings: what can change a score of these texts, as plain JSON values.
        model: the model's name as the path has it; None where it does not say.
        label: the method, likewise.
        budget: the budget, likewise.
        rows: examples without their prompt, each with its text.
    """

    file: Path
    sha256: str
    task: str
    config: Json
    settings: Json
    model: str | None
    label: str | None
    budget: str | None
    rows: tuple[tuple[Example, str], ...]
