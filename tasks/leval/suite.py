"""L-Eval: documents with many questions each, closed ones and open ones, with the official prompts and scores.

Paper: L-Eval, An et al., https://arxiv.org/abs/2307.11088; code and data https://github.com/OpenLMLab/LEval (GPL-3.0),
of which no code is here. Strings of the protocol are in ``prompts.json`` beside this file, scores in ``scores.py``.

Each question is an example; those of a document share its ids.

Differs:
    - The chat template is the tokenizer's own. Without one, the system message stands before the text, with an empty
      line between.
    - Records that L-Eval leaves to people or to a model to score are left out, as its own scripts leave them out where
      they score by rule; so is ``codeU``, which has a matcher of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, DataError
from harness.task import Average, Example, Metric
from harness.text import shared_tokens
from tasks.asking import Asked, Form, FormedTask, Lazy, choose
from tasks.checks import short, whole
from tasks.files import Source
from tasks.jsonl import TEXT, TEXTS, Kind
from tasks.leval.scores import KIND_OF, TITLES, score
from tasks.prompting import Chat, Frame
from tasks.records import Records, Row, parse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REMEDY = "use L-Eval's own .jsonl files, from https://huggingface.co/datasets/L4NLP/LEval"
SOURCE = Source(REMEDY)
FIELDS: Mapping[str, Kind] = {"input": TEXT, "instructions": TEXTS, "outputs": TEXTS, "evaluation": TEXT}
MAX_NEW_TOKENS = 512
"""The official limit, of all datasets."""
BY_RULE = ("exam", "f1", "rouge")
"""The kinds of ``evaluation`` that are scored by rule."""
CLOSED = tuple(name for name, kind in KIND_OF.items() if kind not in TITLES)
_SETS: Mapping[str, Sequence[str]] = {
    "all": tuple(KIND_OF),
    "closed": CLOSED,
    "open": tuple(name for name in KIND_OF if name not in CLOSED),
}
_STEP = 250
"""By how many words more a document is cut in each try."""


@cache
def system_prompts() -> Mapping[str, str]:
    """The system message of some datasets, ``quality`` for other closed ones and ``open_ended`` for open ones."""
    text = (Path(__file__).parent / "prompts.json").read_text(encoding="utf-8")
    loaded: dict[str, str] = json.loads(text)["system"]
    return loaded


def system(dataset: str) -> str:
    """The system message of a dataset."""
    return system_prompts().get(dataset, system_prompts()["quality" if dataset in CLOSED else "open_ended"])


def fill(dataset: str, document: str, question: str, reference: str) -> Asked:
    """The user's text of a question; it says of open questions how many words the reference has."""
    if dataset in ("gsm100", "topic_retrieval_longchat"):
        return Asked(f"{document}\n\n", question)
    context = f"Document is as follows. {document} "
    if dataset in CLOSED:
        wish = "Please directly give the answer without any additional output or explanation "
        return Asked(context, f"\nQuestion: {question}.  {wish}")
    words = len(reference.split())
    return Asked(context, f"Instruction: {question} \nAnswer this question with {words} words.")


def cut(document: str, tokenizer: PreTrainedTokenizerBase, limit: int) -> str:
    """The beginning of a document that has no more tokens than the limit, by L-Eval's rule.

    It keeps as many words as tokens are allowed, and then 250 fewer in each try.
    """
    kept, allowed = document, limit
    while len(tokenizer.encode(kept, verbose=False)) > limit:
        kept = " ".join(kept.split(" ")[: max(0, allowed)])
        allowed -= _STEP
    return kept


