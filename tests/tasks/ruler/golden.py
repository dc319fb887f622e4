"""RULER's golden files made again, and what several tests need for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from tasks.ruler.making import Sources, texts_of
from tasks.ruler.recipe import ESSAY_TASKS, QA_TASKS
from tasks.ruler.sources import documents_of, essay_words
from tasks.ruler.text import Text

SHARED = Path(__file__).parents[4] / "shared"
FILES = SHARED / "benchmarks/ruler/golden"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Tokens:
    """The tokenizer that the golden files were made with."""

    def __init__(self, shared: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(shared / "data/smollm2_tokenizer")

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    @staticmethod
    def offline(name: str) -> bool:
        return Path(name).stem not in (*ESSAY_TASKS, *QA_TASKS)


def line(index: int, text: Text, taken: int, count: Callable[[str], int]) -> str:
    """A record as NVIDIA's program writes it: a needle's index is the place of the first answer."""
    record = {
        "index": index,
        "input": text.message,
        "outputs": list(text.answers),
        "length": taken,
        "length_w_model_temp": taken,
        "answer_prefix": text.answer_prefix,
    }
    if "special magic" in text.message:
        record["index"] = text.message.find(text.answers[0])
        record["token_position_answer"] = count(text.message[: record["index"]])
    return json.dumps(record)


def made(name: str, number: int, count: Callable[[str], int]) -> tuple[list[Text], list[str]]:
    """The texts and lines of a golden file, ``wonderwords_3.0.1/1024/vt.jsonl``."""
    words, tokens, task = Path(name).parts[0].partition("_")[2], int(Path(name).parts[1]), Path(name).stem
    documents = {
        "qa_1": SHARED / "benchmarks/data/squad/dev-v2.0-cs224n.json",
        "qa_2": SHARED / "benchmarks/data/hotpotqa/hotpot_dev_distractor_first100.json",
    }
    sources = Sources(
        words,
        essay_words(str(SHARED / "data/essays")) if task in ESSAY_TASKS else (),
        documents_of(QA_TASKS[task], str(documents[task])) if task in QA_TASKS else None,
    )
    texts, lines = [], []
    for index, (text, taken) in enumerate(islice(texts_of(task, tokens, 42, sources, count), number)):
        texts.append(text)
        lines.append(line(index, text, taken, count))
    return texts, lines
