"""The form of a needle's prompt: the published text, or a question in the model's chat template.

In the chat form the answer can be begun for the model, as RULER does (https://github.com/NVIDIA/RULER, Apache-2.0): a
small model that is only asked may answer in its own words, and a large one may explain first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.text import shared_tokens
from tasks.checks import short
from tasks.needle.context import encode
from tasks.prompting import Frame, chat_frame

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tasks.needle.task import Needle


_CONTEXT = "{context}"


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace slots in one pass, so that braces in the haystack or in a needle stay as they are."""
    return re.sub(r"\{(context|question|key|value)\}", lambda match: values.get(match[1], match[0]), template)


def templates(task: Needle) -> tuple[str, ...]:
    """The templates of the prompt in the form that is asked for; the first one holds the context."""
    return (task.message, task.answer_prefix) if task.chat else (task.prompt,)


def form_settings(task: Needle) -> Mapping[str, Any]:
    """The part of ``settings()`` that says how a prompt is written."""
    if not task.chat:
        return {"prompt": task.prompt}
    return {
        "chat": True,
        "chat_arguments": dict(task.chat_arguments),
        "message": task.message,
        "answer_prefix": task.answer_prefix,
    }


def frame_of(task: Needle, tokenizer: PreTrainedTokenizerBase) -> Frame | None:
    """The text of the chat template, or None in the published form.

    Raises:
        ConfigError: the tokenizer has no usable chat template and one is needed.
    """
    return chat_frame(tokenizer, task.chat_arguments) if task.chat else None


def written(
    task: Needle, texts: Mapping[str, str], frame: Frame | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[str | tuple[int, ...], int]:
    """The prompt of an example, and where its question begins, right behind the context; see ``Example``.

    A prompt in a chat template is given as token ids, because the template contains its own special tokens and the
    tokenizer would add another first one.

    Args:
        task: the task.
        texts: ``context``, ``question``, ``key`` and ``value``.
        frame: see ``frame_of``.
        tokenizer: the model's tokenizer.
    """
    template = task.message if task.chat else task.prompt
    end = template.rindex(_CONTEXT) + len(_CONTEXT)
    context, question = fill(template[:end], texts), fill(template[end:], texts)
    if frame is None:
        return context + question, len(context)
    context = frame.before + context
    ids = encode(tokenizer, context + question + frame.after + fill(task.answer_prefix, texts))
    return tuple(ids), shared_tokens(ids, encode(tokenizer, context))


def check_form(task: Needle) -> None:
    """Refuse settings of the form that would fail later.

    Raises:
        ConfigError: a setting cannot be used.
    """
    if not isinstance(task.chat, bool):
        raise ConfigError(f"task.chat={short(task.chat)} is neither true nor false: use one of them")
    if not isinstance(task.chat_arguments, Mapping):
        raise ConfigError(
            f"task.chat_arguments={short(task.chat_arguments)} is not a mapping: use {{}} or {{enable_thinking: false}}"
        )
    if not isinstance(task.answer_prefix, str):
        raise ConfigError(f"task.answer_prefix={short(task.answer_prefix)} is not a text: use task.answer_prefix=''")
    knob = "message" if task.chat else "prompt"
    template = getattr(task, knob)
    if not isinstance(template, str) or not template.strip():
        raise ConfigError(f"task.{knob}={short(template)} is not a text: give it one, in quotes")
    if _CONTEXT not in template:
        raise ConfigError(f"task.{knob}={short(template)} has no {{context}}: put {{context}} where the haystack goes")
