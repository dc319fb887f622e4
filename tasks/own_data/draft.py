"""Settings that fit a file of records, drafted by looking at it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from harness.errors import DataError
from tasks.own_data.data import Asked, load, records
from tasks.own_data.fields import NAMES
from tasks.scores.answers import last_number

_LOOKED_AT = 200
_LIKELY = {
    "question": ("quest", "problem", "instruct"),
    "answers": ("answer", "summary", "label", "solution", "highlight", "completion", "response"),
}
"""Parts of names by which a field is known whose name is none of ``NAMES``."""
_HAN = re.compile(r"[\u4e00-\u9fff]")
_SIZES = (32, 64, 128, 256, 512)
_CONTEXT = 200
"""Characters from which a text may be a context."""
_LONG = 20
"""Words from which an answer is a text, which is compared by ROUGE-L, and no longer a fact."""


def drafted(path: Path) -> tuple[Mapping[str, Any], Sequence[str]]:
    """Settings that fit a file, and what was seen in it.

    Args:
        path: the file.

    Returns:
        Those settings of ``task=jsonl`` that are to differ from its defaults, and sentences for the comments above.

    Raises:
        DataError: the file cannot be read, or its records cannot be understood.
    """
    named = _named(path)
    data = load(str(path), named)
    answers = [answer for asked in data.asked for answer in asked.answers]
    settings: dict[str, Any] = {"fields": named} if named else {}
    if any(asked.context is not None and not asked.question for asked in data.asked):
        settings["template"] = "{context}\n\nWrite a summary of the text above."
    settings |= _scoring(data.asked, answers)
    own = [asked.max_new_tokens for asked in data.asked if asked.max_new_tokens is not None]
    longest = max(_tokens(answer) for answer in answers)
    fitting = next((size for size in _SIZES if size >= 2 * longest), _SIZES[-1])
    settings["max_new_tokens"] = max([fitting, *own] if len(own) < len(data.asked) else own)
    texts = {asked.context for asked in data.asked if asked.context is not None}
    sizes = sorted(len(text) for text in texts) or sorted(len(asked.question) for asked in data.asked)
    unread = _unread(path, named)
    return settings, [
        f"{data.records} records, {len(data.asked)} questions; {len(texts)} different contexts.",
        f"{'Contexts' if texts else 'Prompts'} of {sizes[0]:,} to {sizes[-1]:,} characters; "
        f"answers of up to {max(map(len, answers)):,}.",
        *([f"Not read: {', '.join(unread)}."] if unread else []),
    ]


def _named(path: Path) -> dict[str, str]:
    """Names of fields that are none of the usual ones, where the usual ones do not do."""
    try:
        load(str(path), {})
        return {}
    except DataError:
        if named := _guessed(_looked_at(path)):
            return named
        raise


def _looked_at(path: Path) -> list[dict[str, Any]]:
    """The first records of a file, as they are; none if it cannot be read."""
    try:
        return [values for _, values in islice(records(path.expanduser().read_bytes(), str(path)), _LOOKED_AT)]
    except (OSError, RuntimeError, DataError):
        return []


def _unread(path: Path, named: Mapping[str, str]) -> list[str]:
    """Some names of fields that nothing is made of."""
    known = {*(name for names in NAMES.values() for name in names), *(name.split(".")[0] for name in named.values())}
    known |= {"doc", "doc_id", "arguments"}  # of a log
    there = dict.fromkeys(name for values in _looked_at(path) for name in values)
    return [name for name in there if name not in known and not name.startswith("choice_")][:8]


def _guessed(looked: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Names by field: questions and answers are known by parts of their names, the longest other text is the context.

    Where there is no long text, the question is the whole prompt.
    """
    there = list(looked[0]) if looked else []
    usual = {field: name for field, names in NAMES.items() for name in reversed(names) if name in there}
    named = {
        field: name
        for field, parts in _LIKELY.items()
        for name in reversed(there)
        if field not in usual and any(part in name.lower() for part in parts)
    }
    if "context" in usual or "prompt" in usual:
        return named
    lengths = {
        name: sum(len(values[name]) for values in looked) / len(looked)
        for name in there
        if name not in (*usual.values(), *named.values())
        and not any(part in name.lower() for part in _LIKELY["answers"])
        and all(isinstance(values.get(name), str) for values in looked)
    }
    longest = max(lengths, key=lengths.__getitem__, default=None)
    if longest is not None and lengths[longest] >= _CONTEXT:
        return named | {"context": longest}
    question = named.pop("question", usual.get("question"))
    return named | ({"prompt": question} if question else {})


def _scoring(asked: Sequence[Asked], answers: Sequence[str]) -> dict[str, Any]:
    """Metrics that fit the answers, the headline first."""
    if all(one.choices for one in asked):
        return {"scores": ["choice", "contains"], "show": "choice"}
    numbers = all(
        re.fullmatch(r"\W*[\d.,]+\W*", answer.rpartition("####")[2]) and last_number(answer) is not None
        for answer in answers
    )
    if numbers and all(len(one.answers) == 1 for one in asked):
        return {"scores": ["number", "contains", "exact_match"], "show": "number"}
    chinese = median(len(_HAN.findall(answer)) / len(answer) for answer in answers) > 0.3
    if median(map(_words, answers)) > _LONG:
        scores = ["rouge_l_zh"] if chinese else ["rouge_l", "rouge_score_rougeL", "f1"]
        return {"scores": scores, "show": scores[0]}
    scores = ["contains", "f1_zh"] if chinese else ["contains", "f1", "exact_match"]
    return {"scores": scores, "show": scores[0], "stop_at_newline": not any("\n" in answer for answer in answers)}


def _words(text: str) -> int:
    """Number of words; of Chinese, where a word is about two characters, from these."""
    return len(text.split()) + len(_HAN.findall(text)) // 2


def _tokens(text: str) -> int:
    """About how many tokens a text takes, rather more than less."""
    return 2 * len(text.split()) + len(_HAN.findall(text))
