"""The score of one answer, 0-1, as SCBench's code gives it.

Facts: ``scbench/compute_scores.py`` of https://github.com/microsoft/MInference at fb56c91 (MIT); the code is our own.
Its slip is kept: a single text as the reference of ``scbench_qa_eng``, ``scbench_many_shot`` and ``scbench_qa_chn`` is
taken letter by letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.scores.answers import LETTERS, best_f1_characters, best_rouge_lsum, choice, first_digits, first_number

METRICS: Mapping[str, str] = {
    "scbench_kv": "accuracy",
    "scbench_prefix_suffix": "accuracy",
    "scbench_vt": "share of the names",
    "scbench_qa_eng": "accuracy",
    "scbench_qa_chn": "F1 (characters)",
    "scbench_choice_eng": "accuracy",
    "scbench_many_shot": "accuracy",
    "scbench_mf": "accuracy",
    "scbench_summary": "rougeLsum (rouge-score)",
    "scbench_summary_with_needles": "rougeLsum (rouge-score), accuracy of needles",
}
"""The title of each task's metric."""


def score(task: str, prediction: str, label: Any) -> float:
    """The score of a prediction.

    Args:
        task: a key of ``METRICS``, or ``scbench_passkey`` for a needle.
        prediction: the generated text, unchanged.
        label: the reference; see ``label_of``.
    """
    match task:
        case "scbench_kv" | "scbench_prefix_suffix" | "scbench_hashhop" | "scbench_kv_compressible":
            return float(label in prediction)
        case "scbench_vt":
            names = [name.lower() in prediction.lower() for name in label]
            return round(sum(names) / len(names), 2)
        case "scbench_mf":
            return float(_equal(first_number(prediction), label[0] if isinstance(label, list) else label))
        case "scbench_qa_eng" | "scbench_many_shot":
            return float(any(one.upper() in prediction.strip().upper() for one in label))
        case "scbench_choice_eng":
            return choice(prediction, label)
        case "scbench_qa_chn":
            return best_f1_characters(prediction, label)
        case "scbench_passkey":
            return float(first_digits(prediction) == (label[0] if isinstance(label, list) else label))
        case "scbench_summary":
            return best_rouge_lsum(prediction, label if isinstance(label, list) else [label])
    raise AssertionError(task)


def label_of(task: str, turn: Mapping[str, Any]) -> Any:
    """The reference of a turn as the official code compares it: with its letter where there are options."""
    answer = turn["answer"]
    if task != "scbench_choice_eng":
        return answer
    text = answer[0] if isinstance(answer, list) else answer
    return [text, LETTERS[turn["options"].index(text)]]


def _equal(found: str | None, wanted: float) -> bool:
    if found is None:
        return False
    return float(found) == wanted if isinstance(wanted, float) else int(float(found)) == wanted
