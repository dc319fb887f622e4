"""Prompts: context, question and begun answer within a chat template or without one, and LongBench's truncation.

LongBench's rule: a long text loses its middle, gets a chat template and is encoded again; ``pred.py`` of
https://github.com/THUDM/LongBench at c5ea10b (MIT). The chat template does not count towards the limit, and encoding
the two halves as one text can change the length by a few tokens, as in the published runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.text import decode, plain, shared_tokens
from tasks.checks import short

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLEAN_UP = ("tokenizer", "installed", "always", "never")
"""Whether decoded texts lose spaces before punctuation: as the tokenizer's files ask for, which is what transformers
did at the time of the published runs; as the installed version of transformers does; always; or never."""
CHAT = "auto"
"""The value of ``task.chat`` that takes a chat template where the tokenizer has one."""
_SLOT = "kvgauge-prompt-goes-here"
_CLOCK = "strftime_now"
"""The function by which a chat template asks for today's date; an argument of this name sets the day instead."""
_DAY = "2024-07-26"
"""The day that such a template gets, so that a prompt is the same tomorrow; Llama-3.1's writes it where it has no
clock."""


@dataclass(frozen=True)
class Frame:
    """The text that a chat template puts before and after the user's message, with special tokens written out."""

    before: str
    after: str


@dataclass(frozen=True)
class Rendered:
    """A prompt with the place where its question begins; both are fields of ``harness.task.Example``.

    Attributes:
        prompt: a text without a chat template, to which the tokenizer adds its special tokens; else token ids.
        question_at: where the question begins: in characters of a text, in tokens of ids; None if it is not behind the
            context.
    """

    prompt: str | tuple[int, ...]
    question_at: int | None


@dataclass(frozen=True)
class Fitted:
    """A prompt as the model reads it.

    Attributes:
        ids: token ids after truncation, chat template included.
        tokens_before_truncation: number of tokens of the whole prompt, with the tokenizer's special tokens and without
            a chat template.
    """

    ids: tuple[int, ...]
    tokens_before_truncation: int


def cleans_up(how: str, tokenizer: PreTrainedTokenizerBase) -> bool | None:
    """Whether spaces of decoded texts are cleaned up; None for whatever the installed version of transformers does.

    Args:
        how: one of ``CLEAN_UP``.
        tokenizer: the model's tokenizer, which says in its files whether it asks for the clean-up.
    """
    if how == "tokenizer":
        return bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))
    return {"always": True, "never": False}.get(how)


def check_chat(chat: object) -> bool | str:
    """``chat``, checked to be a value of ``task.chat``: true, false or auto.

    Raises:
        ConfigError: it is none of them.
    """
    if not isinstance(chat, bool) and chat != CHAT:
        raise ConfigError(f"task.chat={short(chat)} is neither true nor false nor {CHAT}: use one of them")
    return chat if isinstance(chat, bool) else CHAT


def frame_of(chat: bool | str, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any]) -> Frame | None:
    """The text of the chat template, or None for no chat template.

    Args:
        chat: whether to use it; ``auto``: if the tokenizer has one.
        tokenizer: the model's tokenizer.
        arguments: see ``chat_frame``.

    Raises:
        ConfigError: a template is needed, and there is none or it cannot be used.
    """
    wanted = bool(tokenizer.chat_template) if chat == CHAT else chat
    return chat_frame(tokenizer, arguments) if wanted else None


def rendered(
    context: str, question: str, answer_prefix: str, frame: Frame | None, tokenizer: PreTrainedTokenizerBase
) -> Rendered:
    """The prompt of a question about a context: context, question, end of the chat turn, begun answer.

    What the chat template writes before the user's message belongs to the context; the end of the turn and the begun
    answer belong to the question.

    Args:
        context: the beginning of the user's message, up to where the question begins.
        question: the rest of it.
        answer_prefix: the beginning of the answer, as it is; "" leaves all of it to the model.
        frame: text of the chat template, or None for no chat template.
        tokenizer: the model's tokenizer.
    """
    if frame is None:
        return Rendered(context + question + answer_prefix, len(context))
    before = frame.before + context
    # A chat template contains its own special tokens; adding the tokenizer's would double the first.
    ids = _encode(before + question + frame.after + answer_prefix, tokenizer, special=False)
    return Rendered(tuple(ids), shared_tokens(ids, _encode(before, tokenizer, special=False)))


