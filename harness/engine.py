"""How rows are computed: settings that change speed and memory, never what is computed but for rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError

# ``prefill_chunk=auto``: a piece of this many tokens fills any card, and its activations are small beside the weights.
_CHUNK_TOKENS = 8192
# A shared beginning shorter than this is not worth a forward of its own.
_SHARED_TOKENS = 64


@dataclass(frozen=True)
class EngineSettings:
    """The ``engine`` group of the configuration.

    Attributes:
        width: rows that decode together at most, 1 or more.
        exact: decode every row alone, whatever ``width`` says.
        prefill_chunk: None, ``auto``, or the tokens of a piece in which longer prompts are prefilled.
        reuse_prefix: prefill what a prompt shares with the next one once.

    Raises:
        ConfigError: a setting that cannot be used.
    """

    width: int
    exact: bool
    prefill_chunk: int | Literal["auto"] | None
    reuse_prefix: bool

    def __post_init__(self) -> None:
        if not _is_whole(self.width):
            raise ConfigError(f"engine.width={self.width} is not a whole number of 1 or more: use engine.width=64")
        if self.prefill_chunk not in (None, "auto") and not _is_whole(self.prefill_chunk):
            raise ConfigError(
                f"engine.prefill_chunk={self.prefill_chunk} is no number of tokens: use null, auto or engine.prefill_chunk=8192"
            )
        for knob in ("exact", "reuse_prefix"):
            if not isinstance(getattr(self, knob), bool):
                raise ConfigError(f"engine.{knob}={getattr(self, knob)} is neither true nor false: use one of them")

    def stops(self, done: int, tokens: int, shared: int) -> tuple[int, ...]:
        """Where the prefill of a prompt pauses before its end, ascending.

        Args:
            done: tokens that are prefilled already.
            tokens: of the prompt.
            shared: tokens that the next prompt begins with, too.
        """
        chunk = _CHUNK_TOKENS if self.prefill_chunk == "auto" else self.prefill_chunk or tokens
        stops = set(range(done + chunk, tokens, chunk))
        if self.reuse_prefix and shared - done >= _SHARED_TOKENS and shared < tokens:
            stops.add(shared)
        return tuple(sorted(stops))


def shared_tokens(prompts: Sequence[NDArray[np.int32]]) -> list[int]:
    """For each prompt, how many tokens the next one begins with, too; 0 for the last."""
    found = []
    for prompt, following in pairwise(prompts):
        common = min(len(prompt), len(following))
        differs = np.flatnonzero(prompt[:common] != following[:common])
        found.append(int(differs[0]) if len(differs) else common)
    return [*found, 0][: len(prompts)]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
