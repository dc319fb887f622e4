"""Buckets of the KV cache: neighbouring rows that keep equally many entries in the same form, in one tensor.

A row brings a ``LayerKV`` for each layer. Rows whose layouts are equal share buckets, one for each run of heads that
keep equally many entries. Entries in another form than plain keys and values, such as quantised ones, are a subclass
of ``LayerKV`` with a kind of ``Bucket`` of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from harness.compression.attention_weights import Softmax
from harness.engine.attention import masked_attention
from harness.engine.layer_forms import PLAIN, LayerForm
from harness.errors import ConfigError


@dataclass(frozen=True)
class Joining:
    """What rows that join the cache together have in common.

    Attributes:
        first_row: index of their first row among all of the batch.
        spare: largest number of steps that they will stay.
        question: number of tokens that are still to run through them before the next step.
    """

    first_row: int
    spare: int
    question: int = 0


@dataclass(frozen=True)
class LayerKV:
    """The kept entries of one row in one layer.

    Attributes:
        keys: [cache_heads, entries, head_dim]; where heads keep different numbers, [entries of all heads, head_dim],
            head by head.
        values: the same shape.
        counts: number of entries of each head, where they differ; None where they are equal.
    """

    keys: Tensor
    values: Tensor
    counts: tuple[int, ...] | None = None

    @property
    def bytes(self) -> int:
        """Bytes of its keys and values."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def numbers(self) -> int:
        """Numbers that its keys and values consist of."""
        return self.keys.numel() + self.values.numel()

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """(heads, entries of each) of the runs of neighbouring heads that keep equally many."""
        if self.counts is None:
            return ((self.keys.shape[0], self.keys.shape[1]),)
        return tuple((len(list(run)), count) for count, run in groupby(self.counts))

    @property
    def layout(self) -> tuple[Any, ...]:
        """Rows with equal layouts that join together share buckets; layouts of any forms can be ordered."""
        return type(self).__name__, self.runs

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values [heads, entries, head_dim] of each run."""
        if self.counts is None:
            yield self.keys, self.values
            return
        start = 0
        for heads, entries in self.runs:
            stop = start + heads * entries
            yield (
                self.keys[start:stop].view(heads, entries, -1),
                self.values[start:stop].view(heads, entries, -1),
            )
            start = stop

    def buckets(self, rows: Sequence[LayerKV], joining: Joining) -> Iterator[Bucket]:
        """Buckets of rows that join together, one for each run of heads.

        Args:
            rows: the same layer of these rows, with equal layouts, this one first.
            joining: what they have in common.
        """
        held = [list(row.parts()) for row in rows]
        cached, head = sum(heads for heads, _ in self.runs), 0
        for part, (heads, entries) in enumerate(self.runs):
            key, value = held[0][part]
            spare = joining.question + joining.spare
            keys = key.new_empty(len(rows), heads, entries + spare, key.shape[-1])
            values = value.new_empty(keys.shape)
            for index, parts in enumerate(held):
                keys[index, :, :entries], values[index, :, :entries] = parts[part]
            yield PlainBucket(joining.first_row, head, cached, keys, values, entries + joining.question)
            head += heads


@dataclass
class Bucket(ABC):
    """Heads of neighbouring rows that joined together and have equally many entries in one layer, in one form.

    Attributes:
        row: index of the first row.
        head: index of the first head.
        cached: number of heads that these rows have in the cache, of all buckets together.
        steps: number of decoding steps since its rows joined.
        form: the form of the layer; the cache says it.
    """

    row: int
    head: int
    cached: int
    steps: int = field(default=0, init=False)
    form: LayerForm = field(default=PLAIN, init=False)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Number of its rows and of its heads."""

    @property
    def rows(self) -> slice:
        """The rows."""
        return slice(self.row, self.row + self.shape[0])

    def heads(self, all_heads: int) -> slice:
        """The bucket's share of a number of heads that is a multiple of the cached ones."""
        times = all_heads // self.cached
        return slice(self.head * times, (self.head + self.shape[1]) * times)

    def softmax(self, scaling: float) -> Softmax:
        """How its query heads turn query-key products into weights."""
        sinks = self.form.sinks
        softmax = self.form.softmax(scaling)
        return softmax if sinks is None else softmax.of(self.heads(len(sinks)))

    @abstractmethod
    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, question: int) -> Tensor:
        """Write the entries of new tokens, then attend to all entries up to each token's own.

        It may be repeated before ``advance``, which then gives the same.

        Args:
            queries: [rows, query heads of the bucket, tokens, D].
            keys: [rows, heads, tokens, D], of the new tokens.
            values: [rows, heads, tokens, D], of the new tokens.
            scaling: factor on query-key products.
            question: number of the new tokens if they are the question of rows that have just joined; 0 in a step.

        Returns:
            [rows, query heads of the bucket, tokens, D].
        """

    @abstractmethod
    def select(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, by their index in the bucket, ascending and fewer than there are."""

    def part(self, row: int) -> tuple[Tensor, Tensor]:
        """Keys and values [heads, entries, head_dim] of a row, by its index in the bucket, as they are so far; copies.

        Raises:
            ConfigError: entries in this form cannot leave the cache.
        """
        raise ConfigError(
            "a conversation goes on with entries as the model made them: use methods and storage that leave them so"
        )

    def advance(self) -> None:
        """End a step, in which every row got one more entry."""
        self.steps += 1


@dataclass
class PlainBucket(Bucket):
    """Keys and values as the model made them, with room for those to come.

    Attributes:
        keys: [rows, heads, entries + spare, head_dim]; entries of steps that are still to come are uninitialised.
        values: the same shape.
        entries: number of entries kept of the prompt, with those of a question that ran through the cache, without the
            decoded ones.
    """

    keys: Tensor
    values: Tensor
    entries: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of its rows and of its heads."""
        return self.keys.shape[0], self.keys.shape[1]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, question: int) -> Tensor:
        """See ``Bucket``."""
        tokens = keys.shape[2]
        start = self.entries - question + self.steps
        new, seen = slice(start, start + tokens), slice(0, start + tokens)
        self.keys[:, :, new] = keys
        self.values[:, :, new] = values
        return attention(queries, self.keys[:, :, seen], self.values[:, :, seen], self.softmax(scaling))

    def part(self, row: int) -> tuple[Tensor, Tensor]:
        """See ``Bucket``."""
        entries = self.entries + self.steps
        return self.keys[row, :, :entries].clone(), self.values[row, :, :entries].clone()

    def select(self, rows: Sequence[int]) -> None:
        """See ``Bucket``."""
        self.keys, self.values = self.keys[list(rows)], self.values[list(rows)]


def attention(queries: Tensor, keys: Tensor, values: Tensor, softmax: Softmax) -> Tensor:
    """The attention of new tokens to all entries up to their own, which are the last ones.

    Args:
        queries: [rows, query heads, tokens, D].
        keys: [rows, heads, entries, D].
        values: [rows, heads, entries, D].
        softmax: how products become weights.

    Returns:
        [rows, query heads, tokens, D].
    """
    tokens, entries = queries.shape[2], keys.shape[2]
    mask = None if tokens == 1 else queries.new_ones(tokens, entries, dtype=torch.bool).tril(entries - tokens)
    return masked_attention(queries, keys, values, softmax, mask)


def joined(parts: Sequence[tuple[Tensor, Tensor]]) -> LayerKV:
    """The entries of a row in a layer.

    Args:
        parts: keys and values [heads, entries, head_dim] of each run of heads, in their order.
    """
    if len(parts) == 1:
        return LayerKV(*parts[0])
    counts = tuple(keys.shape[1] for keys, _ in parts for _ in range(keys.shape[0]))
    keys, values = (torch.cat([part.flatten(0, 1) for part in of_all]) for of_all in zip(*parts, strict=True))
    return LayerKV(keys, values, counts)
