"""One task of RULER at one length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

from harness.errors import ConfigError
from harness.task import Example, Metric
from tasks.asking import TextTask
from tasks.prompting import Frame
from tasks.ruler.files import read_records
from tasks.ruler.fitting import NeverFits
from tasks.ruler.making import Sources, texts_of
from tasks.ruler.prompts import encode, frame_of, prompt_of
from tasks.ruler.recipe import ESSAY_TASKS, EXAMPLES, FORMS, QA_TASKS, kind_of
from tasks.ruler.records import Record, needles_of, record_id, records_hash, split
from tasks.ruler.scores import metric_of, score
from tasks.ruler.sources import ESSAYS_SHA256, documents_hash, documents_of, essay_words, essays_hash
from tasks.ruler.text import Undrawable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RulerTask(TextTask):
    """One task at one length; built by ``Ruler``, which describes the attributes that are not here.

    Attributes:
        name: label of the results.
        task: one of ``tasks.ruler.recipe.TASKS``.
        tokens: number of tokens of a text with its answer, at most.
        documents: file of documents and questions; None for other tasks than ``qa_1`` and ``qa_2``.
        new_tokens: limit of new tokens; None for RULER's.
    """

    name: str
    task: str
    tokens: int
    samples: int
    seed: int
    words: str
    essays: str | None
    documents: str | None
    data: str | None
    protocol: str
    newlines: str
    chat: bool | str
    chat_arguments: Mapping[str, Any]
    new_tokens: int | None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """RULER's metric of the task; 0-1 per example, while tables print 100 times the mean."""
        return (metric_of(self.task),)

    @property
    def max_new_tokens(self) -> int:
        """RULER's limit for the task, or the one that was set."""
        return self.new_tokens or FORMS[kind_of(self.task)].max_new_tokens

    @property
    def min_new_tokens(self) -> int:
        """0: an answer may be empty."""
        return 0

    @property
    def breakdown(self) -> str | None:
        """None: scores are not also reported by group."""
        return None

    @property
    def published_examples(self) -> int:
        """RULER's number of records."""
        return EXAMPLES

    @property
    def departures(self) -> str:
        """Another limit of new tokens than RULER's, or other essays."""
        parts = []
        if self.max_new_tokens != FORMS[kind_of(self.task)].max_new_tokens:
            parts.append(f"task.max_new_tokens={self.max_new_tokens}")
        if self._reads_essays and essays_hash(str(self.essays)) != ESSAYS_SHA256:
            parts.append("essays that are not RULER's")
        return f"Not as published: {' and '.join(parts)}." if parts else ""

    @property
    def scoring_knobs(self) -> frozenset[str]:
        """The setting that changes scores alone: ``newlines``."""
        return frozenset({"newlines"})

    def score_settings(self) -> dict[str, Any]:
        """The metric, and what becomes of line breaks if it is not as in RULER."""
        return {"metric": metric_of(self.task).name} | ({"newlines": "drop"} if self.newlines == "drop" else {})

    def settings(self) -> Mapping[str, Any]:
        """The settings that can change an example's numbers; essays, documents and records by their hashes.

        Raises:
            DataError: the essays, the documents or the records cannot be read.
        """
        made_of: dict[str, Any]
        if self.data is not None:
            made_of = {"data_sha256": records_hash(read_records(self.data, self.task, self.tokens))}
        else:
            made_of = {"seed": self.seed, "words": self.words}
            if self._reads_essays:
                made_of["essays_sha256"] = essays_hash(str(self.essays))
            if self.documents is not None:
                made_of["documents_sha256"] = documents_hash(QA_TASKS[self.task], self.documents)
        return (
            {"task": self.task, "tokens": self.tokens, "protocol": self.protocol, "chat": self.chat}
            | made_of
            | {"max_new_tokens": self.max_new_tokens}
            | ({"chat_arguments": dict(self.chat_arguments)} if self.chat else {})
            | self.score_settings()
        )

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per record, in the order in which they are made; its id tells its question and answers.

        Each is made and encoded when it is accessed, as is everything drawn before it.

        Raises:
            ConfigError: there is no tokenizer or no usable chat template, or no text fits the length.
            DataError: the essays, the documents or the records cannot be read.
        """
        if tokenizer is None:
            raise ConfigError(
                f"{self.name} counts lengths in tokens and got no tokenizer: use a model with a tokenizer"
            )
        frame = frame_of(self.protocol, self.chat, self.chat_arguments, tokenizer)
        if self.data is not None:
            records = read_records(self.data, self.task, self.tokens)
            return _Examples(self, iter(records), min(self.samples, len(records)), frame, tokenizer)
        sources = Sources(
            self.words,
            essay_words(str(self.essays)) if self._reads_essays else (),
            None if self.documents is None else documents_of(QA_TASKS[self.task], self.documents),
        )
        number = self.samples if sources.documents is None else min(self.samples, len(sources.documents.questions))
        return _Examples(self, self._made(sources, frame, tokenizer), number, frame, tokenizer)

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase | None, end_ids: frozenset[int]) -> frozenset[int]:
        """All end tokens of the model."""
        return end_ids

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """RULER's score of one response, 0-1."""
        (metric,) = self.metrics
        return {metric.name: score(self.task, text or "", example.references, self.newlines)}

    @property
    def _reads_essays(self) -> bool:
        return self.data is None and self.task in ESSAY_TASKS

    def _made(self, sources: Sources, frame: Frame | None, tokenizer: PreTrainedTokenizerBase) -> Iterator[Record]:
        """Records that are made, one after the other, without an end."""
        # The chat template takes its part of RULER's length; kvpress puts it around texts made without one.
        taken = 0
        if frame is not None and self.protocol == "official":
            taken = len(encode(frame.before, tokenizer)) + len(encode(frame.after, tokenizer))
        try:
            for text, _ in texts_of(
                self.task, self.tokens - taken, self.seed, sources, lambda text: len(encode(text, tokenizer))
            ):
                yield split(self.task, text.whole, text.answers)
        except NeverFits as error:
            shortest = "" if error.shortest is None else f" (the shortest takes {error.shortest + taken} tokens)"
            raise ConfigError(
                f"task.lengths has {self.tokens}, into which no text of {self.task} for record {error.index} fits"
                f"{shortest}, so that RULER's own program tries for ever: use longer ones, or leave {self.task} out of "
                "task.tasks"
            ) from error
        except Undrawable as error:
            raise ConfigError(
                f"{self.task} of {self.tokens} tokens cannot be made, as {error} while its size is sought, where "
                f"RULER's own program fails, too: use another task.seed or length, or leave {self.task} out of "
                "task.tasks"
            ) from error


class _Examples(Sequence[Example]):
    """Examples that are made and encoded when they are accessed, so that a trial run of two makes only two."""

    def __init__(
        self,
        task: RulerTask,
        records: Iterator[Record],
        number: int,
        frame: Frame | None,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._task, self._coming, self._number, self._frame, self._tokenizer = task, records, number, frame, tokenizer
        self._records: list[tuple[str, Record]] = []
        self._seen: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._number

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(self._number)[index]
        for record in islice(self._coming, max(0, place + 1 - len(self._records))):
            self._records.append((record_id(record.question, record.answers, self._seen), record))
        name, record = self._records[place]
        prompt, question_at = prompt_of(record, self._task.protocol, self._frame, self._tokenizer)
        passages = needles_of(record) if kind_of(self._task.task) == "niah" else ()
        return Example(id=name, prompt=prompt, references=record.answers, passages=passages, question_at=question_at)
