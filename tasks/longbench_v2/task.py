"""LongBench v2: 503 questions with four choices on texts of 8k to 2M words, with the official prompts and scores.

Paper: LongBench v2, Bai et al., https://arxiv.org/abs/2412.15204; code https://github.com/THUDM/LongBench (MIT), data
https://huggingface.co/datasets/zai-org/LongBench-v2 (Apache-2.0).

Differs:
    - Decoding is greedy by default; the published runs sampled with `sampling.temperature=0.1`.
    - ``0shot_cot`` is one generation, whose own last sentence is the answer; the official code shows the model its
      reasoning again and asks for the letter alone. The tables note it.
    - The chat template is the tokenizer's own, around the prompt after it was cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, DataError
from harness.task import DataFile, Example, Metric, Predictions
from tasks.asking import Form, FormedTask, Lazy
from tasks.checks import short, whole
from tasks.files import Hub, Source
from tasks.jsonl import TEXT, Kind
from tasks.longbench_v2.predictions import FORMATS, GROUPS, ID, LETTER, read_predictions
from tasks.longbench_v2.prompts import KINDS, fill, templates
from tasks.longbench_v2.scores import kvpress, official
from tasks.prompting import Chat
from tasks.records import Records, Row, parse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECORDS = 503
MAX_BYTES = 2**30
"""The most that is read of data.json, which has 465 MB."""
REMEDY = "use LongBench v2's own data.json"
HUB = Hub(
    repository="zai-org/LongBench-v2",
    revision="2b48e494f2c7a2f0af81aae178e05c7e1dde0fe9",
    file="data.json",
    sha256=None,
    instead="set task.data to a local data.json",
)
SOURCE = Source(REMEDY, HUB)
_LETTERS = "ABCD"
FIELDS: Mapping[str, Kind] = {
    "_id": ID,
    "domain": TEXT,
    "sub_domain": TEXT,
    "difficulty": TEXT,
    "length": TEXT,
    "question": TEXT,
    **{f"choice_{letter}": TEXT for letter in _LETTERS},
    "answer": LETTER,
    "context": TEXT,
}
MAX_NEW_TOKENS: Mapping[str, int] = {"0shot": 128, "0shot_no_context": 128, "0shot_cot": 1024, "kvpress": 16}
"""Limits of the official code, and of kvpress's data."""


