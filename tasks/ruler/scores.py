"""RULER's two scores of a response: the share of the answers that it contains, and whether it contains any.

Source: ``scripts/eval/synthetic/constants.py`` and ``evaluate.py`` of https://github.com/NVIDIA/RULER at c3f5e3b, and
``evaluation/benchmarks/ruler/calculate_metrics.py`` of https://github.com/NVIDIA/kvpress at 8bb29b9 (both Apache-2.0);
the code is our own. lm-evaluation-harness divides ``string_match_part`` by the number of answers, which is not RULER's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.task import Metric
from tasks.ruler.recipe import kind_of

NEWLINES = ("keep", "drop")
"""What becomes of line breaks, tabs and other control characters of a response: line breaks as RULER has it, or nothing
as kvpress has it."""
_CONTROL = re.compile(r"[\x00-\x1f]")


def metric_of(task: str) -> Metric:
    """The metric of a task, 0-1 per example: ``string_match_part`` for documents, else ``string_match_all``."""
    name = "string_match_part" if kind_of(task) == "qa" else "string_match_all"
    return Metric(name, name.replace("_", " "), 1.0)


def score(task: str, response: str, answers: Sequence[str], newlines: str) -> float:
    """The score of one response, 0-1; 0 if there is no answer.

    Args:
        task: one of ``tasks.ruler.recipe.TASKS``.
        response: the generated text, unchanged.
        answers: what it should contain, whatever the case.
        newlines: one of ``NEWLINES``.
    """
    text = _CONTROL.sub("\n" if newlines == "keep" else "", response.strip()).strip().lower()
    found = [float(answer.lower() in text) for answer in answers]
    if not found:
        return 0.0
    return max(found) if metric_of(task).name == "string_match_part" else sum(found) / len(found)
