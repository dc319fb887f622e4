"""Texts scored by their task; a task that cannot score a text costs the score and never the text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from harness.errors import ConfigError, Stopped
from harness.results import Record, Sample
from harness.task import OUTPUT_TOKENS, Example, Metric, Task


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
    answers: Sequence[Record | Sample] = record.samples or [record]
    try:
        scores = [_scores(task, example, answer) for answer in answers]
    except (ConfigError, Stopped):
        raise
    except Exception as error:  # a user's own task may raise anything
        reason = str(error).strip().splitlines() or [""]
        return _failed(record, f"{type(error).__name__}: {reason[0][:200]}")
    for values in scores:
        for metric in task.metrics:
            value = values.get(metric.name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                return _failed(record, f"{metric.name} is {str(value)[:60]} and not a number")
    if not record.samples:
        return structs.replace(record, scores=scores[0], error=None)
    samples = [structs.replace(sample, scores=values) for sample, values in zip(record.samples, scores, strict=True)]
    return structs.replace(record, scores=_together(scores, task.metrics), samples=samples, error=None)


def sampled_metrics(metrics: Sequence[Metric], samples: int) -> tuple[Metric, ...]:
    """The metrics of examples for which several answers were drawn: means over them (avg@k), and pass@k.

    Args:
        metrics: those of one answer, the headline metric first.
        samples: number of answers; 0 for one that is greedy.

    Returns:
        The same metrics, then, if there are 2 answers or more, one for each k of ``_at(samples)``.
    """
    if samples < 2 or not metrics:
        return tuple(metrics)
    first, *others = metrics
    passes = [Metric(f"pass@{k}", f"pass@{k}", 1.0) for k in _at(samples)]
    return (structs.replace(first, title=f"{first.title}, avg@{samples}"), *others, *passes)


def samples_of(settings: Mapping[str, Any]) -> int:
    """Number of answers that the cells of a task draw for each example; 0 if they are greedy.

    Args:
        settings: those of a manifest; a greedy reference among sampled cells names theirs, too.
    """
    return int(settings.get("sampling", {}).get("samples", 0))


def pass_at(k: int, samples: int, right: int) -> float:
    """The unbiased estimate that one of k answers is right (Chen et al., arXiv:2107.03374), 0-1.

    Args:
        k: 1 to ``samples``.
        samples: number of answers that were drawn.
        right: number of right ones among them.
    """
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def _at(samples: int) -> list[int]:
    """The k of pass@k: powers of two from 2 on, and the number of answers."""
    return sorted({2**power for power in range(1, samples.bit_length())} | {samples})


def _scores(task: Task, example: Example, answer: Record | Sample) -> dict[str, float]:
    """The scores that a task gives one answer, with what the harness counts."""
    scores = dict(task.score(example, answer.text))
    if any(metric.name == OUTPUT_TOKENS for metric in task.metrics):
        scores[OUTPUT_TOKENS] = len(answer.tokens)
    return scores


def _together(scores: Sequence[Mapping[str, float]], metrics: Sequence[Metric]) -> dict[str, float]:
    """Means over answers and, for the headline metric, pass@k: an answer with full marks is right."""
    count = len(scores)
    together = {name: math.fsum(one[name] for one in scores) / count for name in scores[0]}
    if metrics and count > 1:
        right = sum(one[metrics[0].name] == metrics[0].maximum for one in scores)
        together |= {f"pass@{k}": pass_at(k, count, right) for k in _at(count)}
    return together


def is_unscored(record: Record) -> bool:
    """Whether a record is an error of scoring alone, so that its text can be scored again."""
    return record.error is not None and record.text is not None and not record.partial


def _failed(record: Record, reason: str) -> Record:
    error = f"cannot be scored ({reason}): the text is kept, so mend the task or its references, then kvgauge score"
    return structs.replace(record, scores={}, error=error)
