"""What tasks have in common that ask about a text: how prompts are cut and wrapped, and how examples are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from harness.errors import ConfigError
from harness.task import Example
from tasks.checks import is_list, short, whole
from tasks.prompting import CLEAN_UP, Chat, Fitted, Frame, check_chat, cleans_up, fit, frame_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Asked(NamedTuple):
    """A prompt in two parts, which are the whole prompt one after the other."""

    context: str
    question: str


@dataclass(frozen=True)
class Form:
    """The settings by which a text becomes the ids of a prompt.

    Attributes:
        max_prompt_tokens: the limit beyond which prompts lose their middle, 2 or more; a chat template does not count.
        chat: whether prompts are put into the tokenizer's chat template; ``auto`` or None: if there is one.
        chat_arguments: arguments of the chat template.
        clean_up: whether decoded texts lose spaces before punctuation, one of ``tasks.prompting.CLEAN_UP``.
    """

    max_prompt_tokens: int
    chat: Chat | None
    chat_arguments: Mapping[str, Any]
    clean_up: str

    def check(self) -> Form:
        """Itself.

        Raises:
            ConfigError: a setting cannot be used.
        """
        whole(self.max_prompt_tokens, "task.max_prompt_tokens", 2)
        if self.chat is not None:
            check_chat(self.chat)
        if not isinstance(self.chat_arguments, Mapping):
            raise ConfigError(
                f"task.chat_arguments={short(self.chat_arguments)} is not a mapping: use {{}} or "
                "{enable_thinking: false}"
            )
        if self.clean_up not in CLEAN_UP:
            raise ConfigError(f"task.clean_up={short(self.clean_up)} is unknown: use one of {', '.join(CLEAN_UP)}")
        return self

    def settings(self) -> dict[str, Any]:
        """The settings that can change a prompt."""
        return {"max_prompt_tokens": self.max_prompt_tokens, "chat": "auto" if self.chat is None else self.chat} | (
            {} if self.chat is False else {"chat_arguments": dict(self.chat_arguments)}
        )

    def frame(self, tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> Frame | None:
        """The text around a prompt, or None.

        Args:
            tokenizer: the model's tokenizer.
            system: the system message of the chat template; None for the template's own.

        Raises:
            ConfigError: a chat template is asked for and there is none, or it cannot be used.
        """
        return frame_of("auto" if self.chat is None else self.chat, tokenizer, self.chat_arguments, system)

    def fit(self, asked: Asked, tokenizer: PreTrainedTokenizerBase, frame: Frame | None) -> Fitted:
        """The ids of a prompt; without a context there is no place where the question begins."""
        at = len(asked.context) or None
        clean = cleans_up(self.clean_up, tokenizer)
        return fit(asked.context + asked.question, tokenizer, self.max_prompt_tokens, frame, clean, at)


class TextTask:
    """The properties of ``harness.task.Task`` that are the same for all tasks whose prompts are texts, but needles."""

    @property
    def needs_tokenizer(self) -> bool:
        """True, because prompts are texts."""
        return True

    @property
    def heatmap_axes(self) -> tuple[str, str] | None:
        """None: there is no heatmap."""
        return None


class FormedTask(TextTask, ABC):
    """The members of ``harness.task.Task`` that are the same for all tasks whose prompts are made by a ``Form``."""

    name: str

    @abstractmethod
    def prompt_form(self) -> Form:
        """How a text becomes a prompt."""

    @property
    def min_new_tokens(self) -> int:
        """0: an answer can be empty."""
        return 0

    @property
    def breakdown(self) -> str | None:
        """None: there is one score."""
        return None

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase | None, end_ids: frozenset[int]) -> frozenset[int]:
        """The model's own end tokens."""
        return end_ids

    def cleans_up(self, tokenizer: PreTrainedTokenizerBase) -> bool | None:
        """Whether spaces of prompts that were cut and of generated texts are cleaned up."""
        return cleans_up(self.prompt_form().clean_up, tokenizer)

    def needed(self, tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase:
        """The tokenizer.

        Raises:
            ConfigError: there is none.
        """
        if tokenizer is None:
            raise ConfigError(
                f"{self.name} counts prompts in tokens and got no tokenizer: use a model with a tokenizer"
            )
        return tokenizer


def choose(datasets: object, known: Sequence[str], sets: Mapping[str, Sequence[str]], benchmark: str) -> list[str]:
    """Names of datasets in the order given, with sets expanded, without repeats.

    Args:
        datasets: one name, or a list of names; each of ``known`` or of ``sets``.
        known: names of all datasets.
        sets: the datasets of each set.
        benchmark: its name, for errors.

    Raises:
        ConfigError: there is no such dataset, or none is given.
    """
    entries = list(datasets) if is_list(datasets) else [datasets]
    usable = ", ".join((*sets, *known))
    if not entries or entries == [None]:
        raise ConfigError(f"task.datasets is empty: use {usable}")
    names: list[str] = []
    for entry in entries:
        if not isinstance(entry, str) or not (entry in sets or entry in known):
            raise ConfigError(f"task.datasets has {short(entry)}, which is no dataset of {benchmark}: use {usable}")
        names += sets.get(entry, (entry,))
    return list(dict.fromkeys(names))


class Lazy(Sequence[Example]):
    """Examples that are made when they are accessed.

    So a trial run of two examples encodes only two, and no run holds all ids at once.
    """

    def __init__(self, count: int, make: Callable[[int], Example]) -> None:
        """A sequence of ``count`` examples, each made from its index by ``make``."""
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        return self._make(range(self._count)[index])