@dataclass(frozen=True)
class LongBenchV2(FormedTask):
    """The questions under one prompt.

    Attributes:
        name: label of the results.
        data: a data.json, its folder, or JSON lines of the same records; None for the hub's cache or the hub.
        prompt: ``0shot``, ``0shot_cot``, ``0shot_no_context``, or ``kvpress``, which also scores as kvpress does.
        max_prompt_tokens: limit beyond which prompts lose their middle.
        chat: whether to use the tokenizer's chat template; ``auto`` or None: if it has one.
        chat_arguments: arguments of the chat template.
        compensated: whether a response without an answer counts 0.25, as in one of the published tables.
        max_new_tokens: limit of new tokens; ``MAX_NEW_TOKENS`` has the published ones.
        clean_up: whether decoded texts lose spaces before punctuation, one of ``tasks.prompting.CLEAN_UP``.
    """

    name: str
    data: str | None
    prompt: str
    max_prompt_tokens: int
    chat: Chat | None
    chat_arguments: Mapping[str, Any]
    compensated: bool
    max_new_tokens: int
    clean_up: str

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: one cannot be used.
        """
        if self.prompt not in MAX_NEW_TOKENS:
            raise ConfigError(
                f"task.prompt={short(self.prompt)} is unknown: use one of {', '.join((*KINDS, 'kvpress'))}"
            )
        if not isinstance(self.compensated, bool):
            raise ConfigError(f"task.compensated={short(self.compensated)} is neither true nor false: use one of them")
        if self.data is not None and not isinstance(self.data, str):
            raise ConfigError(f"task.data={short(self.data)} is not a path: give a data.json, or null for the hub")
        whole(self.max_new_tokens, "task.max_new_tokens", 1)
        self.prompt_form().check()

    def prompt_form(self) -> Form:
        """How a text becomes a prompt."""
        return Form(self.max_prompt_tokens, self.chat, self.chat_arguments, self.clean_up)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The share of right answers."""
        return (Metric("accuracy", "accuracy", 1.0),)

    @property
    def breakdown(self) -> str | None:
        """``difficulty`` and ``length``, as published."""
        return "difficulty,length"

    @property
    def published_examples(self) -> int:
        """The number of records published."""
        return RECORDS

    @property
    def departures(self) -> str:
        """What is not as published."""
        notes = []
        if self.prompt == "0shot_cot":
            notes.append("the answer is read from the reasoning, without a second question")
        if self.max_new_tokens != MAX_NEW_TOKENS[self.prompt]:
            notes.append(f"task.max_new_tokens={self.max_new_tokens}")
        return f"Not as published: {'; '.join(notes)}." if notes else ""

    @property
    def scoring_knobs(self) -> frozenset[str]:
        """``compensated``."""
        return frozenset({"compensated"})

    def score_settings(self) -> dict[str, Any]:
        """The rule by which an answer is read and scored."""
        return {"answers": "kvpress" if self.prompt == "kvpress" else "longbench_v2", "compensated": self.compensated}

    def settings(self) -> Mapping[str, Any]:
        """The settings that can change an example's numbers; data and prompt are represented by their hashes.

        Raises:
            DataError: the data cannot be read.
        """
        return (
            {
                "data_sha256": self._records().sha256,
                "template_sha256": hashlib.sha256(templates()[self.prompt].encode()).hexdigest(),
                "max_new_tokens": self.max_new_tokens,
            }
            | self.prompt_form().settings()
            | self.score_settings()
        )

    def examples(self, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[Example]:
        """One example per record, in the order of the file; each is encoded when it is accessed.

        Raises:
            ConfigError: there is no tokenizer, or it lacks a usable chat template and one is needed.
            DataError: the data is missing, damaged or malformed.
        """
        made = self.needed(tokenizer)
        form = self.prompt_form()
        frame, rows = form.frame(made), self._records().rows

        def example(row: Row) -> Example:
            fitted = form.fit(fill(self.prompt, row), made, frame)
            return Example(
                id=row["_id"],
                prompt=fitted.ids,
                references=(row["answer"],),
                group={name: row[name] for name in GROUPS},
                tokens_before_truncation=fitted.tokens_before_truncation,
                question_at=fitted.question_at,
            )

        return Lazy(len(rows), lambda index: example(rows[index]))

    def score(self, example: Example, text: str | None) -> Mapping[str, float]:
        """1 for the right letter, else 0; 0.25 for no letter if ``compensated``."""
        (answer,) = example.references
        if self.prompt == "kvpress":
            return {"accuracy": kvpress(text or "", answer)}
        return {"accuracy": official(text or "", answer, self.compensated)}

    # --- predictions of other programs

    @property
    def formats(self) -> tuple[str, ...]:
        """The format of kvpress."""
        return FORMATS

    def predictions(self, path: Path, format: str, doubled: str | None = None) -> list[Predictions]:
        """The predictions of each file at or below a path; see ``tasks.longbench_v2.predictions``."""
        return [
            Predictions(
                file=one.file,
                sha256=one.sha256,
                task=self.name,
                config={},
                settings=self.score_settings(),
                model=one.model,
                label=one.label,
                budget=one.budget,
                rows=one.rows,
            )
            for one in read_predictions(path, RECORDS, doubled)
        ]

    # --- data

    def cached(self) -> Path | None:
        """The path of data.json in the hub's cache; None if it is not there."""
        return HUB.cached()

    def fetch(self) -> Path:
        """The path of data.json, from the hub's cache or the hub; see ``tasks.files.Hub``."""
        return HUB.fetch()

    def survey(self, path: Path) -> list[DataFile]:
        """The state of data.json; a number of records other than the published one is a problem, too."""
        try:
            found = len(load(path).rows)
        except DataError as error:
            return [DataFile(HUB.file, RECORDS, None, str(error))]
        problem = f"{HUB.file} holds {found} records, not the {RECORDS} that were published: {REMEDY}"
        return [DataFile(HUB.file, RECORDS, found, None if found == RECORDS else problem)]

    def _records(self) -> Records:
        return load(SOURCE.locate(self.data))


def load(path: Path) -> Records:
    """Read and check the records.

    Args:
        path: the file, or a folder with a data.json.

    Raises:
        DataError: the file is missing or too large, or a record is not one of these.
    """
    file = path / HUB.file if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{path} holds no {HUB.file}: {REMEDY}")
    stat = file.stat()
    return _load(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1)
def _load(file: Path, size: int, modified: int) -> Records:
    """The records of a file, read once: settings and examples need them, and the whole file has half a gigabyte."""
    return parse(SOURCE.read_file(file, MAX_BYTES), file.name, FIELDS, REMEDY, key="_id")
