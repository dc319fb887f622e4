"""Eviction while decoding: what a method drops of a row's entries as new ones come, and how many a row then holds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from harness.values import Refusal, check

if TYPE_CHECKING:
    from harness.compression.method import LayerState
    from harness.compression.selection import Selection

Every = Annotated[
    int,
    Meta(ge=1),
    Refusal("is not a whole number of 1 or more", "evict_every=1 evicts at every new token, as most papers do"),
]
ALL_ENTRIES = sys.maxsize
"""As ``Evictor.rerotated``: every key stands at its index in the cache."""


@dataclass(frozen=True)
class Entries:
    """The entries of rows that evict together, in one layer, when all tokens of a call have been attended to.

    Entries lie in any order, the same in every tensor, unless the evictor is ``ordered``: then in the cache's.

    Attributes:
        keys: [rows, cache_heads, entries, head_dim], after the rotary embedding.
        values: the same shape.
        positions: [rows, cache_heads, entries], those of the tokens, 0 first.
        newest: [rows, 1, 1], the position of the newest token.
        statistic: [rows, cache_heads, query heads of each, entries] in float32; None if the evictor reads no weights.
        queries: the last ``Evictor.queries`` queries, [rows, cache_heads, query heads of each, queries, head_dim];
            fewer if there were fewer tokens, None if the evictor needs none.
        layer: the layer, without tokens.
        selection: how entries are selected.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    newest: Tensor
    statistic: Tensor | None
    queries: Tensor | None
    layer: LayerState
    selection: Selection

    @property
    def age(self) -> Tensor:
        """How many tokens came after each entry's, [rows, cache_heads, entries]."""
        return self.newest - self.positions

    @property
    def grouped(self) -> Tensor:
        """The statistic [rows, cache_heads, entries], reduced over query heads as ``selection.group`` says."""
        assert self.statistic is not None
        if self.statistic.shape[2] == 1:
            return self.statistic[:, :, 0]
        if self.selection.group == "max":
            return self.statistic.amax(2)
        return self.statistic.mean(2) if self.selection.group == "mean" else self.statistic.sum(2)


