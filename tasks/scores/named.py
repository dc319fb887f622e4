"""Metrics by name: what ``task.metrics=[contains,f1]`` can ask for, each the best over an example's references.

No score is defined here. F1, ROUGE-L and their Chinese forms are LongBench's, ``rouge_score_*`` are Google's package.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from harness.errors import ConfigError
from harness.task import Metric
from tasks.checks import is_list, short
from tasks.scores.answers import choice, contains, exact_match, last_number, number, pattern
from tasks.scores.rouge_l import ROUGE_SCORES, rouge_l, rouge_score_f
from tasks.scores.text import qa_f1, qa_f1_zh, rouge_l_zh

CHOICE = "choice"
_ROUGE_SCORE = "rouge_score_"
_OF: Mapping[str, tuple[str, Callable[[str, str], float]]] = {
    "exact_match": ("exact match", exact_match),
    "contains": ("contains answer", contains),
    "f1": ("F1", qa_f1),
    "f1_zh": ("F1 (zh)", qa_f1_zh),
    "rouge_l": ("ROUGE-L (rouge 1.0.1)", rouge_l),
    "rouge_l_zh": ("ROUGE-L (rouge 1.0.1, jieba)", rouge_l_zh),
    "number": ("number", number),
    "regex": ("pattern found", pattern),
}
_TITLES: Mapping[str, str] = {
    **{name: title for name, (title, _) in _OF.items()},
    CHOICE: "accuracy",
    **{f"{_ROUGE_SCORE}{measure}": f"{measure} (rouge-score)" for measure in ROUGE_SCORES},
}
NAMES = tuple(_TITLES)
"""The metrics that there are."""


def named_metrics(names: object, show: object, setting: str = "task.metrics") -> tuple[Metric, ...]:
    """Metrics by their names, with the one to show first.

    Args:
        names: their names, each once.
        show: the name of the headline metric; None for the first.
        setting: the setting that names them, for errors.

    Raises:
        ConfigError: the names are no list of metrics, or the one to show is none of them.
    """
    if not is_list(names):
        raise ConfigError(f"{setting}={short(names)} is not a list: use {setting}=[contains,f1]")
    for name in names:
        if name not in _TITLES:
            near = difflib.get_close_matches(str(name), NAMES, 1)
            remedy = f"did you mean {near[0]}?" if near else f"use some of {', '.join(NAMES)}"
            raise ConfigError(f"{setting} has {short(name)}, which is no metric: {remedy}")
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise ConfigError(f"{setting} names {twice[0]} twice: leave one of them out")
    if show is not None and show not in names:
        known = ", ".join(map(str, names)) or "no metric"
        raise ConfigError(f"task.show={short(show)} is not in {setting}: use one of {known}")
    wanted = sorted(map(str, names), key=lambda name: show is not None and name != show)
    return tuple(Metric(name, _TITLES[name], 1.0) for name in wanted)


def named_scores(
    names: Sequence[str], prediction: str, references: Sequence[str], choices: Sequence[str] = ()
) -> dict[str, float]:
    """The scores of one prediction, 0-1, each the best over the references; 0 if there is no reference.

    Args:
        names: some of ``NAMES``.
        prediction: the generated text.
        references: acceptable answers; patterns for ``regex``.
        choices: the texts of the choices, for ``choice``.
    """
    measures = [name.removeprefix(_ROUGE_SCORE) for name in names if name.startswith(_ROUGE_SCORE)]
    best = dict.fromkeys(names, 0.0)
    for reference in references:
        values = {name: _OF[name][1](prediction, reference) for name in names if name in _OF}
        if measures:
            values |= {
                f"{_ROUGE_SCORE}{measure}": value
                for measure, value in rouge_score_f(prediction, reference, measures).items()
            }
        if CHOICE in names:
            values[CHOICE] = choice(prediction, reference, choices)
        best = {name: max(best[name], values[name]) for name in names}
    return best


def named_settings(names: Sequence[str]) -> dict[str, Any]:
    """What such scores depend on besides text and references: the metrics, and jieba where it cuts words."""
    return {"metrics": sorted(names)} | ({"jieba": version("jieba")} if {"f1_zh", "rouge_l_zh"} & set(names) else {})


def unscorable(names: Sequence[str], reference: str, choices: Sequence[str]) -> str | None:
    """What is wrong with a reference, to follow its name in an error; None if each metric can score it.

    Args:
        names: some of ``NAMES``.
        reference: an answer.
        choices: the texts of the choices, if there are any.
    """
    if "regex" in names:
        try:
            re.compile(reference)
        except re.error as error:
            return f"is no regular expression ({error}), as the metric regex needs"
    if "number" in names and last_number(reference) is None:
        return "names no number, as the metric number needs"
    if CHOICE in names and reference not in choices:
        return "is none of the choices, as the metric choice needs"
    return None
