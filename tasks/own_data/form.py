"""The form of a prompt: the template filled, and how an answer begins."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from tasks.checks import short
from tasks.own_data.data import Asked
from tasks.prompting import Frame, Rendered, rendered
from tasks.scores.answers import LETTERS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tasks.own_data.task import OwnData

SLOTS = ("context", "question", "choices")
ANSWER = "Answer:"
"""How an answer begins without a chat template, if nothing else is said."""


def written(
    task: OwnData, asked: Asked, frame: Frame | None, tokenizer: PreTrainedTokenizerBase, context: str | None
) -> Rendered:
    """The prompt of a question.

    Its question begins where ``{context}`` of the template ends, unless a question or its choices stand before it; a
    whole prompt has no such place.

    Args:
        task: the settings.
        asked: the question.
        frame: text of the chat template, or None for no chat template.
        tokenizer: the model's tokenizer.
        context: the context, perhaps without its middle; None for a whole prompt.
    """
    prefix = asked.answer_prefix if asked.answer_prefix is not None else task.answer_prefix
    if context is None:
        return replace(rendered("", asked.question, prefix or "", frame, tokenizer), question_at=None)
    lettered = zip(LETTERS, asked.choices, strict=False)
    choices = "".join(_fill(task.choice, {"letter": letter, "choice": text}) for letter, text in lettered)
    values = {"context": context, "question": asked.question, "choices": choices}
    before, slot, after = task.template.rpartition("{context}")
    if prefix is None:
        prefix = "" if frame else ANSWER
    end = "" if frame else task.before_answer
    prompt = rendered(_fill(before + slot, values), _fill(after, values) + end, prefix, frame, tokenizer)
    return prompt if _fill(before, values) == before else replace(prompt, question_at=None)


def check_template(template: object) -> None:
    """Refuse a template without a context, or with a slot that is nearly one of those that there are.

    Raises:
        ConfigError: says what is wrong.
    """
    if not isinstance(template, str) or "{context}" not in template:
        raise ConfigError(
            f"task.template={short(template)} has no {{context}}: put {{context}} where the record's context goes"
        )
    for name in re.findall(r"\{(\w+)\}", template):
        if name not in SLOTS and (near := difflib.get_close_matches(name, SLOTS, 1)):
            raise ConfigError(f"task.template has {{{name}}}: did you mean {{{near[0]}}}?")


def _fill(template: str, values: dict[str, str]) -> str:
    """Replace slots in one pass, so that braces in a record stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda slot: values.get(slot[1], slot[0]), template)
