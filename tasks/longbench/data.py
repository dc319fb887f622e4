"""The records of LongBench and LongBench-E, read from their files and checked line by line.

Data: https://huggingface.co/datasets/zai-org/LongBench (formerly THUDM/LongBench), one ``data/<dataset>.jsonl`` per
dataset in a ``data.zip``. Its loading script is not used, because ``datasets`` no longer runs any, nor is
``load_dataset`` on the zip, which refuses even a local one under ``HF_HUB_OFFLINE=1``. Instead the lines are read and
checked here and passed to ``datasets`` with fixed features.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from harness.errors import ConfigError, DataError
from tasks.checks import short
from tasks.jsonl import TEXT, TEXTS, Kind, Text, check_fields, read_lines
from tasks.longbench.files import REMEDY, SOURCE
from tasks.scores.text import PARAGRAPH

if TYPE_CHECKING:
    from datasets import Dataset, Features

RECORDS: Mapping[str, int] = {
    "narrativeqa": 200, "qasper": 200, "multifieldqa_en": 150, "multifieldqa_zh": 200, "hotpotqa": 200, "2wikimqa": 200,
    "musique": 200, "dureader": 200, "gov_report": 200, "qmsum": 200, "multi_news": 200, "vcsum": 200, "trec": 200,
    "triviaqa": 200, "samsum": 200, "lsht": 200, "passage_count": 200, "passage_retrieval_en": 200,
    "passage_retrieval_zh": 200, "lcc": 500, "repobench-p": 500,
}  # fmt: skip
"""Published number of records of each LongBench dataset, in LongBench's order.

Source: task.md of https://github.com/THUDM/LongBench (MIT).
"""
RECORDS_E: Mapping[str, int] = {
    "qasper_e": 224, "multifieldqa_en_e": 150, "hotpotqa_e": 300, "2wikimqa_e": 300, "gov_report_e": 300,
    "multi_news_e": 294, "trec_e": 300, "triviaqa_e": 300, "samsum_e": 300, "passage_count_e": 300,
    "passage_retrieval_en_e": 300, "lcc_e": 300, "repobench-p_e": 300,
}  # fmt: skip
"""The same for LongBench-E, whose file of ``qasper`` is ``qasper_e.jsonl``."""

FIELDS: Mapping[str, Kind] = {
    "input": TEXT,
    "context": TEXT,
    "answers": TEXTS,
    "length": Kind(Annotated[int, Meta(ge=0, le=2**63 - 1)], "a whole number"),
    "dataset": TEXT,
    "language": TEXT,
    "all_classes": Kind(list[Text] | None, "a list of texts or null"),
    "_id": Kind(Annotated[Text, Meta(min_length=1)], "a text"),
}


@dataclass(frozen=True)
class Records:
    """The records of one dataset.

    Attributes:
        rows: the records, in the order of the file, with ``features()``.
        sha256: hash of the records' values; it does not depend on line ends, or on a folder or zip as the source.
    """

    rows: Dataset
    sha256: str


def features() -> Features:
    """The types of the eight fields in every file.

    They are given explicitly because ``all_classes`` is null in most files, where its type would be guessed wrong.
    """
    from datasets import Features, List, Value

    types = {"answers": List(Value("string")), "all_classes": List(Value("string")), "length": Value("int64")}
    return Features({field: types.get(field, Value("string")) for field in FIELDS})


def load(path: Path, dataset: str, asked: Sequence[str] = ()) -> Records:
    """Read and check one dataset.

    Args:
        path: a folder with ``<dataset>.jsonl``, itself or in its ``data`` or ``*/data``; a zip with that member, at
            most two folders deep; or that file.
        dataset: a key of ``RECORDS`` or ``RECORDS_E``.
        asked: all datasets that are asked for, so that an error names all that are missing.

    Raises:
        ConfigError: there is no such dataset.
        DataError: the file is missing, damaged, too large, or a line is not a record of this dataset.
    """
    if dataset not in RECORDS and dataset not in RECORDS_E:
        raise ConfigError(
            f"{short(dataset)} is not a dataset of LongBench: use one of {', '.join([*RECORDS, *RECORDS_E])}"
        )
    rows = parse(SOURCE.read(path, f"{dataset}.jsonl", [f"{one}.jsonl" for one in asked]), dataset)
    digest = hashlib.sha256()
    for row in rows:
        digest.update(
            json.dumps([row[field] for field in FIELDS], ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        )
    from datasets import Dataset

    return Records(Dataset.from_list(rows, features=features()), digest.hexdigest())


def survey(path: Path) -> dict[str, int | DataError | None]:
    """The state of the 34 datasets: the number of records, the error in reading them, or None if there is no file.

    Raises:
        DataError: the path as a whole cannot be read.
    """
    files = SOURCE.names(path)
    states: dict[str, int | DataError | None] = {}
    for dataset in (*RECORDS, *RECORDS_E):
        try:
            states[dataset] = load(path, dataset).rows.num_rows if f"{dataset}.jsonl" in files else None
        except DataError as error:
            states[dataset] = error
    return states


def parse(raw: bytes, dataset: str) -> list[dict[str, Any]]:
    """The records in a file.

    Args:
        raw: contents of the file.
        dataset: name of the dataset.

    Raises:
        DataError: there is no record, or a line is not a record of this dataset.
    """
    rows: list[dict[str, Any]] = []
    first: dict[str, str] = {}
    for where, values in read_lines(raw, f"{dataset}.jsonl", "record", REMEDY):
        check_fields(values, FIELDS, where, REMEDY)
        if values["dataset"] not in (dataset, dataset.removesuffix("_e")):
            raise DataError(f"{where} is of dataset {short(values['dataset'])}: {REMEDY}, each under its own name")
        if dataset.removesuffix("_e") in ("trec", "lsht") and not values["all_classes"]:
            raise DataError(
                f"{where} has all_classes={short(values['all_classes'])}, but {dataset} is scored by its classes: "
                f"{REMEDY}"
            )
        check_answers(values["answers"], dataset, where, REMEDY)
        if first.setdefault(values["_id"], where) != where:
            raise DataError(f"{where} repeats the _id of {first[values['_id']].partition(' of ')[0]}: {REMEDY}")
        rows.append({field: values[field] for field in FIELDS})
    if not rows:
        raise DataError(f"{dataset}.jsonl holds no record: {REMEDY}")
    return rows


def check_answers(answers: Sequence[str], dataset: str, where: str, remedy: str) -> None:
    """Refuse answers against which no prediction could be scored.

    Args:
        answers: acceptable answers of a record.
        dataset: name of the dataset.
        where: beginning of the error message.
        remedy: end of the error message.

    Raises:
        DataError: names the first such answer.
    """
    pattern = PARAGRAPH.get(dataset.removesuffix("_e"), "")
    if wrong := [answer for answer in answers if not re.search(pattern, answer)]:
        raise DataError(f"{where} has the answer {short(wrong[0])}, which names no paragraph: {remedy}")
