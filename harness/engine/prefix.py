"""Reuse of common beginnings: the order in which prompts are prefilled, and the beginnings held meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.engine.row_lengths import scaled_beyond

if TYPE_CHECKING:  # a dry run needs the order of prompts but no engine
    from harness.compression.grid import Plan
    from harness.compression.selection import Selection
    from harness.engine.engine import Engine
    from harness.engine.prefill import Kept, Prefilled
    from harness.engine.prefill_attention import Past

# A shared beginning that saves fewer tokens is not worth a forward of its own.
_LEAST_SHARED_TOKENS = 64
# Smaller chunks of a prompt save next to no memory.
_LEAST_CHUNK_TOKENS = 64


class Prefiller:
    """Prefills prompts or contexts one after the other, each from the longest beginning that it holds.

    What was kept of a context whose next question comes behind it is held and not computed again.

    Attributes:
        prompts: number of prompts prefilled so far; a prompt that was prefilled twice counts twice.
        prompt_tokens: number of tokens of all prompts, or contexts of questions.
        prefilled_tokens: number of those tokens that were computed, not reused.
    """

    def __init__(self, engine: Engine, selection: Selection, chunk_tokens: int | None) -> None:
        """Start without beginnings.

        Args:
            engine: the engine that computes.
            selection: how entries are selected.
            chunk_tokens: prompts are prefilled in chunks of so many tokens; None for whole prompts.
        """
        self.prompts = 0
        self.prompt_tokens = 0
        self.prefilled_tokens = 0
        self._engine = engine
        self._selection = selection
        self._chunk_tokens = chunk_tokens
        self._held: list[Past] = []
        self._context: tuple[int, ...] = ()
        self._kept: dict[Plan, Kept] = {}
        self._prefilled: Prefilled | None = None

    def prefill(
        self, ids: Sequence[int], plans: Sequence[Plan], hold: Sequence[int] = (), shared: bool = False
    ) -> Prefilled:
        """What plans keep of a prompt or context, prefilled if it is not held.

        Args:
            ids: its token ids, 1 or more.
            plans: what to keep.
            hold: lengths of the beginnings of this prompt that later prompts go on from. Other beginnings are dropped.
            shared: whether all of it, with what is kept, is held for the next call. Its entries are not to be changed.

        Raises:
            ModelError: a layer did not come through the engine.
        """
        if self._context != tuple(ids):
            self._context, self._kept, self._prefilled = tuple(ids), {}, None
        self.prompt_tokens += len(ids)
        missing = [plan for plan in plans if plan not in self._kept]
        prefilled = self._prefilled
        if missing or prefilled is None:
            prefilled = self._computed(ids, missing, hold)
            self._kept |= zip(missing, prefilled.kept, strict=True)
        kept = tuple(self._kept[plan] for plan in plans)
        self._prefilled = replace(prefilled, kept=())
        if not shared:
            self._context, self._kept, self._prefilled = (), {}, None
        return replace(prefilled, kept=kept)

    def _computed(self, ids: Sequence[int], plans: Sequence[Plan], hold: Sequence[int]) -> Prefilled:
        begun = [past for past in self._held if past.begins(ids)]
        past = max(begun, key=lambda past: len(past.ids), default=None)
        self._held = [past for past in begun if len(past.ids) in hold]
        done = len(past.ids) if past is not None else 0
        self.prompts += 1
        self.prefilled_tokens += len(ids) - done
        # Where angles depend on the length of a sequence, no prompt begins like a longer one.
        whole = scaled_beyond(self._engine.model.config) is not None
        for stop in () if whole else pauses(done, len(ids), self._chunk_tokens, hold):
            past = self._engine.extend(ids[:stop], plans, self._selection, past)
            if stop in hold:
                self._held.append(past)
        return self._engine.prefill(ids, plans, self._selection, past)

    def forget(self) -> None:
        """Drop all that is held."""
        self._held = []
        self._context, self._kept, self._prefilled = (), {}, None

    def shorten(self, tokens: int) -> int | None:
        """Halve the chunks because memory ran out.

        Args:
            tokens: length of the prompt that did not fit.

        Returns:
            Tokens of a chunk from now on; None, without a change, if chunks are as small as is useful.
        """
        if scaled_beyond(self._engine.model.config) is not None:
            return None  # its prompts are not cut
        chunk = min(self._chunk_tokens or tokens, tokens)
        if chunk <= _LEAST_CHUNK_TOKENS:
            return None
        self._chunk_tokens = max(_LEAST_CHUNK_TOKENS, -(-chunk // 2))
        return self._chunk_tokens


def prefix_order(prompts: Sequence[NDArray[np.int32]]) -> list[tuple[int, tuple[int, ...]]]:
    """An order of prompts in which each common beginning is prefilled once and few are held at a time.

    Prompts are the leaves of a tree of common beginnings, which is walked depth first. Of the branches at one point,
    the one with most tokens left comes last, because only there the beginning is needed no longer. A haystack with the
    needle at many depths, or at one depth in many lengths, is walked from its front to its back.

    Args:
        prompts: token ids of each prompt.

    Returns:
        For each prompt once, its index and the lengths of the beginnings that later prompts go on from, ascending.
    """
    ranked = sorted(range(len(prompts)), key=lambda index: prompts[index].astype(">i4").tobytes())
    common = [_common(prompts[one], prompts[other]) for one, other in pairwise(ranked)]
    order: list[tuple[int, tuple[int, ...]]] = []
    # Ranges of ``ranked`` that share a beginning: (start, stop, tokens of it that are prefilled when the walk gets
    # there, lengths of the beginnings that are held for later prompts).
    waiting: list[tuple[int, int, int, tuple[int, ...]]] = [(0, len(ranked), 0, ())] if ranked else []
    while waiting:
        start, stop, done, held = waiting.pop()
        if stop - start == 1:
            order.append((ranked[start], held))
            continue
        shared = min(common[start : stop - 1])
        cuts = [start, *(cut + 1 for cut in range(start, stop - 1) if common[cut] == shared), stop]
        parts = list(pairwise(cuts))
        if shared - done < _LEAST_SHARED_TOKENS:
            parts.sort(key=lambda part: min(ranked[part[0] : part[1]]))
            again = (*held, done) if done and done not in held else held
            waiting.append((*parts[-1], done, held))
            waiting += [(*part, done, again) for part in reversed(parts[:-1])]
        else:
            parts.sort(key=lambda part: sum(len(prompts[index]) - shared for index in ranked[part[0] : part[1]]))
            waiting.append((*parts[-1], shared, held))
            waiting += [(*part, shared, (*held, shared)) for part in reversed(parts[:-1])]
    return order


def _common(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    """Length of the common beginning of two prompts, in tokens."""
    shorter = min(len(one), len(other))
    differs = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(differs[0]) if len(differs) else shorter


def pauses(done: int, tokens: int, chunk: int | None, held: Sequence[int]) -> tuple[int, ...]:
    """The positions at which the prefill of a prompt pauses before its end, ascending.

    Args:
        done: number of tokens that are prefilled already.
        tokens: length of the prompt.
        chunk: tokens of a chunk; None to prefill the prompt whole.
        held: lengths of the beginnings of this prompt that are to be held for other prompts.
    """
    pieces = range(done + chunk, tokens, chunk) if chunk else ()
    return tuple(sorted({*pieces, *(length for length in held if done < length < tokens)}))
