"""The form of a prompt: the template filled, and how an answer begins."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from tasks.checks import short
from tasks.conversation import between_turns
from tasks.own_data.data import Asked
from tasks.prompting import Frame, Rendered, rendered
from tasks.scores.answers import LETTERS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tasks.own_data.task import OwnData

HISTORY = ("none", "references", "own_answers")
"""What a question of a record comes behind: the context alone; also the questions before it and their reference
answers; or these questions and the model's own answers, which stay in the cache."""
SLOTS = ("context", "question", "choices")
ANSWER = "Answer:"
"""How an answer begins without a chat template, if nothing else is said."""


def written(
    task: OwnData, asked: Asked, frame: Frame | None, tokenizer: PreTrainedTokenizerBase, context: str | None
) -> Rendered:
    """The prompt of a question, by itself or behind those of its record before it and their reference answers.

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
    values = _values(task, asked, context)
    before, slot, _ = task.template.rpartition("{context}")
    question, prefix = _asking(task, asked, frame)
    if task.history == "references" and asked.before:
        between = _between(task, frame, tokenizer)
        first, *others = (*asked.before, asked)
        question = _asking(task, first, frame)[0]
        for one, following in zip(asked.before, others, strict=True):
            said = (frame.after if frame else "") + _with_answer(_asking(task, one, frame)[1], one.answers[0])
            question += said + between + _following(task, following, frame)
    prompt = rendered(_fill(before + slot, values), question, prefix, frame, tokenizer)
    return prompt if _fill(before, values) == before else replace(prompt, question_at=None)


def follow_up(
    task: OwnData, asked: Asked, frame: Frame | None, tokenizer: PreTrainedTokenizerBase
) -> str | tuple[int, ...]:
    """What comes behind the model's own answer to the question before: the end of the turn, and the next question.

    Args:
        task: the settings.
        asked: the question.
        frame: text of the chat template, or None for no chat template.
        tokenizer: the model's tokenizer.
    """
    text = _between(task, frame, tokenizer) + _following(task, asked, frame)
    prefix = _asking(task, asked, frame)[1]
    if frame is None:
        return text + prefix
    return tuple(tokenizer.encode(text + frame.after + prefix, add_special_tokens=False, verbose=False))


def _asking(task: OwnData, asked: Asked, frame: Frame | None) -> tuple[str, str]:
    """What stands behind the context up to the answer, and the beginning of the answer."""
    prefix = asked.answer_prefix if asked.answer_prefix is not None else task.answer_prefix
    if prefix is None:
        prefix = "" if frame else ANSWER
    after = task.template.rpartition("{context}")[2]
    return _fill(after, _values(task, asked, "")) + ("" if frame else task.before_answer), prefix


def _following(task: OwnData, asked: Asked, frame: Frame | None) -> str:
    """A question behind an answer; in a chat it has a message of its own."""
    question = _asking(task, asked, frame)[0]
    return question.lstrip() if frame else question


def _between(task: OwnData, frame: Frame | None, tokenizer: PreTrainedTokenizerBase) -> str:
    return between_turns(tokenizer, task.chat_arguments, "task.history=none") if frame else ""


def _with_answer(prefix: str, answer: str) -> str:
    """A begun answer with its end; a word does not stick to what stands before it."""
    return f"{prefix} {answer}" if prefix and not prefix[-1].isspace() else prefix + answer


def _values(task: OwnData, asked: Asked, context: str) -> dict[str, str]:
    """What the slots of the template are filled with."""
    lettered = zip(LETTERS, asked.choices, strict=False)
    choices = "".join(_fill(task.choice, {"letter": letter, "choice": text}) for letter, text in lettered)
    return {"context": context, "question": asked.question, "choices": choices}


def check_template(template: object, history: str) -> None:
    """Refuse a template without a context, or with a slot that is nearly one of those that there are.

    Args:
        template: the template.
        history: what a question comes behind; see ``HISTORY``.

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
    if history != "none" and "{question}" not in template.rpartition("{context}")[2]:
        raise ConfigError(
            f"task.history={history} needs {{question}} behind {{context}}, and task.template={short(template)} has it "
            "not there: move it, or use task.history=none"
        )


def _fill(template: str, values: dict[str, str]) -> str:
    """Replace slots in one pass, so that braces in a record stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda slot: values.get(slot[1], slot[0]), template)
