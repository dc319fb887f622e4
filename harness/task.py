"""The Task contract: what a benchmark tells the harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from harness.results import Average, DataFile, Example, Metric, Predictions

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
