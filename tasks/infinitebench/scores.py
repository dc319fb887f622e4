"""The score of one prediction in each task, 0-1, as InfiniteBench's code gives it.

Facts: ``src/compute_scores.py`` of https://github.com/OpenBMB/InfiniteBench at 88b3daa (MIT); the code is our own.

Differs:
    - ``math_find`` scores 0 where a whole number is asked for and the answer has a fraction, and
      ``longbook_choice_eng`` where there is no answer; the official code fails there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.scores.answers import after, best_f1, best_f1_characters, best_rouge_lsum, choice, first_digits, first_number
from tasks.scores.answers import words as words_of

METRICS: Mapping[str, str] = {
    "passkey": "accuracy",
    "number_string": "accuracy",
    "kv_retrieval": "accuracy",
    "longbook_sum_eng": "rougeLsum (rouge-score)",
    "longbook_choice_eng": "accuracy",
    "longbook_qa_eng": "F1",
    "longbook_qa_chn": "F1 (characters)",
    "longdialogue_qa_eng": "accuracy",
    "math_find": "accuracy",
    "math_calc": "share of values before the first wrong one",
    "code_run": "accuracy",
    "code_debug": "accuracy",
}
"""The title of each task's metric."""
_BEGINS = ("answer is:", "is:", "answer:")
_NOISE = re.compile("[\n`'\"\\-*]|Option|option")
_SPACES = re.compile("  +")
_MARKS_OF_CODE = str.maketrans(dict.fromkeys("\n.`'\":", " "))
_DIGITS = re.compile("[0-9]+")


def score(task: str, prediction: str, label: Any, drop_first: bool = False) -> float:
    """The score of a prediction.

    Args:
        task: a key of ``METRICS``.
        prediction: the generated text, unchanged.
        label: the answer of the record; see ``label_of``.
        drop_first: whether ``math_calc`` leaves out the first number of the prediction, as for GPT-4's prompt, which
            makes a model begin with the expression's first number.
    """
    one = label[0] if isinstance(label, list) and len(label) == 1 else label
    every = label if isinstance(label, list) else [label]
    match task:
        case "passkey" | "number_string":
            return float(first_digits(prediction) == one)
        case "kv_retrieval":
            return float(one in words_of(prediction))
        case "longbook_sum_eng":
            return best_rouge_lsum(prediction, every)
        case "longbook_choice_eng":
            return choice(prediction, every)
        case "longbook_qa_eng":
            return best_f1(prediction, every)
        case "longbook_qa_chn":
            return best_f1_characters(prediction, every)
        case "longdialogue_qa_eng":
            return float(every[0] in [word.upper() for word in words_of(prediction)])
        case "math_find":
            found = first_number(prediction)
            return float(found is not None and _equal(found, one))
        case "math_calc":
            return _calculated(prediction, one if isinstance(one, list) else every, drop_first)
        case "code_run":
            return float(_last_whole(prediction) == one)
        case "code_debug":
            return _debugged(prediction, every)
    raise AssertionError(task)


def label_of(task: str, record: Mapping[str, Any]) -> Any:
    """The answer of a record as the official code compares it: with the letter where there are options."""
    answer = record["answer"]
    every = answer if isinstance(answer, list) else [answer]
    if task not in ("longbook_choice_eng", "code_debug") or len(every) != 1:
        return answer
    return [every[0], "ABCD"[record["options"].index(every[0])]]


def _equal(found: str, wanted: float) -> bool:
    if isinstance(wanted, float):
        return float(found) == wanted
    return "." not in found and int(found) == wanted


def _calculated(prediction: str, values: Sequence[int], drop_first: bool) -> float:
    numbers = [int(number) for number in _DIGITS.findall(prediction)][1 if drop_first else 0 :]
    right = next((i for i, (one, other) in enumerate(zip(numbers, values, strict=False)) if one != other), None)
    return (min(len(numbers), len(values)) if right is None else right) / len(values)


def _last_whole(prediction: str) -> int | None:
    last = prediction.strip().translate(_MARKS_OF_CODE).split()[-1:]
    try:
        return int(last[0]) if last else None
    except ValueError:
        return None


def _debugged(prediction: str, label: Sequence[str]) -> float:
    name, letter = label
    stripped = prediction.strip()
    if stripped[:2] in (f"{letter}.", f"{letter}:"):
        return 1.0
    answer = after(_SPACES.sub(" ", _NOISE.sub(" ", stripped)), _BEGINS)
    return float(answer is not None and answer.startswith((letter, name)))
