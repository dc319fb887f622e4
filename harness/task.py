"""The Task contract: what a benchmark tells the harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

from msgspec import Meta

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Task(Protocol):
    """A benchmark. Implementations are frozen dataclasses in ``tasks/``; their fields are their YAML.

    Attributes:
        name: the task's label: a folder below the model's results.
        metrics: what ``score`` returns, the headline metric first.
        max_new_tokens: generated tokens at most, 1 or more.
        min_new_tokens: stop tokens are impossible before this many tokens.
        needs_tokenizer: False for tasks whose prompts are token ids.
        heatmap_axes: the two ``Example.group`` keys (column, row) of a heatmap, or None.
        breakdown: the ``Example.group`` key by whose values scores are shown apart, or None.
    """

    @property
    def name(self) -> str: ...
    @property
    def metrics(self) -> tuple[Metric, ...]: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def min_new_tokens(self) -> int: ...
    @property
    def needs_tokenizer(self) -> bool: ...
    @property
    def heatmap_axes(self) -> tuple[str, str] | None: ...
    @property
    def breakdown(self) -> str | None: ...

    def settings(self) -> Mapping[str, Any]:
        """Everything that can change a number of an example with a given id, as plain JSON values.

        Data files go in by their hash. Which examples are asked for (lengths, depths, limit) stays out: more examples
        extend a cell, they do not change it.
        """
        ...

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """All examples, in a fixed order.

        Args:
            tokenizer: the model's; None only where ``needs_tokenizer`` is False.

        Raises:
            ConfigError: a setting that cannot be used.
            DataError: data that is missing, empty or malformed.
        """
        ...

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase | None, end_ids: frozenset[int]) -> frozenset[int]:
        """The tokens that end a generation, given all of the model's own end tokens."""
        ...

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """One value per metric for a generated text (special tokens removed, nothing stripped)."""
        ...


class Suite(Protocol):
    """Several tasks that are run with one model and reported together, as LongBench's datasets are.

    Attributes:
        name: label of the common report.
    """

    @property
    def name(self) -> str: ...

    def tasks(self) -> Sequence[Task]:
        """The tasks, in the order of the tables.

        Raises:
            ConfigError: a setting that cannot be used.
        """
        ...

    def ordered(self, names: Sequence[str]) -> Sequence[str]:
        """Names of tasks of this suite in the order of the tables, whether ``tasks()`` has them or not."""
        ...

    def averages(self, names: Sequence[str]) -> Sequence[Average]:
        """The means that tables show of these tasks."""
        ...


@runtime_checkable
class DataSource(Protocol):
    """A task or suite whose data can be fetched and looked through ahead of a run."""

    def cached(self) -> Path | None:
        """Where its published data lies on this machine, if it was fetched before."""
        ...

    def fetch(self) -> Path:
        """Where its published data lies on this machine, downloaded if need be.

        Raises:
            DataError: it cannot be had, or is not what was published.
        """
        ...

    def survey(self, path: Path) -> Sequence[DataFile]:
        """All of its files, as they are in a copy of the data.

        Raises:
            DataError: the copy as a whole cannot be read.
        """
        ...


@runtime_checkable
class Published(Protocol):
    """A task with a fixed set of examples, over which its published numbers go.

    Attributes:
        published_examples: how many.
    """

    @property
    def published_examples(self) -> int: ...


def published_examples(task: Task) -> int | None:
    """Number of examples that were published; None where that is no property of the task."""
    return task.published_examples if isinstance(task, Published) else None


@runtime_checkable
class Rescorable(Protocol):
    """A task whose texts can be scored in more than one way.

    Attributes:
        scoring_knobs: those of its settings that change scores and nothing that is generated.
    """

    @property
    def scoring_knobs(self) -> frozenset[str]: ...

    def score_settings(self) -> Mapping[str, Any]:
        """The part of ``settings()`` that can change the score of a given text."""
        ...


@runtime_checkable
class Importer(Protocol):
    """A task or suite that reads what other programs generated for it.

    Attributes:
        formats: names of the programs.
    """

    @property
    def formats(self) -> Sequence[str]: ...

    def predictions(self, path: Path, format: str) -> Sequence[Predictions]:
        """Every file of predictions at or below a path.

        Args:
            path: a file or a folder.
            format: one of ``formats``.

        Raises:
            DataError: there is none, or one is not of this format.
        """
        ...


Json = Mapping[str, Any]


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
        maximum: the largest value it can take, above 0; scores are stored on the scale that was published.
    """

    name: str
    title: str
    maximum: Annotated[float, Meta(gt=0, lt=2**53)]


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
