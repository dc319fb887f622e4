"""Your own data as a task: ``task=jsonl task.data=mine.jsonl``.

A record is a line: a context with a question, or with several that share it, and the acceptable answers; or a whole
prompt. Nothing is downloaded, and nothing of a file is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from harness.errors import ConfigError, DataError
from harness.task import Example, Metric
from tasks.asking import TextTask
from tasks.checks import short, whole
from tasks.own_data.data import Asked, Data, load
from tasks.own_data.draft import drafted
from tasks.own_data.fields import NAMES
from tasks.own_data.form import HISTORY, check_template, follow_up, written
from tasks.prompting import Chat, Frame, Rendered, check_chat, frame_of, line_break, without_middle
from tasks.scores.named import CHOICE, named_metrics, named_scores, named_settings, unscorable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TURN = "turn"
"""What conversations are grouped by: the place of a question among those of its record."""


@dataclass(frozen=True)
class OwnData(TextTask):
    """Records of a file of JSON lines. Every default is in ``conf/task/jsonl.yaml``.

    Attributes:
        name: label of the results.
        data: path of the file.
        fields: names of fields in the file, by field; None for the usual names. Dots lead into objects.
        template: the user's message, with ``{context}``, ``{question}`` and ``{choices}``.
        history: what a question of a record with several comes behind, one of ``tasks.own_data.form.HISTORY``.
        choice: what ``{choices}`` has of each choice, with ``{letter}`` and ``{choice}``.
        chat: whether prompts are put into the chat template: true, false, or ``auto`` where there is one.
        chat_arguments: arguments of the chat template.
        answer_prefix: the beginning of the answer, where a record has none of its own; None for "", or without a chat
            template "Answer:".
        before_answer: what stands before it without a chat template.
        scores: names of metrics, see ``tasks.scores.named``.
        show: the headline metric; None for the first.
        max_new_tokens: largest number of generated tokens; records may ask for less.
        min_new_tokens: number of tokens before which no end token can be generated.
        stop_at_newline: whether a line break also ends a generation.
        max_context_tokens: longer contexts lose their middle; None for no limit.
    """

    name: str
    data: str
    fields: Mapping[str, str | None]
    template: str
    history: str
    choice: str
    chat: Chat
    chat_arguments: Mapping[str, Any]
    answer_prefix: str | None
    before_answer: str
    scores: Sequence[str]
    show: str | None
    max_new_tokens: int
    min_new_tokens: int
    stop_at_newline: bool
    max_context_tokens: int | None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that ``scores`` names, the one to ``show`` first.

        Raises:
            ConfigError: a name is none of a metric.
        """
        return named_metrics(self.scores, self.show)

    @property
    def scoring_knobs(self) -> frozenset[str]:
        """The settings that change scores alone."""
        return frozenset({"scores", "show"})

    def score_settings(self) -> Mapping[str, Any]:
        """The metrics, and the version of jieba where it cuts words."""
        return named_settings([metric.name for metric in self.metrics])

    @property
    def breakdown(self) -> str | None:
        """The first name by which the records are grouped, or ``turn`` in conversations; None if they are not."""
        return self._data.group or (None if self.history == "none" else TURN)

    def settings(self) -> Mapping[str, Any]:
        """The settings that can change an example's numbers; the file is represented by its hash.

        Raises:
            ConfigError: a setting cannot be used.
            DataError: the file cannot be read, or a record is wrong.
        """
        self._check()
        return {
            "data_sha256": self._data.sha256,
            "fields": {field: name for field, name in self.fields.items() if name is not None},
            "template": self.template,
            **({} if self.history == "none" else {"history": self.history}),
            "choice": self.choice,
            "chat": self.chat,
            "chat_arguments": dict(self.chat_arguments) if self.chat else {},
            "answer_prefix": self.answer_prefix,
            "before_answer": self.before_answer,
            "max_new_tokens": self.max_new_tokens,
            "min_new_tokens": self.min_new_tokens,
            "stop_at_newline": self.stop_at_newline,
            "max_context_tokens": self.max_context_tokens,
            **self.score_settings(),
        }

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per question, in the order of the file.

        Each example is rendered when it is accessed.

        Args:
            tokenizer: the model's tokenizer.

        Raises:
            ConfigError: a setting cannot be used, or the chat template.
            DataError: the file cannot be read, or a record is wrong.
        """
        if tokenizer is None:
            raise ConfigError(f"{self.name} has texts and got no tokenizer: use a model with a tokenizer")
        self._check()
        return _Examples(self, self._data.asked, tokenizer, frame_of(self.chat, tokenizer, self.chat_arguments))

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase | None, end_ids: frozenset[int]) -> frozenset[int]:
        """The model's end tokens and, with ``stop_at_newline``, that of a line break."""
        return end_ids | {line_break(tokenizer)} if self.stop_at_newline and tokenizer is not None else end_ids

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """The scores of one text, each the best over the references."""
        names = [metric.name for metric in self.metrics]
        return named_scores(names, text or "", example.references, example.details.get("choices", ()))

    @staticmethod
    def drafted(path: Path) -> tuple[Mapping[str, Any], Sequence[str]]:
        """Settings that fit a file, and what was seen in it; see ``tasks.own_data.draft``."""
        return drafted(path)

    @property
    def _data(self) -> Data:
        return load(self.data, self.fields, scored=bool(self.scores))

    def _check(self) -> None:
        """Refuse settings and records that would fail later."""
        if not isinstance(self.fields, Mapping) or (unknown := set(self.fields) - set(NAMES)):
            wrong = next(iter(unknown)) if isinstance(self.fields, Mapping) else self.fields
            raise ConfigError(f"task.fields has {short(wrong)}: its fields are {', '.join(NAMES)}")
        for field, name in self.fields.items():
            if name is not None and not isinstance(name, str):
                raise ConfigError(f"task.fields.{field}={short(name)} is not a text: give the name of a field, or null")
        if self.history not in HISTORY:
            raise ConfigError(f"task.history={short(self.history)} is unknown: use one of {', '.join(HISTORY)}")
        check_template(self.template, self.history)
        check_chat(self.chat)
        for knob in ("choice", "before_answer", *(["answer_prefix"] if self.answer_prefix is not None else [])):
            if not isinstance(getattr(self, knob), str):
                raise ConfigError(f"task.{knob}={short(getattr(self, knob))} is not a text: give it one, in quotes")
        if not isinstance(self.chat_arguments, Mapping):
            raise ConfigError(f"task.chat_arguments={short(self.chat_arguments)} is not a mapping: use {{}}")
        whole(self.max_new_tokens, "task.max_new_tokens", 1)
        whole(self.min_new_tokens, "task.min_new_tokens", 0)
        if not isinstance(self.stop_at_newline, bool):
            raise ConfigError(f"task.stop_at_newline={short(self.stop_at_newline)} is neither true nor false: use one")
        if self.max_context_tokens is not None:
            whole(self.max_context_tokens, "task.max_context_tokens", 2)
        names = [metric.name for metric in self.metrics]
        for asked in self._data.asked:
            self._check_record(asked, names)

    def _check_record(self, asked: Asked, names: Sequence[str]) -> None:
        """Refuse a record that these settings cannot ask or score."""
        if asked.context is not None and not asked.question and "{question}" in self.template:
            raise DataError(
                f"{asked.where} has no question: give it one, or a task.template without {{question}}, as "
                '"{context}\\n\\nSummarise this text."'
            )
        if (asked.max_new_tokens or 0) > self.max_new_tokens:
            raise DataError(
                f"{asked.where} has max_new_tokens={asked.max_new_tokens}, above task.max_new_tokens="
                f"{self.max_new_tokens}: use task.max_new_tokens={asked.max_new_tokens}"
            )
        if self.history == "references" and not all(one.answers for one in asked.before):
            raise DataError(
                f"{asked.where} follows a question without answers: give them, or use task.history=own_answers"
            )
        if CHOICE in names and not asked.choices:
            raise DataError(
                f'{asked.where} has no choices, which the metric {CHOICE} needs: give "choices": ["…", "…"], or other '
                "task.scores"
            )
        for answer in asked.answers:
            if wrong := unscorable(names, answer, asked.choices):
                raise DataError(
                    f"{asked.where} has the answer {short(answer)}, which {wrong}: mend it, or use other task.scores"
                )


