"""The Task contract and its values: examples, metrics, averages, data files, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Task(Protocol):
    """A benchmark. Implementations are frozen dataclasses in ``tasks/``; their fields are their YAML."""

    @property
    def name(self) -> str:
        """The task's name, which is also its folder in the model's results."""
        ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that ``score`` returns, the headline metric first."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """Largest number of generated tokens, 1 or more."""
        ...

    @property
    def min_new_tokens(self) -> int:
        """No stop token can be generated before this many tokens, 0 or more."""
        ...

    @property
    def needs_tokenizer(self) -> bool:
        """False for a task whose prompts are token ids."""
        ...

    @property
    def heatmap_axes(self) -> tuple[str, str] | None:
        """The two ``Example.group`` keys (column, row) of a heatmap, or None."""
        ...

    @property
    def breakdown(self) -> str | None:
        """The ``Example.group`` key for whose values tables show separate scores; several with commas; or None.

        Scores named ``<key>:<value>`` are shown likewise, over the examples that have them: of parts of an example.
        """
        ...

    def settings(self) -> Mapping[str, Any]:
        """Everything that can change a number of an example with a given id, as plain JSON values.

        Data files are represented by their hash. Settings that choose examples (lengths, depths, limit) are left out,
        because more examples extend a cell without changing it.
        """
        ...

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """All examples, in a fixed order.

        Args:
            tokenizer: the model's tokenizer; None only if ``needs_tokenizer`` is False.

        Raises:
            ConfigError: a setting cannot be used.
            DataError: data is missing, empty or malformed.
        """
        ...

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase | None, end_ids: frozenset[int]) -> frozenset[int]:
        """The tokens that end a generation.

        Args:
            tokenizer: the model's tokenizer; None only if ``needs_tokenizer`` is False.
            end_ids: all end tokens of the model.
        """
        ...

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """Score a generated text, with one value per metric but ``OUTPUT_TOKENS``.

        Args:
            example: the example.
            text: the text, with special tokens removed and nothing stripped; None if there is no tokenizer.
        """
        ...


class Suite(Protocol):
    """Several tasks that are run with one model and reported together, like LongBench's datasets."""

    @property
    def name(self) -> str:
        """The suite's name, under which the tasks are reported together."""
        ...

    def tasks(self) -> Sequence[Task]:
        """The tasks, in the order of the tables.

        Raises:
            ConfigError: a setting cannot be used.
        """
        ...

    def ordered(self, names: Sequence[str]) -> Sequence[str]:
        """Sort names of this suite's tasks into the order of the tables, whether ``tasks()`` has them or not."""
        ...

    def averages(self, names: Sequence[str]) -> Sequence[Average]:
        """The averages that tables show of these tasks."""
        ...


@runtime_checkable
class DataSource(Protocol):
    """A task or suite whose data can be fetched and checked ahead of a run."""

    def cached(self) -> Path | None:
        """The path of its published data on this machine; None if it was not fetched."""
        ...

    def fetch(self) -> Path:
        """The path of its published data on this machine, downloaded if need be.

        Raises:
            DataError: the data cannot be downloaded, or is not what was published.
        """
        ...

    def survey(self, path: Path) -> Sequence[DataFile]:
        """Check all of its files in a copy of the data.

        Raises:
            DataError: the copy as a whole cannot be read.
        """
        ...


@runtime_checkable
class Published(Protocol):
    """A task whose published numbers are over a fixed set of examples."""

    @property
    def published_examples(self) -> int:
        """Number of these examples."""
        ...


def published_examples(task: Task) -> int | None:
    """Number of examples behind a task's published numbers; None if the set is not fixed."""
    return task.published_examples if isinstance(task, Published) else None


@runtime_checkable
class Departing(Protocol):
    """A task that can be run in another way than it was published."""

    @property
    def departures(self) -> str:
        """What is not as published, in one sentence for the notes under tables; "" if nothing."""


@runtime_checkable
class Rescorable(Protocol):
    """A task whose texts can be scored in more than one way."""

    @property
    def scoring_knobs(self) -> frozenset[str]:
        """Names of the settings that change scores but not what is generated."""
        ...

    def score_settings(self) -> Mapping[str, Any]:
        """The part of ``settings()`` that can change the score of a given text."""
        ...