@dataclass(frozen=True)
class Evictor:
    """What is dropped while decoding. Each call of the model with new tokens, a step or a question, can evict.

    Subclasses are frozen dataclasses, checked against the types of their fields. Rows with equal evictors and budgets
    that join together are computed together, each with a state of its own per layer and head.

    Attributes:
        evict_every: new tokens from one eviction to the next, 1 or more.

    Raises:
        ConfigError: a knob does not fit its type or range.
    """

    reads: ClassVar[bool] = False
    """Whether it has a statistic of the attention weights of every call."""
    carries: ClassVar[bool] = False
    """Whether this statistic begins with the raw scores [heads, tokens] that the method's scorer gave the prompt."""
    reorders: ClassVar[bool] = False
    """Whether an eviction also orders anew what just fits, if it is ``ordered``."""
    evict_every: Every

    def __post_init__(self) -> None:
        check(self)

    @property
    def ordered(self) -> bool:
        """Whether the order of entries in the cache is a part of the state, so that ``kept`` chooses it."""
        return False

    @property
    def queries(self) -> int:
        """How many of the last queries it needs."""
        return 0

    @property
    def rerotated(self) -> int:
        """How many entries, oldest first, have keys that are turned to their index in the cache; 0 for none.

        Distances between tokens are then those within the cache. Only entries before all that are ever dropped, or
        ``ALL_ENTRIES``, can be named.
        """
        return 0

    def phase(self, position: int) -> int:
        """What else rows that evict at the same calls have in common, given the position of their next token."""
        return 0

    def due(self, calls: int, tokens: int, new: int, total: int, budget: int) -> bool:
        """Whether a call evicts.

        Args:
            calls: calls since the last one that was due, or since the first, this one included.
            tokens: new tokens of these calls.
            new: new tokens of this call.
            total: all tokens so far, those of the prompt and of this call included.
            budget: entries per head.
        """
        return tokens >= self.evict_every

    def target(self, budget: int, total: int) -> int:
        """Entries per head after an eviction.

        Args:
            budget: entries per head.
            total: all tokens so far.
        """
        return budget

    def reading(self, weights: Tensor) -> Tensor:
        """What is read of a call's weights, [rows, cache_heads, query heads of each, entries] in float32.

        Args:
            weights: [rows, cache_heads, query heads of each, new tokens, entries].
        """
        return weights.sum(3, dtype=torch.float32)

    def updated(self, statistic: Tensor, reading: Tensor) -> Tensor:
        """The statistic after a call; of new entries it was 0."""
        return statistic + reading

    def scores(self, entries: Entries) -> Tensor:
        """Scores [rows, cache_heads or 1, entries]; the smallest are dropped, and infinity protects an entry."""
        raise NotImplementedError

    def kept(self, entries: Entries, target: int) -> Tensor:
        """Indices [rows, cache_heads, target] of the entries that stay, in their new order; if ``ordered``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Eviction:
    """How a plan goes on while decoding.

    Attributes:
        evictor: what is dropped.
        budgets: entries per head for each layer.
    """

    evictor: Evictor
    budgets: tuple[int, ...]


@dataclass
class Schedule:
    """How many entries per head a row holds in one layer, call by call.

    Attributes:
        evictor: what is dropped.
        budget: entries per head.
        held: entries per head now.
        total: all tokens so far.
    """

    evictor: Evictor
    budget: int
    held: int
    total: int
    _calls: int = 0
    _tokens: int = 0

    def call(self, new: int) -> int | None:
        """Take a call with some new tokens.

        Returns:
            Entries that stay if the call evicts; None if it does not.
        """
        self.held += new
        self.total += new
        self._calls += 1
        self._tokens += new
        if not self.evictor.due(self._calls, self._tokens, new, self.total, self.budget):
            return None
        self._calls = self._tokens = 0
        target = self.evictor.target(self.budget, self.total)
        if self.held < target or (self.held == target and not self.evictor.reorders):
            return None
        self.held = target
        return target


@lru_cache(maxsize=256)
def attended(
    evictor: Evictor, budget: int, kept: int, total: int, question: int, steps: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The entries per head of one layer at every call of a row.

    Args:
        evictor: what is dropped.
        budget: entries per head.
        kept: entries per head that are kept of the prompt.
        total: tokens of which they were kept.
        question: tokens that follow in one call; 0 for none.
        steps: steps of one token that follow then.

    Returns:
        Entries that each call attends to, the question's first if there is one; and entries that are held after it.
    """
    schedule, before, after = Schedule(evictor, budget, kept, total), [], []
    for new in ([question] if question else []) + [1] * steps:
        before.append(schedule.held + new)
        schedule.call(new)
        after.append(schedule.held)
    return tuple(before), tuple(after)


def victims(scores: Tensor, positions: Tensor, count: int) -> Tensor:
    """The entries with the smallest scores; among equal ones the newest, as elsewhere the lowest index wins.

    Args:
        scores: [rows, heads or 1, entries].
        positions: [rows, heads, entries].
        count: number of entries to drop.

    Returns:
        Their indices, [rows, heads, count], ascending.
    """
    if count == 1:
        lowest = scores == scores.amin(-1, keepdim=True)
        return torch.where(lowest, positions, -1).argmax(-1, keepdim=True)
    newest_first = positions.argsort(-1, descending=True)
    ranked = scores.expand(positions.shape).gather(-1, newest_first).argsort(dim=-1, stable=True)
    return newest_first.gather(-1, ranked[..., :count]).sort(-1).values


def without(victims: Tensor, entries: int) -> Iterator[Tensor]:
    """Where entries move to so that those that stay lie without a gap, and as few as possible move.

    Args:
        victims: indices [rows, heads, count] of what is dropped, ascending.
        entries: number of entries.

    Yields:
        The indices [rows, heads, count] from which entries are read, then those to which they are written.
    """
    count = victims.shape[-1]
    stay = entries - count
    if count == 1:
        yield torch.full_like(victims, stay)
    else:
        last = torch.ones(*victims.shape[:2], entries, dtype=torch.bool, device=victims.device)
        last = last.scatter(-1, victims, False)[..., stay:]
        survivors = (~last).to(torch.uint8).argsort(dim=-1, stable=True) + stay
        # As many survive among the last ones as were dropped before them; what is left moves to its own place.
        yield torch.where(victims < stay, survivors, victims)
    yield victims
