"""One dataset of LongBench as a task: prompts, end tokens and scores under one protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.task import Example, Json, Metric
from tasks.asking import Lazy, TextTask
from tasks.longbench.data import RECORDS, RECORDS_E, load
from tasks.longbench.files import SOURCE
from tasks.longbench.metrics import METRIC_OF, Scoring, bucket
from tasks.longbench.protocols import Protocol
from tasks.longbench.templates import MAX_NEW_TOKENS, TEMPLATES, split
from tasks.prompting import Chat, Frame, cleans_up, fit, frame_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LongBenchTask(TextTask):
    """One dataset under one protocol; built by ``LongBench``.

    Attributes:
        name: label of the results.
        dataset: name of the dataset in LongBench, with ``_e`` for LongBench-E.
        asked: all datasets that are asked for together, so that an error names all that are missing.
        data: see ``LongBench``.
        protocol: see ``LongBench``.
        max_prompt_tokens: the limit beyond which prompts lose their middle, 2 or more.
        chat: whether this dataset's prompts are put into the chat template; ``auto``: if there is one.
        chat_arguments: see ``LongBench``.
        new_tokens: limit of new tokens; None for the one that was published.
        clean_up: see ``LongBench``.
        scoring: how predictions are scored.
    """

    name: str
    dataset: str
    asked: tuple[str, ...]
    data: str | None
    protocol: Protocol
    max_prompt_tokens: int
    chat: Chat
    chat_arguments: Mapping[str, Any]
    new_tokens: int | None
    clean_up: str
    scoring: Scoring

    @property
    def base(self) -> str:
        """The dataset of LongBench from which this one takes its prompt, limits and metric."""
        return self.dataset.removesuffix("_e")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """LongBench's own metric first; 0-1 per example, while tables print 100 times the mean."""
        return self.scoring.metrics(self.dataset)

    @property
    def max_new_tokens(self) -> int:
        """The limit published for the dataset, or the one that was set."""
        return self.new_tokens or MAX_NEW_TOKENS[self.base]

    @property
    def departures(self) -> str:
        """Another limit of new tokens than the published one."""
        if self.max_new_tokens == MAX_NEW_TOKENS[self.base]:
            return ""
        return f"Not as published: task.max_new_tokens={self.max_new_tokens}."

    @property
    def min_new_tokens(self) -> int:
        """1 if the protocol forbids an empty answer for this dataset, else 0."""
        return int(self.base in self.protocol.one_token_at_least)

    @property
    def breakdown(self) -> str | None:
        """``bucket`` for LongBench-E, whose scores are published by length of the record; None for LongBench."""
        return "bucket" if self.dataset.endswith("_e") else None

    def settings(self) -> Mapping[str, Any]:
        """The settings that can change an example's numbers.

        Data and prompt are represented by their hashes, the protocol by its consequences for this dataset.

        Raises:
            DataError: the data cannot be read.
        """
        return (
            {
                "dataset": self.dataset,
                "data_sha256": load(SOURCE.locate(self.data), self.dataset, self.asked).sha256,
                "template_sha256": hashlib.sha256(TEMPLATES[self.base].encode()).hexdigest(),
                "max_prompt_tokens": self.max_prompt_tokens,
                "chat": self.chat,
                "all_end_tokens": self.protocol.all_end_tokens,
                "newline_ends": self.base in self.protocol.newline_ends,
                "max_new_tokens": self.max_new_tokens,
                "min_new_tokens": self.min_new_tokens,
            }
            | ({"chat_arguments": dict(self.chat_arguments)} if self.chat else {})
            | self.score_settings()
        )

    @property
    def published_examples(self) -> int:
        """The number of records published for the dataset."""
        return {**RECORDS, **RECORDS_E}[self.dataset]

    @property
    def scoring_knobs(self) -> frozenset[str]:
        """The settings that change scores alone: the fields of ``Scoring``, which are settings of ``LongBench``."""
        return frozenset(field.name for field in fields(Scoring))

    def score_settings(self) -> dict[str, Any]:
        """The settings that can change the score of a given text."""
        metric = METRIC_OF[self.base]
        return (
            {"metrics": [metric.name for metric in self.metrics]}
            | ({"official_zero": self.scoring.official_zero} if metric.startswith("rouge_l") else {})
            | ({"jieba": version("jieba")} if metric in ("qa_f1_zh", "rouge_l_zh") else {})
        )

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per record, in the order of the file, with the record's ``_id`` as its id.

        Each example is encoded when it is accessed.

        Args:
            tokenizer: the model's tokenizer.

        Raises:
            ConfigError: there is no tokenizer, or it lacks a usable chat template and one is needed.
            DataError: the data is missing, damaged or malformed.
        """
        if tokenizer is None:
            raise ConfigError(
                f"{self.name} counts prompts in tokens and got no tokenizer: use a model with a tokenizer"
            )
        frame = frame_of(self.chat, tokenizer, self.chat_arguments)
        rows = load(SOURCE.locate(self.data), self.dataset, self.asked).rows
        # The official code scores a whole file by the classes of its last record.
        details = {"all_classes": rows[-1]["all_classes"]} if METRIC_OF[self.base] == "classification" else {}
        return Lazy(len(rows), lambda index: self._example(rows[index], frame, details, tokenizer))

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase | None, end_ids: frozenset[int]) -> frozenset[int]:
        """The ids that end a generation under the protocol.

        They are the model's own end tokens or only the tokenizer's, plus the last token of a line break for some
        datasets.

        Raises:
            ConfigError: the tokenizer lacks the token that the protocol needs.
        """
        if tokenizer is None:
            return end_ids
        stops = end_ids
        if not self.protocol.all_end_tokens:
            if tokenizer.eos_token_id is None:
                raise ConfigError(
                    "task.protocol ends at the tokenizer's one end token, and it has none: use "
                    "task.protocol=kvcache_factory"
                )
            stops = frozenset({int(tokenizer.eos_token_id)})
        if self.base not in self.protocol.newline_ends:
            return stops
        newline = tokenizer.encode("\n", add_special_tokens=False)
        if not newline:
            raise ConfigError(
                f"{self.dataset} ends at a line break, and the tokenizer has no token for it: leave it out of "
                "task.datasets"
            )
        return stops | {newline[-1]}

    def cleans_up(self, tokenizer: PreTrainedTokenizerBase) -> bool | None:
        """Whether spaces of prompts that were cut and of generated texts are cleaned up."""
        return cleans_up(self.clean_up, tokenizer)

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """LongBench's score of one prediction, 0-1, the best over the references, and any additional scores."""
        return self.scoring.scores(
            self.dataset, text or "", example.references, example.details.get("all_classes") or ()
        )

    def _example(
        self, row: Mapping[str, Any], frame: Frame | None, details: Json, tokenizer: PreTrainedTokenizerBase
    ) -> Example:
        parts = split(self.dataset, row["context"], row["input"])
        limit, context = self.max_prompt_tokens, len(parts.context)
        fitted = fit("".join(parts), tokenizer, limit, frame, self.cleans_up(tokenizer), context)
        return Example(
            id=row["_id"],
            prompt=fitted.ids,
            references=tuple(row["answers"]),
            group={"length": row["length"], "bucket": bucket(row["length"])},
            tokens_before_truncation=fitted.tokens_before_truncation,
            details=details,
            question_at=fitted.question_at,
        )
