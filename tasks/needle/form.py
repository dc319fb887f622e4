"""The form of a needle's prompt: the published text, or a question in the model's chat template.

In the chat form the answer can be begun for the model, as RULER does (https://github.com/NVIDIA/RULER, Apache-2.0): a
small model that is only asked may answer in its own words, and a large one may explain first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from tasks.checks import short
from tasks.prompting import Frame, Rendered, check_chat, rendered
from tasks.prompting import frame_of as framed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tasks.needle.task import Needle


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace slots in one pass, so that braces in the haystack or in a needle stay as they are."""
    return re.sub(r"\{(context|question|key|value)\}", lambda match: values.get(match[1], match[0]), template)


def forms(task: Needle) -> tuple[str, ...]:
    """The settings that hold the prompt's template: in a chat template, without one, or both if either may come."""
    if isinstance(task.chat, bool):
        return ("message",) if task.chat else ("prompt",)
    return ("message", "prompt")


def templates(task: Needle) -> tuple[str, ...]:
    """All templates of the prompt that may be used."""
    return (*(getattr(task, form) for form in forms(task)), *((task.answer_prefix,) if task.chat else ()))


def form_settings(task: Needle) -> Mapping[str, Any]:
    """The part of ``settings()`` that says how a prompt is written."""
    if not task.chat:
        return {"prompt": task.prompt}
    return {
        "chat": task.chat,
        "chat_arguments": dict(task.chat_arguments),
        **{form: getattr(task, form) for form in forms(task)},
        "answer_prefix": task.answer_prefix,
    }


def frame_of(task: Needle, tokenizer: PreTrainedTokenizerBase) -> Frame | None:
    """The text of the chat template, or None in the published form.

    Raises:
        ConfigError: the tokenizer has no usable chat template and one is needed.
    """
    return framed(task.chat, tokenizer, task.chat_arguments)


def written(
    task: Needle, texts: Mapping[str, str], frame: Frame | None, tokenizer: PreTrainedTokenizerBase
) -> Rendered:
    """The prompt of an example; its question begins where its haystack ends, unless it was asked before it.

    Args:
        task: the task.
        texts: ``context``, ``question``, ``key`` and ``value``.
        frame: see ``frame_of``.
        tokenizer: the model's tokenizer.
    """
    before, context, after = (task.prompt if frame is None else task.message).rpartition("{context}")
    prefix = "" if frame is None else fill(task.answer_prefix, texts)
    prompt = rendered(fill(before + context, texts), fill(after, texts), prefix, frame, tokenizer)
    return prompt if fill(before, texts) == before else replace(prompt, question_at=None)


def check_form(task: Needle) -> None:
    """Refuse settings of the form that would fail later.

    Raises:
        ConfigError: a setting cannot be used.
    """
    check_chat(task.chat)
    if not isinstance(task.chat_arguments, Mapping):
        raise ConfigError(
            f"task.chat_arguments={short(task.chat_arguments)} is not a mapping: use {{}} or {{enable_thinking: false}}"
        )
    if not isinstance(task.answer_prefix, str):
        raise ConfigError(f"task.answer_prefix={short(task.answer_prefix)} is not a text: use task.answer_prefix=''")
    for knob in forms(task):
        template = getattr(task, knob)
        if not isinstance(template, str) or not template.strip():
            raise ConfigError(f"task.{knob}={short(template)} is not a text: give it one, in quotes")
        if "{context}" not in template:
            raise ConfigError(
                f"task.{knob}={short(template)} has no {{context}}: put {{context}} where the haystack goes"
            )
