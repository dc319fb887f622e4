"""The prompt of a record: RULER's text as it is or in a chat template, or its parts as kvpress encodes them.

In kvpress's form context and question are encoded one by one, and without a chat template a line break parts question
and answer: ``kvpress/pipeline.py`` of https://github.com/NVIDIA/kvpress at 8bb29b9 (Apache-2.0); read, not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.text import shared_tokens
from tasks.prompting import Frame, chat_frame
from tasks.ruler.records import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROTOCOLS = ("official", "kvpress")
Prompt = tuple[str | tuple[int, ...], int]
"""A prompt, and where its question begins, as in ``harness.task.Example``."""


def frame_of(
    protocol: str, chat: bool | str, arguments: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> Frame | None:
    """What stands before and after the message; None if a prompt is RULER's text alone.

    Args:
        protocol: one of ``PROTOCOLS``.
        chat: whether to use the chat template; ``auto`` to use it if there is one.
        arguments: arguments of the chat template; kvpress turns ``enable_thinking`` off unless they say otherwise.
        tokenizer: the model's tokenizer.

    Raises:
        ConfigError: there is no template, or it cannot be used.
    """
    if chat is True or (chat == "auto" and tokenizer.chat_template):
        return chat_frame(tokenizer, {"enable_thinking": False, **arguments} if protocol == "kvpress" else arguments)
    return Frame(str(tokenizer.bos_token or ""), "\n") if protocol == "kvpress" else None


def prompt_of(record: Record, protocol: str, frame: Frame | None, tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """The prompt of a record.

    Args:
        record: the record.
        protocol: one of ``PROTOCOLS``.
        frame: see ``frame_of``.
        tokenizer: the model's tokenizer.
    """
    if frame is None:
        return record.text, len(record.context)
    context = encode(frame.before + record.context, tokenizer)
    if protocol == "kvpress":
        return (*context, *encode(record.question + frame.after + record.answer_prefix, tokenizer)), len(context)
    # RULER's answer begins with the space that ends kvpress's question.
    message = record.context + record.question.removesuffix(" ")
    answer_prefix = record.text[len(message) :]
    whole = encode(frame.before + message + frame.after + answer_prefix, tokenizer)
    return tuple(whole), shared_tokens(whole, context)


def encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of a text, without special tokens but those written in it."""
    return list(tokenizer.encode(text, add_special_tokens=False, verbose=False))
