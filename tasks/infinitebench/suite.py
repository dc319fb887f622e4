"""InfiniteBench: twelve tasks on contexts of about 100k tokens, with the official prompts and scores.

Paper: InfiniteBench, Zhang et al., https://arxiv.org/abs/2402.13718; code https://github.com/OpenBMB/InfiniteBench
(MIT), data https://huggingface.co/datasets/xinrongzhang2022/InfiniteBench. Prompts are in ``prompts.py`` beside this
file, scores in ``scores.py``, the records of six tasks that can be generated in ``generate.py``.

Differs:
    - The template ``gpt4`` of ``math_calc`` is the expression alone; the official code has the instruction in a message
      before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, DataError
from harness.task import Average, Example, Metric
from tasks.asking import Form, FormedTask, Lazy, choose
from tasks.checks import is_whole, short, whole
from tasks.files import Source
from tasks.infinitebench.generate import GENERATORS, generate
from tasks.infinitebench.prompts import KINDS, MAX_NEW_TOKENS, fill, templates
from tasks.infinitebench.scores import METRICS, label_of, score
from tasks.jsonl import TEXT, TEXTS, Kind
from tasks.prompting import Chat
from tasks.records import Records, Row, parse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECORDS: Mapping[str, int] = {
    "passkey": 590, "number_string": 590, "kv_retrieval": 500, "longbook_sum_eng": 103, "longbook_choice_eng": 229,
    "longbook_qa_eng": 351, "longbook_qa_chn": 175, "longdialogue_qa_eng": 200, "math_find": 350, "math_calc": 50,
    "code_run": 400, "code_debug": 394,
}  # fmt: skip
"""Published number of records of each task; later files of ``longbook_qa_chn`` have 189."""
REMEDY = (
    "use InfiniteBench's own .jsonl files, from https://huggingface.co/datasets/xinrongzhang2022/InfiniteBench, or "
    f"task.datasets=[{','.join(GENERATORS)}], which are generated"
)
SOURCE = Source(REMEDY)
FIELDS: Mapping[str, Kind] = {
    "id": Kind(int | str, "a number or a text"),
    "context": TEXT,
    "input": TEXT,
    "answer": Kind(str | int | float | list[Any], "a text, a number or a list"),
    "options": TEXTS,
}


@dataclass(frozen=True)
class InfiniteBenchTask(FormedTask):
    """One task; built by ``InfiniteBench``.

    Attributes:
        name: label of the results.
        dataset: name of the task in InfiniteBench.
        asked: all that are asked for together, so that an error names all whose files are missing.
        data: see ``InfiniteBench``.
        template: see ``InfiniteBench``.
        form: how a text becomes a prompt.
        new_tokens: limit of new tokens; None for the published one.
        seed: see ``InfiniteBench``.
        share: see ``InfiniteBench``.
    """

    name: str
    dataset: str
    asked: tuple[str, ...]
    data: str | None
    template: str
    form: Form
    new_tokens: int | None
    seed: int
    share: float

    def prompt_form(self) -> Form:
        """How a text becomes a prompt."""
        return self.form

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The official metric of the task."""
        return (Metric("score", METRICS[self.dataset], 1.0),)

    @property
    def max_new_tokens(self) -> int:
        """The limit published for the task, or the one that was set."""
        return self.new_tokens or MAX_NEW_TOKENS[self.dataset]

    @property
    def published_examples(self) -> int:
        """The number of records published for the task."""
        return RECORDS[self.dataset]

    @property
    def generated(self) -> bool:
        """Whether the records are generated."""
        return self.data is None and self.dataset in GENERATORS

    @property
    def departures(self) -> str:
        """Generated records, or another limit of new tokens."""
        notes = [f"records are generated, of {self.share:g} of the published size"] if self.generated else []
        if self.max_new_tokens != MAX_NEW_TOKENS[self.dataset]:
            notes.append(f"task.max_new_tokens={self.max_new_tokens}")
        return f"Not as published: {'; '.join(notes)}." if notes else ""

    def settings(self) -> Mapping[str, Any]:
        """The settings that can change an example's numbers; data and prompt are represented by their hashes.

        Raises:
            DataError: the data cannot be read.
        """
        data = {"seed": self.seed, "share": self.share} if self.generated else {"data_sha256": self._records().sha256}
        template = templates()[self.template][self.dataset]
        return (
            {
                "dataset": self.dataset,
                "template": self.template,
                "template_sha256": hashlib.sha256(template.encode()).hexdigest(),
                "max_new_tokens": self.max_new_tokens,
            }
            | data
            | self.form.settings()
        )

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per record, in the order of the file; each is made when it is accessed.

        Raises:
            ConfigError: there is no tokenizer, or it lacks a usable chat template and one is needed.
            DataError: the data is missing, damaged or malformed.
        """
        made = self.needed(tokenizer)
        frame = self.form.frame(made)
        rows = () if self.generated else self._records().rows

        def example(index: int) -> Example:
            row = generate(self.dataset, index, self.seed, self.share) if self.generated else rows[index]
            fitted = self.form.fit(fill(self.template, self.dataset, row), made, frame)
            label = label_of(self.dataset, row)
            return Example(
                id=str(index),  # ids of the published files repeat
                prompt=fitted.ids,
                references=tuple(str(answer) for answer in (label if isinstance(label, list) else [label])),
                details={"label": label},
                tokens_before_truncation=fitted.tokens_before_truncation,
                question_at=fitted.question_at,
            )

        return Lazy(RECORDS[self.dataset] if self.generated else len(rows), example)

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """The official score of one prediction, 0-1."""
        drop_first = self.template == "gpt4"
        return {"score": score(self.dataset, text or "", example.details["label"], drop_first)}

    def _records(self) -> Records:
        name = f"{self.dataset}.jsonl"
        lacking = [f"{dataset}.jsonl" for dataset in self.asked]
        records = parse(SOURCE.read(SOURCE.locate(self.data), name, lacking), name, FIELDS, REMEDY)
        for number, row in enumerate(records.rows, start=1):
            _check(row, self.dataset, self.template, f"record {number} of {name}")
        return records


@dataclass(frozen=True)
class InfiniteBench:
    """The twelve tasks as a suite.

    Attributes:
        name: beginning of the label of the results, followed by the task's name.
        data: a folder or a zip of InfiniteBench's .jsonl files; None to generate the tasks that can be.
        datasets: names of tasks, or of sets of them: ``all`` (12), ``generated`` (6).
        template: one of ``KINDS``: ``yarn_mistral`` is that of open models.
        max_prompt_tokens: limit beyond which prompts lose their middle.
        chat: whether to use the tokenizer's chat template; ``auto`` or None: if it has one.
        chat_arguments: arguments of the chat template.
        max_new_tokens: limit of new tokens for all tasks; None for that published for each.
        clean_up: whether decoded texts lose spaces before punctuation, one of ``tasks.prompting.CLEAN_UP``.
        seed: seed of the generated records.
        share: size of the generated contexts as a share of the published ones, above 0 and at most 1.
    """

    name: str
    data: str | None
    datasets: Sequence[str] | str
    template: str
    max_prompt_tokens: int
    chat: Chat | None
    chat_arguments: Mapping[str, Any]
    max_new_tokens: int | None
    clean_up: str
    seed: int
    share: float

    def tasks(self) -> tuple[InfiniteBenchTask, ...]:
        """One task per dataset, in the order given, without repeats.

        Raises:
            ConfigError: a setting cannot be used.
        """
        asked = choose(self.datasets, tuple(RECORDS), _SETS, "InfiniteBench")
        form = Form(self.max_prompt_tokens, self.chat, self.chat_arguments, self.clean_up).check()
        if self.template not in KINDS:
            raise ConfigError(f"task.template={short(self.template)} is unknown: use one of {', '.join(KINDS)}")
        if self.max_new_tokens is not None:
            whole(self.max_new_tokens, "task.max_new_tokens", 1)
        if self.data is not None and not isinstance(self.data, str):
            raise ConfigError(f"task.data={short(self.data)} is not a path: give a folder, or null to generate")
        if not is_whole(self.seed):
            raise ConfigError(f"task.seed={short(self.seed)} is not a whole number: give one")
        if not isinstance(self.share, int | float) or not 0 < self.share <= 1:
            raise ConfigError(f"task.share={short(self.share)} is no share: use a number above 0, and at most 1")
        return tuple(
            InfiniteBenchTask(
                name=f"{self.name}-{dataset}",
                dataset=dataset,
                asked=tuple(asked),
                data=self.data,
                template=self.template,
                form=form,
                new_tokens=self.max_new_tokens,
                seed=self.seed,
                share=float(self.share),
            )
            for dataset in asked
        )

    def ordered(self, names: Sequence[str]) -> list[str]:
        """The names in InfiniteBench's order."""
        return sorted(names, key=[f"{self.name}-{dataset}" for dataset in RECORDS].index)

    def averages(self, names: Sequence[str]) -> tuple[Average, ...]:
        """The mean of the twelve tasks, if all are there."""
        every = [f"{self.name}-{dataset}" for dataset in RECORDS]
        whole_suite = set(every) <= set(names)
        return (Average("average of 12", tuple((name,) for name in every)),) if whole_suite else ()


_SETS: Mapping[str, Sequence[str]] = {"all": tuple(RECORDS), "generated": tuple(GENERATORS)}


def _check(row: Row, dataset: str, template: str, where: str) -> None:
    """Refuse a record that cannot become a prompt or be scored."""
    answer = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    if not answer:
        raise DataError(f"{where} has no answer: {REMEDY}")
    if dataset in ("longbook_choice_eng", "code_debug"):
        if len(row["options"]) != 4:
            raise DataError(f"{where} has {len(row['options'])} options, not 4: {REMEDY}")
        if len(answer) == 1 and answer[0] not in row["options"]:
            raise DataError(f"{where} has the answer {short(answer[0])}, which is none of its options: {REMEDY}")
    fill(template, dataset, row, where)
