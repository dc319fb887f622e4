"""The context of a needle: the haystack is read, cut to length, and searched for the ends of sentences."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from harness.errors import DataError
from harness.text import decode
from tasks.needle.haystack import builtin_text
from tasks.text_folder import joined_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILTIN = "builtin"

# A tokenizer may merge the text on both sides of a cut, so the text is cut this many tokens behind the last one used.
_MARGIN_TOKENS = 64
_MAX_CHARACTERS_PER_TOKEN = 200

_AROUND_CHARACTERS = 200


def read_haystack(source: str) -> str:
    """The text to hide needles in.

    Args:
        source: ``builtin``, or a folder, whose ``*.txt`` files are joined in the order of their names, with nothing
            between them; a byte-order mark at the beginning of a file is no part of its text.

    Raises:
        DataError: the folder is missing, contains no ``.txt`` file, one that leads nowhere, is not UTF-8 or holds the
            same text as another, or nothing but white space.
    """
    return builtin_text() if source == BUILTIN else joined_texts(source, "task.haystack", BUILTIN)


def haystack_tokens(
    text: str, length: int, tokenizer: PreTrainedTokenizerBase, clean_up: bool | None = None
) -> list[int]:
    """The first ``length`` tokens of ``text``, repeated as often as needed.

    They are decoded and encoded again, as in the published code. Only about as much text as is needed is encoded, and
    the result depends on nothing but the arguments.

    Raises:
        DataError: the tokenizer makes hardly any tokens of this text.
    """
    wanted = length + _MARGIN_TOKENS
    characters = 6 * wanted  # a little more than English takes
    while True:
        ids = encode(tokenizer, (text * (characters // len(text) + 1))[:characters])
        if len(ids) >= wanted:
            return encode(tokenizer, decode(tokenizer, ids[:length], clean_up))
        if characters > _MAX_CHARACTERS_PER_TOKEN * wanted:
            raise DataError(
                f"task.haystack gives {len(ids)} tokens for {characters} characters: use a text of ordinary words"
            )
        characters *= 2


def insertion_point(context: Sequence[int], depth: float, periods: AbstractSet[int]) -> int:
    """The number of tokens of ``context`` that come before the needle.

    All of them at depth 100; otherwise ``depth`` percent, moved back to the nearest end of a sentence, or to 0.
    """
    if depth == 100:
        return len(context)
    point = int(len(context) * (depth / 100))
    while point > 0 and context[point - 1] not in periods:
        point -= 1
    return point


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of ``text``, without added special tokens."""
    # verbose=False: a haystack longer than the model's limit is cut on purpose, so the tokenizer's warning is noise.
    return list(tokenizer.encode(text, add_special_tokens=False, verbose=False))


def period_ids(given: Sequence[int] | None, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that end a sentence.

    Args:
        given: the ids from the configuration; None for the tokenizer's period.
        tokenizer: the model's tokenizer.
    """
    if given is not None:
        return frozenset(given)
    # SentencePiece has different tokens for a period that stands alone and for one after a word.
    written = (encode(tokenizer, "."), encode(tokenizer, "a."))
    return frozenset(ids[-1] for ids in written if ids)


def around(needle: str, context: str) -> tuple[str, ...]:
    """The needle with what stands on both sides of it, for readers; nothing if its tokens are spelt in another way."""
    place = context.find(needle)
    if place < 0:
        return ()
    return (context[max(0, place - _AROUND_CHARACTERS) : place + len(needle) + _AROUND_CHARACTERS],)
