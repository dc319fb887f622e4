"""A mathematical benchmark as a task: problems in the field's usual prompt, answers compared by math-verify."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, DataError
from harness.task import OUTPUT_TOKENS, DataFile, Example, Metric
from tasks.asking import TextTask
from tasks.checks import is_list, short, whole
from tasks.maths.answers import BOX, last_boxed, without_thinking
from tasks.maths.data import Benchmark, Problem, benchmark, digest, load
from tasks.maths.judge import JUDGE, check_installed
from tasks.maths.prompts import SLOT, template
from tasks.prompting import Chat, check_chat, frame_of, rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXTRACTIONS = ("boxed", "math_verify")
"""Where an answer is looked for: in the last box, or wherever math-verify looks in the whole text."""


@dataclass(frozen=True)
class Maths(TextTask):
    """MATH-500, GSM8K or AIME 2024. Every default is in ``conf/task/math500.yaml``.

    Attributes:
        name: label of the results.
        benchmark: ``math500``, ``gsm8k`` or ``aime24``.
        data: its file, or a folder with it; None for the hub's cache or, failing that, the hub.
        prompt: ``reason``, ``rkv``, or a text with ``{problem}`` in it.
        chat: whether the prompt is put into the tokenizer's chat template; ``auto`` or None: if there is one.
        chat_arguments: arguments of the chat template.
        thinking: the tags before and behind what a model thinks, which is no part of its answer; None for none.
        extraction: one of ``EXTRACTIONS``.
        max_new_tokens: largest number of generated tokens.
        min_new_tokens: number of tokens before which no end token can be generated.
    """

    name: str
    benchmark: str
    data: str | None
    prompt: str
    chat: Chat | None
    chat_arguments: Mapping[str, Any]
    thinking: Sequence[str] | None
    extraction: str
    max_new_tokens: int
    min_new_tokens: int

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Whether the answer is right, 0 or 1, and the number of generated tokens."""
        return (
            Metric("correct", "accuracy", 1.0),
            Metric(OUTPUT_TOKENS, "output tokens", float(whole(self.max_new_tokens, "task.max_new_tokens", 1))),
        )

    @property
    def breakdown(self) -> str | None:
        """The level of the problem, 1 to 5, for MATH-500; None for the others."""
        return "level" if "level" in self._benchmark.fields else None

    @property
    def published_examples(self) -> int:
        """Number of problems that were published."""
        return self._benchmark.records

    def settings(self) -> Mapping[str, Any]:
        """The settings that can change an example's numbers; data and prompt are represented by their hashes.

        Raises:
            ConfigError: a setting cannot be used, or math-verify is not installed.
            DataError: the data cannot be read.
        """
        whole(self.min_new_tokens, "task.min_new_tokens", 0)
        chat = self._chat
        if not isinstance(self.chat_arguments, Mapping):
            raise ConfigError(
                f"task.chat_arguments={short(self.chat_arguments)} is not a mapping: use {{}} or "
                "{enable_thinking: false}"
            )
        return (
            {
                "benchmark": self.benchmark,
                "data_sha256": digest(self._problems()),
                "prompt_sha256": hashlib.sha256(template(self.prompt).encode()).hexdigest(),
                "chat": chat,
                "max_new_tokens": whole(self.max_new_tokens, "task.max_new_tokens", 1),
                "min_new_tokens": self.min_new_tokens,
            }
            | ({"chat_arguments": dict(self.chat_arguments)} if chat else {})
            | self.score_settings()
        )

    @property
    def scoring_knobs(self) -> frozenset[str]:
        """The settings that change scores alone."""
        return frozenset({"thinking", "extraction"})

    def score_settings(self) -> dict[str, Any]:
        """The settings that can change the score of a given text, the version of math-verify among them.

        Raises:
            ConfigError: a setting cannot be used, or math-verify is not installed.
        """
        if self.extraction not in EXTRACTIONS:
            raise ConfigError(
                f"task.extraction={short(self.extraction)} is unknown: use one of {', '.join(EXTRACTIONS)}"
            )
        check_installed(self.name)
        tags = self._tags
        return {
            "extraction": self.extraction,
            "thinking": None if tags is None else list(tags),
            "math_verify": version("math-verify"),
        }

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per problem, in the order of the file.

        Args:
            tokenizer: the model's tokenizer.

        Raises:
            ConfigError: there is no tokenizer, or it lacks a usable chat template and one is needed.
            DataError: the data is missing or malformed.
        """
        if tokenizer is None:
            raise ConfigError(f"{self.name} asks in words and got no tokenizer: use a model with a tokenizer")
        frame = frame_of(self._chat, tokenizer, self.chat_arguments)
        before, behind = template(self.prompt).split(SLOT)
        return [
            Example(
                id=problem.id,
                # There is no context apart from the question, so nothing says where one ends.
                prompt=rendered("", before + problem.text + behind, "", frame, tokenizer).prompt,
                references=(problem.answer,),
                group=problem.group,
            )
            for problem in self._problems()
        ]

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase | None, end_ids: frozenset[int]) -> frozenset[int]:
        """All end tokens of the model."""
        return end_ids

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """1 if math-verify finds the reference in the answer, else 0; the harness counts the tokens."""
        answer = without_thinking(text or "", self._tags)
        if self.extraction == "boxed" and (box := last_boxed(answer)) is not None:
            answer = f"{BOX}{box.rstrip('.')}}}"  # "\boxed{4.}" ends a sentence
        return {"correct": float(bool(answer.strip()) and JUDGE.same(example.references[0], answer))}

    def cached(self) -> Path | None:
        """The path of the benchmark's file in the hub's cache; None if it is not there."""
        hub = self._benchmark.source.hub
        return hub.cached() if hub is not None else None

    def fetch(self) -> Path:
        """The path of the benchmark's file, from the hub's cache or the hub.

        Raises:
            DataError: it cannot be downloaded, or is not the pinned file.
        """
        return self._benchmark.source.locate(None)

    def survey(self, path: Path) -> list[DataFile]:
        """The state of the file; a number of problems other than the published one is a problem, too."""
        of = self._benchmark
        name = path.name if path.is_file() else of.files[0]
        try:
            found = len(load(of, path))
        except DataError as error:
            return [DataFile(name, of.records, None, str(error))]
        problem = None if found == of.records else f"{name} has {found} problems, {of.records} were published"
        return [DataFile(name, of.records, found, problem)]

    @property
    def _benchmark(self) -> Benchmark:
        return benchmark(self.benchmark)

    @property
    def _chat(self) -> Chat:
        return check_chat("auto" if self.chat is None else self.chat)

    @property
    def _tags(self) -> tuple[str, str] | None:
        tags = self.thinking
        if tags is None:
            return None
        if not is_list(tags) or len(tags) != 2 or not all(isinstance(tag, str) and tag for tag in tags):
            raise ConfigError(
                f"task.thinking={short(tags)} is not two tags: use task.thinking=['<think>','</think>'] or null"
            )
        return str(tags[0]), str(tags[1])

    def _problems(self) -> list[Problem]:
        of = self._benchmark
        if self.data is not None and not isinstance(self.data, str):
            raise ConfigError(f"task.data={short(self.data)} is not a path: give a file, a folder, or null for the hub")
        return load(of, of.source.locate(self.data))
