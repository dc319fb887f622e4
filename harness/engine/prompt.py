"""Prompts: a task's examples encoded as token ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.task import Example
from harness.text import shared_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_CHARACTERS = 300
"""Characters that a record shows of each end of a prompt: enough for a question inside a chat template."""


@dataclass(frozen=True)
class Prompt:
    """An example as the model reads it.

    Attributes:
        example: the example, without its prompt and text, which a long run would otherwise hold twice.
        ids: its token ids, 1 or more, int32; in a conversation, with those of the turns before but no answers.
        sha256: hash of the ids.
        ends: see ``Record.prompt_ends``.
        is_text: whether the example's prompt is a text, not token ids.
        context_tokens: number of its first tokens after which entries are selected, 1 or more: all of them, or those of
            the context alone.
        asked_at: in a conversation, where its own question begins in ``ids``, behind those of the turns before; None
            for a prompt without a past.
    """

    example: Example
    ids: NDArray[np.int32]
    sha256: str
    ends: tuple[str, ...]
    is_text: bool
    context_tokens: int
    asked_at: int | None = None

    @property
    def context(self) -> NDArray[np.int32]:
        """The tokens that are prefilled, after which entries are selected."""
        return self.ids[: self.context_tokens]

    @property
    def question(self) -> NDArray[np.int32]:
        """The tokens that run through each compressed cache: none if entries are selected after the whole prompt."""
        return self.ids[self.context_tokens if self.asked_at is None else self.asked_at :]


def encode_prompts(
    examples: Iterable[Example],
    tokenizer: PreTrainedTokenizerBase | None,
    vocabulary: int,
    after: Literal["prompt", "context"] = "prompt",
) -> list[Prompt]:
    """Encode the prompts of examples.

    A text is encoded with the special tokens that the tokenizer adds by itself, unless it goes on with a conversation;
    token ids stay as they are.

    Args:
        examples: the examples, each with an id of its own.
        tokenizer: the model's tokenizer; None if all prompts are token ids.
        vocabulary: number of token ids that the model knows.
        after: where entries are selected; see ``Selection``. With ``context``, every example must say where its
            question begins.

    Raises:
        DataError: two examples share an id, a prompt is empty, or it has a token id that the model does not know; or
            a context is empty or longer than its prompt; or an example follows none before it.
    """
    prompts: dict[str, Prompt] = {}
    for example in examples:
        if example.id in prompts:
            raise DataError(f"two examples have the id {example.id!r}: give each its own")
        ids = _encode(example, tokenizer)
        if not ids:
            raise DataError(f"the prompt of example {example.id!r} has no token: give it at least one")
        if unknown := [i for i in ids if not 0 <= i < vocabulary]:
            raise DataError(
                f"the prompt of example {example.id!r} has token id {unknown[0]}, but the model knows "
                f"0 to {vocabulary - 1}: use the prompts or the tokenizer of this model"
            )
        array = np.asarray(ids, dtype="<i4")
        if example.follows is None:
            context = len(ids) if after == "prompt" else _context_tokens(example, ids, tokenizer)
            asked_at = None
        elif (before := prompts.get(example.follows)) is None:
            raise DataError(
                f"example {example.id!r} follows {example.follows!r}, which is none before it: mend the task"
            )
        else:
            context, asked_at = before.context_tokens, len(before.ids)
            array = np.concatenate([before.ids, array])
        prompts[example.id] = Prompt(
            replace(example, prompt=()),
            array,
            hashlib.sha256(array.tobytes()).hexdigest(),
            _ends(example, tokenizer),
            isinstance(example.prompt, str),
            context,
            asked_at,
        )
    return list(prompts.values())


def _context_tokens(example: Example, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase | None) -> int:
    """Number of tokens with which the prompt begins as its context alone does."""
    at = example.question_at
    assert at is not None
    if not 0 <= at <= len(example.prompt):
        unit = "characters" if isinstance(example.prompt, str) else "tokens"
        raise DataError(
            f"the question of example {example.id!r} begins at {at} (question_at), but its prompt has "
            f"{len(example.prompt)} {unit}: mend the task"
        )
    tokens = at
    if isinstance(example.prompt, str):
        tokens = shared_tokens(ids, _encode(replace(example, prompt=example.prompt[:at]), tokenizer))
    if not tokens:
        raise DataError(
            f"example {example.id!r} has no context before its question, so there is nothing to compress: use "
            "selection.after=prompt"
        )
    return tokens


def _ends(example: Example, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, ...]:
    """The ends of a prompt and the passages between them; of token ids, the text with special tokens written out."""
    prompt, most = example.prompt, 2 * END_CHARACTERS
    if isinstance(prompt, str):
        whole, first, last = True, prompt, prompt
    elif tokenizer is None:
        return ()
    else:
        # A token has a character or more, but for parts of rare ones: as many tokens as characters are enough.
        whole = len(prompt) <= 2 * most
        parts = [prompt] * 2 if whole else [prompt[:most], prompt[-most:]]
        first, last = (cast("str", tokenizer.decode(list(part), clean_up_tokenization_spaces=False)) for part in parts)
    if whole and len(first) <= most:
        return (first,)
    return (first[:END_CHARACTERS], *example.passages, last[-END_CHARACTERS:])


def _encode(example: Example, tokenizer: PreTrainedTokenizerBase | None) -> tuple[int, ...]:
    if not isinstance(example.prompt, str):
        return tuple(example.prompt)
    assert tokenizer is not None
    # verbose=False, because the run itself reports a prompt that is longer than the tokenizer's limit.
    special = {} if example.follows is None else {"add_special_tokens": False}
    return tuple(tokenizer.encode(example.prompt, verbose=False, **special))
