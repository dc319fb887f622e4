"""The contract of scorers that read the context again: tokens that run through its whole cache once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from harness.compression.method import LayerState


@dataclass(frozen=True)
class Replay:
    """Tokens that run through the whole cache of a prompt once more, behind its last token.

    Attributes:
        ids: their token ids, 1 or more.
        start: index of the first token of the prompt that is scored by them.
        stop: index behind the last one.
    """

    ids: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Replayed:
    """One layer of a replay.

    Attributes:
        queries: [heads, tokens, head_dim], after the rotary embedding.
        keys: [kv_heads, tokens, head_dim], after the rotary embedding.
        hidden_norms: Euclidean norms [tokens] of what the layer's attention reads; None if no scorer weighs by it.
    """

    queries: Tensor
    keys: Tensor
    hidden_norms: Tensor | None


@runtime_checkable
class Replays(Protocol):
    """A scorer whose scores come from replays, which run once all layers of the prompt have come.

    Its method's allocation sees all layers, and its ``score`` is never called.
    """

    @property
    def weighs_hidden(self) -> bool:
        """Whether ``Replayed.hidden_norms`` are needed."""
        ...

    def replays(self, prompt: Sequence[int], encode: Callable[[str], Sequence[int]] | None) -> Sequence[Replay]:
        """The replays of a prompt. A token that none of them scores has the score 0.

        Args:
            prompt: token ids of what is compressed.
            encode: token ids of a text, without added special tokens; None if there is no tokenizer.

        Raises:
            ConfigError: there is no tokenizer, and the scorer needs one.
        """
        ...

    def read(self, layer: LayerState, replay: Replay, replayed: Replayed) -> Tensor:
        """Score the tokens of a replay in one layer; larger is better.

        Args:
            layer: the state of the layer after the prompt, without its queries.
            replay: the replay.
            replayed: what the layer computed of it.

        Returns:
            [kv_heads, stop - start].
        """
        ...
