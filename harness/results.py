"""The values of results: records, cells, manifests, and the results of cells, tasks and suites.

They are frozen. Values that are read from disk by the million are ``msgspec.Struct``.
"""

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
Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
Share = Annotated[float, Meta(ge=2**-53, le=1)]
Name = Annotated[str, Meta(pattern=rf"^{NAME}\Z")]
"""A name of a folder."""
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]


Kept = tuple[Size | tuple[Size, ...], ...]
"""Numbers of kept entries per layer: one for all heads of the cache or one for each."""


def by_head(counts: int | tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of a layer: one for all of its heads, or one for each."""
    return (counts,) if isinstance(counts, int) else counts


def layer_means(kept: Kept) -> tuple[float, ...]:
    """Entries of each layer, on average over its heads."""
    return tuple(counts if isinstance(counts, int) else sum(counts) / len(counts) for counts in kept)


class Audit(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The comparison of a row decoded again alone with the same row decoded in a wide batch.

    Attributes:
        same: whether all tokens are equal.
        first_divergence: index of the first token that differs, 0 first; None if all are equal.
        margin: lead of the best logit over the second best at that token, in the row decoded alone; None if all tokens
            are equal or that row had ended before.
    """

    same: bool
    first_divergence: Count | None
    margin: Finite | None


class Sample(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One of several answers that were drawn for an example.

    Attributes:
        tokens: as of ``Record``.
        text: as of ``Record``.
        scores: one value per metric of the task.
    """

    tokens: tuple[TokenId, ...]
    text: str | None = None
    scores: Mapping[str, Finite | Whole] = {}


class Evicted(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a row held while it decoded, under a method that evicts then.

    Entries are per head of the cache, on average over layers. A call is a question or a step of one token; what it
    attends to includes its own tokens. Bytes are those of keys and values.

    Attributes:
        target: entries that the last eviction leaves.
        peak: the most that the prompt left or a call attended to.
        mean: what calls attended to, on average over all of them.
        peak_bytes: bytes at the peak.
        mean_bytes: bytes on average over calls.
        steps: some calls, evenly spaced, the first and the last among them; 0 is the end of the prompt.
        entries: what was kept of the prompt, then what each of these calls attended to; of several answers, the
            longest one's.
    """

    target: Positive
    peak: Positive
    mean: Positive
    peak_bytes: Count
    mean_bytes: Count
    steps: tuple[Count, ...]
    entries: tuple[Positive, ...]


class Record(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The outcome of one example under one (method, storage, budget), which is one line of a cell's records file.

    When a line is read, it is checked against the types and ranges of these fields.

    Attributes:
        example_id: the example's id.
        group: the example's group.
        references: the example's references.
        details: the example's details.
        prompt_tokens: length of the prompt; None for an imported text.
        prompt_sha256: hash of the prompt's token ids; None for an imported text.
        tokens_before_truncation: see ``Example``.
        prompt_ends: the beginning and the end of the prompt, for readers, and between them the passages that its task
            names; the whole text if it is short. Of a prompt that the task gives as token ids, their text with special
            tokens written out; empty without a tokenizer.
        tokens: generated token ids, with the stop token if there was one.
        text: the decoded tokens without special tokens; None if the task has no tokenizer. An error record has one if
            only its scoring failed.
        scores: one value per metric name; empty if the task scores nothing or the example failed.
        kept: number of entries kept per head, for each layer that attends to all earlier tokens, first layer first:
            one number for all heads of the cache or, where they differ, one for each.
        retention: mean of ``kept`` over heads, then layers, / ``compressed_tokens``, 0-1; 1 without such a layer.
        kept_bytes: bytes of the kept keys and values, those of layers with windows included.
        retention_bytes: ``kept_bytes`` / bytes of the full cache as transformers stores it (kv heads), in which layers
            with windows have what the window needs. It can be above 1, because a cache of query heads is larger.
        kept_sha256: hash of the kept indices of all layers and heads.
        tied_heads: number of (layer, head) pairs in which the cut fell between equal scores.
        alias_of: the cell whose row kept exactly the same entries and was decoded in place of this one's; None if this
            cell's own row was decoded.
        error: why there is no result; None if there is one.
        audit: the comparison with the row decoded again alone; None if it was not.
        context_tokens: tokens of the prompt's context, if entries were selected there, before the question, so that
            ``kept`` and what follows from it are of the context; None if they were selected after the whole prompt.
        bits: bits of memory for each number of a kept key or value, on average, if the storage packs them; None if they
            are stored as they are.
        samples: all answers that were drawn, each with its scores; ``tokens`` and ``text`` are the first one's, and
            ``scores`` has the means over all of them, and pass@k. Empty if the answer is greedy.
        evicted: what was held while decoding, of a method that evicts then; None of others, for which it grows by one
            entry with each token.
        partial: whether tokens and text are the beginning of an answer that a time limit ended, which is an error.
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
    kept: Kept = ()
    retention: Share | None = None
    kept_bytes: Count | None = None
    retention_bytes: Annotated[float, Meta(ge=0, le=LARGEST)] | None = None
    kept_sha256: str | None = None
    tied_heads: Count | None = None
    alias_of: str | None = None
    error: str | None = None
    audit: Audit | None = None
    context_tokens: Size | None = None
    bits: Annotated[float, Meta(gt=0, le=LARGEST)] | None = None
    samples: Sequence[Sample] = ()
    evicted: Evicted | None = None
    partial: bool = False

    @property
    def compressed_tokens(self) -> int | None:
        """Tokens among which entries were selected: of the context or of the prompt; None for an imported text."""
        return self.prompt_tokens if self.context_tokens is None else self.context_tokens

    @property
    def generated_tokens(self) -> int:
        """Number of generated tokens, of all answers together."""
        return sum(len(sample.tokens) for sample in self.samples) if self.samples else len(self.tokens)

    def to_json(self) -> dict[str, Any]:
        """The record as plain values that ``json`` can write; without later fields of this class if they are unused."""
        kept = [counts if isinstance(counts, int) else list(counts) for counts in self.kept]
        values = structs.asdict(self) | {"kept": kept, "audit": self.audit and structs.asdict(self.audit)}
        values["samples"] = [structs.asdict(sample) for sample in self.samples]
        values["evicted"] = self.evicted and structs.asdict(self.evicted)
        unused: dict[str, Any] = {"context_tokens": None, "bits": None, "samples": [], "evicted": None}
        unused["partial"] = False
        return {name: value for name, value in values.items() if name not in unused or value != unused[name]}


@dataclass(frozen=True)
class Cell:
    """One (method, storage, budget) of a task and a model.

    Attributes:
        label: the method's label, followed by that of a storage that packs: ``snapkv``, ``snapkv+kivi2``.
        budget: the budget as written: ``128``, ``12%``, ``full``.
    """

    label: Name
    budget: str

    @property
    def name(self) -> str:
        """The cell's folder name."""
        return f"{self.label}-{self.budget}"


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """The description of a cell, written before its first record.

    When a file is read, it is checked against the types and ranges of these fields.

    Attributes:
        cell: the cell.
        place: place of the cell's method among those of the task: tables have methods by the smallest place of their
            cells. (Earlier versions counted cells in place of methods, which gives the same order.)
        model: the model's name.
        task: the task's name.
        settings: everything that can change a number of the cell, and nothing else, as plain JSON values.
        metrics: the task's metrics, the headline first.
        heatmap_axes: see ``TaskResult``.
        note: see ``TaskResult``.
        task_config: the task's configuration, from which records can be scored again without the model.
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
    """The records of one cell.

    Attributes:
        cell: the cell.
        expected: number of examples that were asked for.
        records: records of the examples that are done, in the order of the examples.
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


def titled(name: str, model: str, after: str) -> str:
    """The title of results: a task or suite, the model and, unless it is the end of the prompt, the boundary.

    Args:
        name: the task's or the suite's name.
        model: the model's name.
        after: where entries were selected, after the ``prompt`` or after the ``context``.
    """
    return f"{name} on {model}" + ("" if after == "prompt" else f", compressed after the {after}")


@dataclass(frozen=True, eq=False)
class TaskResult:
    """The results of one task and one model, from which a report is made. It is equal to itself alone.

    Attributes:
        model: the model's name.
        task: the task's name.
        metrics: the task's metrics, the headline first; empty if it scores nothing.
        heatmap_axes: the two ``group`` keys (column, row) of a heatmap, or None.
        note: what a reader must know about the numbers, or "".
        cells: the cells in the order of the grid.
        breakdown: the ``group`` key for whose values a table shows separate scores, several with commas between, or
            None.
        published: number of examples behind published numbers of the task; None if there are none.
        knobs: names of the task's settings.
        after: where entries were selected, after the ``prompt`` or after the ``context``.
    """

    model: str
    task: str
    metrics: tuple[Metric, ...]
    heatmap_axes: tuple[str, str] | None
    note: str
    cells: tuple[CellResult, ...]
    breakdown: str | None
    published: int | None = None
    knobs: tuple[str, ...] = ()
    after: str = "prompt"

    @property
    def title(self) -> str:
        """What tables, plots and pages of it are called."""
        return titled(self.task, self.model, self.after)


@dataclass(frozen=True)
class SuiteResult:
    """The results of several tasks that are reported together.

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

    @property
    def title(self) -> str:
        """What tables, plots and pages of it are called."""
        return titled(self.suite, self.model, self.tasks[0].after)