def line_break(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token of a line break, for ``task.stop_at_newline=true``; of one that takes several tokens, the last.

    Raises:
        ConfigError: the tokenizer has no token for it.
    """
    ids = _encode("\n", tokenizer, special=False)
    if not ids:
        raise ConfigError(
            "task.stop_at_newline=true, but the tokenizer has no token for a line break: use task.stop_at_newline=false"
        )
    return ids[-1]


def fit(
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    frame: Frame | None,
    clean_up: bool | None = None,
) -> Fitted:
    """The ids of a prompt.

    Special tokens count towards the limit. Truncation drops all of them in decoding, both those that the tokenizer adds
    and those written in the text.

    Args:
        text: the filled template.
        tokenizer: the model's tokenizer.
        max_tokens: the limit, 2 or more; a longer prompt keeps its first and last ``max_tokens // 2`` tokens.
        frame: text of the chat template, or None for no chat template.
        clean_up: see ``harness.text.decode``; both halves of a long prompt are decoded.
    """
    whole = _encode(text, tokenizer)
    kept = text if len(whole) <= max_tokens else without_middle(whole, tokenizer, max_tokens, clean_up)
    if frame is not None:
        # A chat template contains its own special tokens; adding the tokenizer's would double the first.
        return Fitted(tuple(_encode(frame.before + kept + frame.after, tokenizer, special=False)), len(whole))
    return Fitted(tuple(whole if kept is text else _encode(kept, tokenizer)), len(whole))


def chat_frame(tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any]) -> Frame:
    """The text that the tokenizer's chat template puts around a single user message, up to the start of the answer.

    The prompt is inserted between the two parts afterwards, unchanged, because many templates strip the white space
    that some prompts end in.

    A template that asks for today's date gets the same day always.

    Args:
        tokenizer: the model's tokenizer.
        arguments: arguments of the template, for example ``enable_thinking: false``; ``strftime_now`` is the day that
            it gets for today, as ``2024-07-26``.

    Raises:
        ConfigError: there is no template, or it cannot be used in this way.
    """
    if not tokenizer.chat_template:
        raise ConfigError(
            "task.chat=true, but the tokenizer has no chat template: use task.chat=false, or an instruction-tuned model"
        )
    day = arguments.get(_CLOCK, _DAY)
    try:
        today = date.fromisoformat(day)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"task.chat_arguments.{_CLOCK}={short(day)} is no day: use one such as {_DAY}") from error
    values = {name: value for name, value in arguments.items() if name != _CLOCK}
    message = [{"role": "user", "content": _SLOT}]
    try:
        template = tokenizer.get_chat_template()
        if _CLOCK in template:
            values["chat_template"] = _stopped_clock(today) + template
        written = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, **values)
    except Exception as error:  # a template is a program that comes with a model
        reason = plain(str(error))[:120] or type(error).__name__
        raise ConfigError(
            f"the tokenizer's chat template fails ({reason}): use task.chat=false, or other task.chat_arguments"
        ) from error
    parts = str(written).split(_SLOT)
    if len(parts) != 2:
        raise ConfigError(
            f"the tokenizer's chat template writes the message {len(parts) - 1} times: use task.chat=false"
        )
    return Frame(*parts)


def _stopped_clock(today: date) -> str:
    """The beginning of a chat template in which today is always the same day, at midnight.

    transformers gives templates its own clock, and hands them no function from outside.
    """
    midnight = datetime(today.year, today.month, today.day)
    forms = [f"%{flag}{letter}" for letter in "aAbBcdeFHIjmMpSuwxXyY" for flag in ("", "-")]
    replaced = "".join(f"|replace({json.dumps(form)}, {json.dumps(midnight.strftime(form))})" for form in forms)
    # The last braces keep a line break that the template may begin with.
    return f"{{% macro {_CLOCK}(form) %}}{{{{ form{replaced} }}}}{{% endmacro %}}{{{{ '' }}}}"


def _encode(text: str, tokenizer: PreTrainedTokenizerBase, special: bool = True) -> list[int]:
    # verbose=False: no warning about a prompt beyond the tokenizer's limit, because it is truncated anyway.
    return list(tokenizer.encode(text, add_special_tokens=special, verbose=False))


def without_middle(
    ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, max_tokens: int, clean_up: bool | None = None
) -> str:
    """The text of the first and last ``max_tokens // 2`` tokens, which may be encoded into a few more or less.

    Args:
        ids: more than ``max_tokens`` tokens.
        tokenizer: the model's tokenizer.
        max_tokens: the limit, 2 or more.
        clean_up: see ``harness.text.decode``.
    """
    half = max_tokens // 2
    return "".join(decode(tokenizer, part, clean_up) for part in (ids[:half], ids[-half:]))