@dataclass(frozen=True)
class LEvalTask(FormedTask):
    """One dataset; built by ``LEval``.

    Attributes:
        name: label of the results.
        dataset: name of the dataset in L-Eval.
        asked: all that are asked for together, so that an error names all whose files are missing.
        data: see ``LEval``.
        form: how a text becomes a prompt; its limit is that of the document.
        new_tokens: limit of new tokens; None for the published one.
    """

    name: str
    dataset: str
    asked: tuple[str, ...]
    data: str | None
    form: Form
    new_tokens: int | None

    def prompt_form(self) -> Form:
        """How a text becomes a prompt."""
        return self.form

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metric of the dataset."""
        kind = KIND_OF[self.dataset]
        return (Metric("score", TITLES.get(kind, "exact match"), 1.0),)

    @property
    def breakdown(self) -> str | None:
        """``question`` of ``topic_retrieval_longchat``, whose score is the mean over first, second and third topics."""
        return "question" if self.dataset == "topic_retrieval_longchat" else None

    @property
    def max_new_tokens(self) -> int:
        """The published limit, or the one that was set."""
        return self.new_tokens or MAX_NEW_TOKENS

    @property
    def departures(self) -> str:
        """Another limit of new tokens than the published one."""
        return (
            ""
            if self.max_new_tokens == MAX_NEW_TOKENS
            else f"Not as published: task.max_new_tokens={self.max_new_tokens}."
        )

    def settings(self) -> Mapping[str, Any]:
        """The settings that can change an example's numbers; data and prompts are represented by their hashes.

        Raises:
            DataError: the data cannot be read.
        """
        written = system(self.dataset) + "".join(fill(self.dataset, "D", "Q", "R"))
        return {
            "dataset": self.dataset,
            "data_sha256": self._records().sha256,
            "template_sha256": hashlib.sha256(written.encode()).hexdigest(),
            "max_new_tokens": self.max_new_tokens,
        } | self.form.settings()

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per question that is scored by rule, in the order of the file; each is made when it is accessed.

        Raises:
            ConfigError: there is no tokenizer, or it lacks a usable chat template and one is needed.
            DataError: the data is missing, damaged or malformed.
        """
        made = self.needed(tokenizer)
        template = self.form.frame(made, system(self.dataset))
        frame = template or Frame(f"{system(self.dataset)}\n\n", "")
        # The worked examples of gsm100 are gone on with: their turn is not closed.
        after = "" if self.dataset == "gsm100" else frame.after
        if self.dataset in CLOSED and self.dataset not in ("gsm100", "topic_retrieval_longchat"):
            after += "\nAnswer:"
        rows = self._records().rows
        scored = [number for number, row in enumerate(rows) if row["evaluation"] in BY_RULE]
        places = [(number, at) for number in scored for at in range(len(rows[number]["instructions"]))]

        @lru_cache(maxsize=1)
        def document(number: int) -> tuple[str, int]:
            """What is kept of a document, and how many tokens were cut."""
            text = rows[number]["input"]
            kept = cut(text, made, self.form.max_prompt_tokens)
            lost = len(made.encode(text, verbose=False)) - len(made.encode(kept, verbose=False)) if kept != text else 0
            return kept, lost

        def example(index: int) -> Example:
            number, at = places[index]
            kept, lost = document(number)
            reference = rows[number]["outputs"][at]
            asked = fill(self.dataset, kept, rows[number]["instructions"][at], reference)
            context = frame.before + asked.context
            ids, alone = (
                list(made.encode(text, add_special_tokens=template is None, verbose=False))
                for text in (context + asked.question + after, context)
            )
            return Example(
                id=f"{number}-{at + 1}",
                prompt=tuple(ids),
                references=(reference,),
                group={"question": at + 1},
                tokens_before_truncation=len(ids) + lost,
                question_at=shared_tokens(ids, alone),
            )

        return Lazy(len(places), example)

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """L-Eval's score of one answer, 0-1."""
        (reference,) = example.references
        return {"score": score(self.dataset, text or "", reference)}

    def _records(self) -> Records:
        name = f"{self.dataset}.jsonl"
        lacking = [f"{dataset}.jsonl" for dataset in self.asked]
        records = parse(SOURCE.read(SOURCE.locate(self.data), name, lacking), name, FIELDS, REMEDY)
        for number, row in enumerate(records.rows, start=1):
            _check(row, f"record {number} of {name}")
        if not any(row["evaluation"] in BY_RULE for row in records.rows):
            raise DataError(f"{name} holds no record that is scored by rule ({', '.join(BY_RULE)}): {REMEDY}")
        return records


@dataclass(frozen=True)
class LEval:
    """The datasets as a suite.

    Attributes:
        name: beginning of the label of the results, followed by the dataset's name.
        data: a folder or a zip of L-Eval's .jsonl files.
        datasets: names of datasets, or of sets of them: ``all``, ``closed``, ``open``.
        max_document_tokens: limit of a document, beyond which it loses its end.
        chat: whether to use the tokenizer's chat template; ``auto`` or None: if it has one.
        chat_arguments: arguments of the chat template.
        max_new_tokens: limit of new tokens; None for the published one.
        clean_up: whether generated texts lose spaces before punctuation, one of ``tasks.prompting.CLEAN_UP``.
    """

    name: str
    data: str | None
    datasets: Sequence[str] | str
    max_document_tokens: int
    chat: Chat | None
    chat_arguments: Mapping[str, Any]
    max_new_tokens: int | None
    clean_up: str

    def tasks(self) -> tuple[LEvalTask, ...]:
        """One task per dataset, in the order given, without repeats.

        Raises:
            ConfigError: a setting cannot be used.
        """
        asked = choose(self.datasets, tuple(KIND_OF), _SETS, "L-Eval")
        limit = whole(self.max_document_tokens, "task.max_document_tokens", 2)
        form = Form(limit, self.chat, self.chat_arguments, self.clean_up).check()
        if self.max_new_tokens is not None:
            whole(self.max_new_tokens, "task.max_new_tokens", 1)
        if self.data is not None and not isinstance(self.data, str):
            raise ConfigError(f"task.data={short(self.data)} is not a path: give a folder of L-Eval's files")
        return tuple(
            LEvalTask(f"{self.name}-{dataset}", dataset, tuple(asked), self.data, form, self.max_new_tokens)
            for dataset in asked
        )

    def ordered(self, names: Sequence[str]) -> list[str]:
        """The names, closed datasets first."""
        return sorted(names, key=[f"{self.name}-{dataset}" for dataset in KIND_OF].index)

    def averages(self, names: Sequence[str]) -> tuple[Average, ...]:
        """The mean of the closed datasets that are there, if there are several."""
        closed = [name for name in names if name.removeprefix(f"{self.name}-") in CLOSED]
        title = f"average of {len(closed)} closed"
        return (Average(title, tuple((name,) for name in closed)),) if len(closed) > 1 else ()


def _check(row: Row, where: str) -> None:
    """Refuse a record whose questions and answers do not match."""
    questions, answers = len(row["instructions"]), len(row["outputs"])
    if not questions or questions != answers:
        raise DataError(f"{where} has {questions} instructions and {answers} outputs: {REMEDY}")
