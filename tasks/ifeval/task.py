"""IFEval as a task: prompts with instructions, each verified by rule, strictly and loosely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, DataError
from harness.task import OUTPUT_TOKENS, DataFile, Example, Metric
from tasks.asking import TextTask
from tasks.checks import short, whole
from tasks.ifeval.data import NAMES, RECORDS, SOURCE, Asked, digest, load
from tasks.ifeval.language import PACKAGES, check_installed
from tasks.ifeval.rules import follows, follows_loosely
from tasks.prompting import Chat, check_chat, frame_of, rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KIND = "kind"
_COUNT = "instructions"


@dataclass(frozen=True)
class IFEval(TextTask):
    """IFEval. Every default is in ``conf/task/ifeval.yaml``.

    Attributes:
        name: label of the results.
        data: the official file, or a folder with it; None for the hub's cache or, failing that, the hub.
        chat: whether the prompt is put into the tokenizer's chat template; ``auto`` or None: if there is one.
        chat_arguments: arguments of the chat template.
        max_new_tokens: largest number of generated tokens.
        min_new_tokens: number of tokens before which no end token can be generated.
    """

    name: str
    data: str | None
    chat: Chat | None
    chat_arguments: Mapping[str, Any]
    max_new_tokens: int
    min_new_tokens: int

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The four published means and the number of generated tokens.

        Of a prompt all instructions must be followed; means over instructions weigh a prompt by their number.
        """
        return (
            Metric("prompt_strict", "prompts, strict", 1.0),
            Metric("instruction_strict", "instructions, strict", 1.0, weight=_COUNT),
            Metric("prompt_loose", "prompts, loose", 1.0),
            Metric("instruction_loose", "instructions, loose", 1.0, weight=_COUNT),
            Metric(OUTPUT_TOKENS, "output tokens", float(whole(self.max_new_tokens, "task.max_new_tokens", 1))),
        )

    @property
    def breakdown(self) -> str | None:
        """The kind of instruction, verified strictly."""
        return _KIND

    @property
    def published_examples(self) -> int:
        """Number of prompts that were published."""
        return RECORDS

    def settings(self) -> Mapping[str, Any]:
        """The settings that can change an example's numbers; the data is represented by its hash.

        Raises:
            ConfigError: a setting cannot be used, or a package is not installed.
            DataError: the data cannot be read.
        """
        check_installed(self.name)
        whole(self.min_new_tokens, "task.min_new_tokens", 0)
        if not isinstance(self.chat_arguments, Mapping):
            raise ConfigError(
                f"task.chat_arguments={short(self.chat_arguments)} is not a mapping: use {{}} or "
                "{enable_thinking: false}"
            )
        return (
            {
                "data_sha256": digest(self._asked()),
                "chat": self._chat,
                "max_new_tokens": whole(self.max_new_tokens, "task.max_new_tokens", 1),
                "min_new_tokens": self.min_new_tokens,
            }
            | {package: version(package) for package in PACKAGES}
            | ({"chat_arguments": dict(self.chat_arguments)} if self._chat else {})
        )

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per prompt, in the order of the file, with its key as the id.

        Args:
            tokenizer: the model's tokenizer.

        Raises:
            ConfigError: there is no tokenizer, or it lacks a usable chat template and one is needed.
            DataError: the data is missing or malformed.
        """
        if tokenizer is None:
            raise ConfigError(f"{self.name} asks in words and got no tokenizer: use a model with a tokenizer")
        frame = frame_of(self._chat, tokenizer, self.chat_arguments)
        return [
            Example(
                id=str(one.key),
                # There is no context apart from the question, so nothing says where one ends.
                prompt=rendered("", one.prompt, "", frame, tokenizer).prompt,
                details={_COUNT: [[kind, dict(arguments)] for kind, arguments in one.instructions]},
            )
            for one in self._asked()
        ]

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase | None, end_ids: frozenset[int]) -> frozenset[int]:
        """All end tokens of the model."""
        return end_ids

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """The four scores, 0-1; the number of instructions; for each kind the share that was followed strictly."""
        instructions = example.details[_COUNT]
        strict = [follows(text or "", kind, arguments) for kind, arguments in instructions]
        loose = [follows_loosely(text or "", kind, arguments) for kind, arguments in instructions]
        by_kind: dict[str, list[bool]] = {}
        for (kind, _), followed in zip(instructions, strict, strict=True):
            by_kind.setdefault(kind, []).append(followed)
        return {
            "prompt_strict": float(all(strict)),
            "instruction_strict": sum(strict) / len(strict),
            "prompt_loose": float(all(loose)),
            "instruction_loose": sum(loose) / len(loose),
            _COUNT: len(instructions),
            **{f"{_KIND}:{kind}": sum(verdicts) / len(verdicts) for kind, verdicts in by_kind.items()},
        }

    def cached(self) -> Path | None:
        """The path of the official file in the hub's cache; None if it is not there."""
        return SOURCE.hub.cached() if SOURCE.hub is not None else None

    def fetch(self) -> Path:
        """The path of the official file, from the hub's cache or the hub.

        Raises:
            DataError: it cannot be downloaded.
        """
        return SOURCE.locate(None)

    def survey(self, path: Path) -> list[DataFile]:
        """The state of the file; a number of prompts other than the published one is a problem, too."""
        name = path.name if path.is_file() else NAMES[0]
        try:
            found = len(load(path))
        except DataError as error:
            return [DataFile(name, RECORDS, None, str(error))]
        problem = None if found == RECORDS else f"{name} has {found} prompts, {RECORDS} were published"
        return [DataFile(name, RECORDS, found, problem)]

    @property
    def _chat(self) -> Chat:
        return check_chat("auto" if self.chat is None else self.chat)

    def _asked(self) -> list[Asked]:
        if self.data is not None and not isinstance(self.data, str):
            raise ConfigError(f"task.data={short(self.data)} is not a path: give a file, a folder, or null for the hub")
        return load(SOURCE.locate(self.data))
