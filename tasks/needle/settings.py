"""Checks of a needle task's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import ConfigError
from tasks.checks import is_list, is_whole, short, whole
from tasks.needle.form import check_form, templates
from tasks.needle.words import MOST
from tasks.prompting import CLEAN_UP

if TYPE_CHECKING:
    from tasks.needle.task import Needle


def is_drawn(task: Needle) -> bool:
    """Whether any template contains a drawn key or value."""
    every = (task.needle, task.question, *templates(task), *task.answers)
    return any(slot in template for template in every for slot in ("{key}", "{value}"))


def check_needle(task: Needle) -> None:
    """Refuse settings that would fail later, or would measure something else than they say.

    Raises:
        ConfigError: a setting cannot be used.
    """
    for knob in ("name", "needle", "question", "haystack"):
        value = getattr(task, knob)
        if not isinstance(value, str) or (knob != "question" and not value.strip()):
            raise ConfigError(f"task.{knob}={short(value)} is not a text: give it one, in quotes")
    if not is_list(task.answers) or not task.answers or not all(isinstance(a, str) and a.strip() for a in task.answers):
        raise ConfigError(
            f"task.answers={short(task.answers)} is not a list of texts: use task.answers=['first','second']"
        )
    check_form(task)
    for knob, least in (
        ("samples", 1),
        ("distractors", 0),
        ("reserve_tokens", 0),
        ("max_new_tokens", 1),
        ("min_new_tokens", 0),
    ):
        whole(getattr(task, knob), f"task.{knob}", least)
    if task.min_new_tokens > task.max_new_tokens:
        raise ConfigError(
            f"task.min_new_tokens={task.min_new_tokens} is above task.max_new_tokens={task.max_new_tokens}: use less"
        )
    periods = task.period_tokens
    if periods is not None and not (is_list(periods) and periods and all(is_whole(p) and p >= 0 for p in periods)):
        raise ConfigError(
            f"task.period_tokens={short(periods)} is not a list of token ids: use null for the tokenizer's period"
        )
    if not is_whole(task.seed):
        raise ConfigError(f"task.seed={short(task.seed)} is not a whole number: use one")
    for knob in ("stop_at_newline", "ignore_punctuation"):
        if not isinstance(getattr(task, knob), bool):
            raise ConfigError(f"task.{knob}={short(getattr(task, knob))} is neither true nor false: use one of them")
    if task.clean_up not in CLEAN_UP:
        raise ConfigError(f"task.clean_up={short(task.clean_up)} is unknown: use one of {', '.join(CLEAN_UP)}")
    if task.samples > 1 and not is_drawn(task):
        raise ConfigError(
            f"task.samples={task.samples} would repeat the same example, as no template of {task.name} holds "
            f"{{key}} or {{value}}: use task.samples=1"
        )
    if task.distractors and "{key}" not in task.needle:
        raise ConfigError(
            f"task.distractors={task.distractors} would repeat the same needle, as task.needle of {task.name} "
            f"holds no {{key}}: use task.distractors=0"
        )
    if task.distractors >= MOST:
        raise ConfigError(
            f"task.distractors={task.distractors} is not below {MOST}, the number of different keys: use fewer"
        )
    _ = task.metrics  # refuses an unknown ``show``