@runtime_checkable
class Importer(Protocol):
    """A task or suite that can read texts that other programs generated for it."""

    @property
    def formats(self) -> Sequence[str]:
        """Names of the file formats that it can read."""
        ...

    def predictions(self, path: Path, format: str, doubled: str | None = None) -> Sequence[Predictions]:
        """Read every file of predictions at or below a path.

        Args:
            path: a file or a folder.
            format: one of ``formats``.
            doubled: which predictions to take for a record that has several in one file: the ``first``, the ``last``
                or ``all``; None to refuse the file, as well as one with more predictions than there are records.

        Raises:
            DataError: there is no such file, one is not of this format, or it holds a record twice.
        """
        ...


Json = Mapping[str, Any]
OUTPUT_TOKENS = "output_tokens"
"""Name of a metric that the harness fills in for any task that has it: the number of generated tokens, the end token
among them."""


@dataclass(frozen=True)
class Example:
    """One prompt with its references.

    Attributes:
        id: identifies the example within its task, also in later runs that resume.
        prompt: a text, or token ids that are used as they are.
        references: acceptable answers.
        group: what tables and plots group the example by: ``{"length": 4000, "depth": 44}``.
        details: what scoring needs besides the references, as plain JSON values.
        tokens_before_truncation: length of the prompt before the task cut it; None if the task cuts nothing.
        passages: parts of the prompt that a reader looks for, such as a needle and what stands around it.
        question_at: where the context ends and the question begins, as an offset into the prompt: in characters, or in
            tokens if the prompt is token ids. Everything from there on (the end of a chat turn, the beginning of the
            answer) belongs to the question. None if no such place is known. Examples with the same context, up to
            there, share it.
        max_new_tokens: the example's own limit of generated tokens, below the task's; None for the task's.
        follows: id of the example before it in a conversation, whose context, questions and own answers stay in the
            cache. Then ``prompt`` is what runs through it behind the last answer, without that answer's end token: what
            ends a turn, the next question, and the beginning of its answer. None for an example without a past.
    """

    id: str
    prompt: str | tuple[int, ...]
    references: tuple[str, ...] = ()
    group: Mapping[str, float | int | str] = field(default_factory=dict)
    details: Json = field(default_factory=dict)
    tokens_before_truncation: int | None = None
    passages: tuple[str, ...] = ()
    question_at: int | None = None
    max_new_tokens: int | None = None
    follows: str | None = None


class Metric(Struct, frozen=True, omit_defaults=True):
    """A score of one example.

    Attributes:
        name: its key in ``Record.scores``.
        title: its name in tables and plots.
        maximum: the largest possible value, above 0; scores are stored on the scale that was published.
        weight: key in ``Record.scores`` of what an example weighs in the mean, such as its number of instructions; None
            if all weigh the same, as they do for a headline metric.
    """

    name: str
    title: str
    maximum: Annotated[float, Meta(gt=0, lt=2**53)]
    weight: str | None = None


@dataclass(frozen=True)
class Average:
    """An average of the headline scores of several tasks: the mean of the means of groups of tasks.

    Attributes:
        title: its name in tables.
        groups: the task names of each group; a plain average of tasks has groups of one.
    """

    title: str
    groups: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class DataFile:
    """The state of one of a task's data files.

    Attributes:
        name: the file's name.
        expected: number of records that were published.
        found: number of records in the file; None if there is no file or it cannot be read.
        problem: what is wrong with the file, in one line; None if nothing is, or there is no file.
    """

    name: str
    expected: int
    found: int | None
    problem: str | None


@dataclass(frozen=True)
class Predictions:
    """One file of texts that another program generated for a task.

    Attributes:
        file: the file.
        sha256: hash of the file.
        task: the task's name.
        config: changes to the task's configuration that make it this task.
        settings: everything that can change a score of these texts, as plain JSON values.
        model: the model's name if the path tells it, else None.
        label: the method's label if the path tells it, else None.
        budget: the budget if the path tells it, else None.
        rows: examples without their prompts, each with its text.
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
