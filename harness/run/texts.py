"""Texts of tokens: generated ones decoded in the way that the task asks for, and prompts as the model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from harness.task import Task
from harness.text import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@runtime_checkable
class CleansUp(Protocol):
    """A task that says whether spaces of decoded texts are cleaned up; other tasks leave it to transformers."""

    def cleans_up(self, tokenizer: PreTrainedTokenizerBase) -> bool | None:
        """Whether they are; None for whatever the installed version of transformers does."""
        ...


def cleans_up(task: Task, tokenizer: PreTrainedTokenizerBase | None) -> bool | None:
    """Whether texts are cleaned up; None if that is left to transformers or there is no text."""
    return task.cleans_up(tokenizer) if tokenizer is not None and isinstance(task, CleansUp) else None


def generated_text(task: Task, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """The text of generated tokens, without special tokens and with nothing stripped."""
    return decode(tokenizer, tokens, cleans_up(task, tokenizer))


def prompt_text(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """The text of a prompt's tokens as the model reads it, with special tokens written out and nothing cleaned up."""
    return cast("str", tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))
