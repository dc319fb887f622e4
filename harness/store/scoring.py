"""Texts scored by their task; a task that cannot score a text costs the score and never the text."""

from __future__ import annotations

import math

from msgspec import structs

from harness.errors import ConfigError, Stopped
from harness.results import Record
from harness.task import OUTPUT_TOKENS, Example, Task


def with_scores(record: Record, task: Task, example: Example) -> Record:
    """A record with the scores of its text.

    Args:
        record: the record; an error in it is taken for one of an earlier scoring.
        task: the task.
        example: the record's example.

    Returns:
        The record with scores or, if the task raises anything or returns no number for a metric, with an error and its
        text.

    Raises:
        ConfigError: the task's settings cannot be used, whatever the text.
        Stopped: a signal came meanwhile.
    """
    try:
        scores = dict(task.score(example, record.text))
    except (ConfigError, Stopped):
        raise
    except Exception as error:  # a user's own task may raise anything
        reason = str(error).strip().splitlines() or [""]
        return _failed(record, f"{type(error).__name__}: {reason[0][:200]}")
    if any(metric.name == OUTPUT_TOKENS for metric in task.metrics):
        scores[OUTPUT_TOKENS] = len(record.tokens)
    for metric in task.metrics:
        value = scores.get(metric.name)
        if not isinstance(value, int | float) or not math.isfinite(value):
            return _failed(record, f"{metric.name} is {str(value)[:60]} and not a number")
    return structs.replace(record, scores=scores, error=None)


def is_unscored(record: Record) -> bool:
    """Whether a record is an error of scoring alone, so that its text can be scored again."""
    return record.error is not None and record.text is not None


def _failed(record: Record, reason: str) -> Record:
    error = f"cannot be scored ({reason}): the text is kept, so mend the task or its references, then kvgauge score"
    return structs.replace(record, scores={}, error=error)