class _Examples(Sequence[Example]):
    """Examples that are rendered when they are accessed, so that a trial of two encodes no more."""

    def __init__(
        self, task: OwnData, asked: Sequence[Asked], tokenizer: PreTrainedTokenizerBase, frame: Frame | None
    ) -> None:
        self._task, self._asked, self._tokenizer, self._frame = task, asked, tokenizer, frame

    def __len__(self) -> int:
        return len(self._asked)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        asked, most = self._asked[index], self._task.max_context_tokens
        context, whole_tokens = asked.context, None
        group = asked.group if self._task.history == "none" else {**asked.group, TURN: asked.place}
        example = Example(
            id=asked.id,
            prompt="",
            references=asked.answers,
            group=group,
            details={"choices": list(asked.choices)} if asked.choices else {},
            max_new_tokens=asked.max_new_tokens,
        )
        if self._task.history == "own_answers" and asked.before:
            prompt = follow_up(self._task, asked, self._frame, self._tokenizer)
            return replace(example, prompt=prompt, follows=asked.before[-1].id)
        if most is not None and context is not None:
            whole_tokens = len(self._ids(self._written(asked, context).prompt))
            ids = self._ids(context, special=False)
            context = context if len(ids) <= most else without_middle(ids, self._tokenizer, most)
        rendered = self._written(asked, context)
        return replace(
            example,
            prompt=rendered.prompt,
            question_at=rendered.question_at,
            tokens_before_truncation=whole_tokens,
        )

    def _written(self, asked: Asked, context: str | None) -> Rendered:
        return written(self._task, asked, self._frame, self._tokenizer, context)

    def _ids(self, prompt: str | tuple[int, ...], special: bool = True) -> Sequence[int]:
        if not isinstance(prompt, str):
            return prompt
        return list(self._tokenizer.encode(prompt, add_special_tokens=special, verbose=False))
