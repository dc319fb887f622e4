"""Conversations: what a chat template writes between an answer and the next question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANSWER, _QUESTION = "kvgauge-answer-goes-here", "kvgauge-question-goes-here"


def between_turns(tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any], remedy: str) -> str:
    """What the tokenizer's chat template has between the end of an answer and the next question.

    Args:
        tokenizer: the model's tokenizer.
        arguments: arguments of the template.
        remedy: what asks without a second turn, for errors.

    Raises:
        ConfigError: the template takes no second turn.
    """
    messages = [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": _ANSWER},
        {"role": "user", "content": _QUESTION},
    ]
    try:
        written = str(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **dict(arguments))
        )
    except Exception as error:  # a template is a program that comes with a model
        raise ConfigError(
            f"the tokenizer's chat template takes no second turn ({type(error).__name__}): use {remedy}"
        ) from error
    if written.count(_ANSWER) != 1 or written.count(_QUESTION) != 1:
        raise ConfigError(f"the tokenizer's chat template does not write each turn once: use {remedy}")
    return written.partition(_ANSWER)[2].partition(_QUESTION)[0]
