"""SCBench: ten tasks with several questions on each context, with the official prompts and scores.

Paper: SCBench, Li et al., https://arxiv.org/abs/2412.10319; code https://github.com/microsoft/MInference (MIT), data
https://huggingface.co/datasets/microsoft/SCBench. Prompts are in ``prompts.py`` beside this file, scores in
``scores.py``, contexts of our own in ``generate.py``.

Each question is an example. In ``scdq`` its context is the record's, the same for all its questions. In ``multi_turn``
its context is the first prompt with the first question, as there compression happens after that, and its question is
all that came since, with the reference answers; the first turn's question is empty. In ``own_answers`` the context is
the same, and a question follows on the turn before it with what the model answered, which stays in the cache, and an
end token. ``selection.after=context`` is how the benchmark compresses.

Differs:
    - ``scbench_repoqa`` and ``scbench_repoqa_and_kv`` are left out: a matcher of their own scores them.
    - In ``own_answers`` an end token is behind every answer, as in the official code with vLLM; with transformers it
      has one only behind an answer that the limit cut, and lacks that answer's last token.
    - In a chat, texts stay as they are where a template would strip them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.task import Average, Example, Metric
from tasks.asking import Form, FormedTask, Lazy, choose
from tasks.checks import is_whole, short, whole
from tasks.conversation import between_turns
from tasks.prompting import Chat
from tasks.records import Records, Row
from tasks.scbench.data import load
from tasks.scbench.generate import GENERATORS, generate
from tasks.scbench.prompts import MAX_NEW_TOKENS, MODES, templates, turns
from tasks.scbench.scores import METRICS, label_of, score

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECORDS = 20
"""Number of records that are generated."""
_SETS: Mapping[str, Sequence[str]] = {"all": tuple(MAX_NEW_TOKENS), "generated": tuple(GENERATORS)}


@dataclass(frozen=True)
class SCBenchTask(FormedTask):
    """One task; built by ``SCBench``.

    Attributes:
        name: label of the results.
        dataset: name of the task in SCBench.
        asked: all that are asked for together, so that an error names all whose files are missing.
        data: see ``SCBench``.
        mode: see ``SCBench``.
        form: how a text becomes a prompt.
        new_tokens: limit of new tokens; None for the published one.
        seed: see ``SCBench``.
        entries: see ``SCBench``.
    """

    name: str
    dataset: str
    asked: tuple[str, ...]
    data: str | None
    mode: str
    form: Form
    new_tokens: int | None
    seed: int
    entries: int

    def prompt_form(self) -> Form:
        """How a text becomes a prompt."""
        return self.form

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The official metric of the task."""
        return (Metric("score", METRICS[self.dataset], 1.0),)

    @property
    def breakdown(self) -> str | None:
        """``turn``, as in the benchmark's own output."""
        return "turn"

    @property
    def max_new_tokens(self) -> int:
        """The limit published for the task, or the one that was set."""
        return self.new_tokens or MAX_NEW_TOKENS[self.dataset]

    @property
    def generated(self) -> bool:
        """Whether the records are generated."""
        return self.data is None and self.dataset in GENERATORS

    @property
    def departures(self) -> str:
        """Generated records, or another limit of new tokens."""
        notes = [f"records are generated, of {self.entries} entries"] if self.generated else []
        if self.max_new_tokens != MAX_NEW_TOKENS[self.dataset]:
            notes.append(f"task.max_new_tokens={self.max_new_tokens}")
        return f"Not as published: {'; '.join(notes)}." if notes else ""

    def settings(self) -> Mapping[str, Any]:
        """The settings that can change an example's numbers; data and prompts are represented by their hashes.

        Raises:
            DataError: the data cannot be read.
        """
        data = (
            {"seed": self.seed, "entries": self.entries} if self.generated else {"data_sha256": self._records().sha256}
        )
        written = json.dumps(templates()[self.dataset])
        return (
            {
                "dataset": self.dataset,
                "mode": self.mode,
                "template_sha256": hashlib.sha256(written.encode()).hexdigest(),
                "max_new_tokens": self.max_new_tokens,
            }
            | data
            | self.form.settings()
        )

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per question, in the order of the file; each is made when it is accessed.

        Raises:
            ConfigError: there is no tokenizer, or it lacks a usable chat template and one is needed.
            DataError: the data is missing, damaged or malformed.
        """
        made = self.needed(tokenizer)
        frame = self.form.frame(made)
        between = ""
        if frame and self.mode == "multi_turn":
            between = between_turns(made, self.form.chat_arguments, "task.mode=scdq")
        rows = self._rows()
        places = [(number, turn) for number, row in enumerate(rows) for turn in range(len(row["multi_turns"]))]
        scdq = self.mode == "scdq"
        end = [] if made.eos_token_id is None else [int(made.eos_token_id)]

        @lru_cache(maxsize=2)
        def encoded(number: int) -> list[list[int]]:
            """The token ids of each text of a record; special tokens go before the first alone."""
            texts = turns(self.mode, self.dataset, rows[number], frame, between)
            return [
                list(made.encode(text, add_special_tokens=not at and frame is None, verbose=False))
                for at, text in enumerate(texts)
            ]

        def example(index: int) -> Example:
            number, turn = places[index]
            first, *rest = encoded(number)
            asked = rows[number]["multi_turns"]
            limit = self._limit(len(asked))
            context = first if len(first) <= limit else first[: limit // 2] + first[-(limit // 2) :]
            follows = f"{number}-{turn}" if self.mode == "own_answers" and turn else None
            added = rest[turn] if scdq else [token for ids in rest[:turn] for token in ids]
            if follows:
                context, added = [], [*end, *rest[turn - 1]]
            label = label_of(self.dataset, asked[turn])
            return Example(
                id=f"{number}-{turn + 1}",
                prompt=(*context, *added),
                references=tuple(str(one) for one in (label if isinstance(label, list) else [label])),
                group={"turn": turn + 1},
                details={"label": label, "task": asked[turn].get("task", self.dataset)},
                tokens_before_truncation=None if follows else len(first) + len(added),
                question_at=None if follows else len(context),
                follows=follows,
            )

        return Lazy(len(places), example)

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """The official score of one answer, 0-1."""
        return {"score": score(str(example.details["task"]), text or "", example.details["label"])}

    def _limit(self, count: int) -> int:
        """The most tokens of the first prompt, so that all answers find room, by the official rule."""
        new = MAX_NEW_TOKENS[self.dataset] * count
        if self.dataset == "scbench_summary_with_needles":
            new = (MAX_NEW_TOKENS[self.dataset] + 15) * count // 2
        limit = self.form.max_prompt_tokens - new - (1000 if self.mode == "scdq" else 0)
        if limit < 2:
            raise ConfigError(
                f"task.max_prompt_tokens={self.form.max_prompt_tokens} leaves no room for a context of {self.dataset}: "
                f"use {self.form.max_prompt_tokens - limit + 2} or more"
            )
        return limit

    def _rows(self) -> Sequence[Row]:
        if self.generated:
            return [generate(self.dataset, index, self.seed, self.entries) for index in range(RECORDS)]
        return self._records().rows

    def _records(self) -> Records:
        return load(self.data, self.dataset, self.asked)


@dataclass(frozen=True)
class SCBench:
    """The ten tasks as a suite.

    Attributes:
        name: beginning of the label of the results, followed by the task's name.
        data: a folder or a zip of .jsonl files, ``scbench_kv.jsonl`` and so on; None to generate the tasks that can be.
        datasets: names of tasks, or of sets of them: ``all`` (10), ``generated`` (4).
        mode: one of ``tasks.scbench.prompts.MODES``.
        max_prompt_tokens: limit of a conversation; beyond what it leaves after all answers, a context loses its middle.
        chat: whether to use the tokenizer's chat template; ``auto`` or None: if it has one.
        chat_arguments: arguments of the chat template.
        max_new_tokens: limit of new tokens for all tasks; None for that published for each.
        clean_up: whether generated texts lose spaces before punctuation, one of ``tasks.prompting.CLEAN_UP``.
        seed: seed of the generated records.
        entries: size of the generated contexts: number of pairs, strings, lines or numbers, 10 or more.
    """

    name: str
    data: str | None
    datasets: Sequence[str] | str
    mode: str
    max_prompt_tokens: int
    chat: Chat | None
    chat_arguments: Mapping[str, Any]
    max_new_tokens: int | None
    clean_up: str
    seed: int
    entries: int

    def tasks(self) -> tuple[SCBenchTask, ...]:
        """One task per dataset, in the order given, without repeats.

        Raises:
            ConfigError: a setting cannot be used.
        """
        asked = choose(self.datasets, tuple(MAX_NEW_TOKENS), _SETS, "SCBench")
        form = Form(self.max_prompt_tokens, self.chat, self.chat_arguments, self.clean_up).check()
        if self.mode not in MODES:
            raise ConfigError(f"task.mode={short(self.mode)} is unknown: use one of {', '.join(MODES)}")
        if self.max_new_tokens is not None:
            whole(self.max_new_tokens, "task.max_new_tokens", 1)
        if self.data is not None and not isinstance(self.data, str):
            raise ConfigError(f"task.data={short(self.data)} is not a path: give a folder, or null to generate")
        if not is_whole(self.seed):
            raise ConfigError(f"task.seed={short(self.seed)} is not a whole number: give one")
        whole(self.entries, "task.entries", 10)
        return tuple(
            SCBenchTask(
                name=f"{self.name}-{dataset}",
                dataset=dataset,
                asked=tuple(asked),
                data=self.data,
                mode=self.mode,
                form=form,
                new_tokens=self.max_new_tokens,
                seed=self.seed,
                entries=self.entries,
            )
            for dataset in asked
        )

    def ordered(self, names: Sequence[str]) -> list[str]:
        """The names in SCBench's order."""
        return sorted(names, key=[f"{self.name}-{dataset}" for dataset in MAX_NEW_TOKENS].index)

    def averages(self, names: Sequence[str]) -> tuple[Average, ...]:
        """None: the published average has two more tasks."""
        return ()
