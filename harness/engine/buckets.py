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
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.compression.attention_weights import Softmax
from harness.engine.attention import masked_attention
from harness.engine.layer_forms import PLAIN, LayerForm
from harness.errors import ConfigError

FIRST_SPARE = 256
"""New tokens of a row for which there is room from the start; the room for more grows as they come."""


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
        stays: whether entries stay as they are while a row decodes, so that many tokens at once leave them as single
            steps do, and a row's entries can leave the cache and come back.
        in_pieces: whether a question can run through them piece by piece.
    """

    stays: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True
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

    def gathered(self) -> LayerKV:
        """The same entries in tensors of their own, which they have already."""
        return self

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
            there = entries + joining.question
            room = there + min(joining.spare, FIRST_SPARE)
            keys = key.new_empty(len(rows), heads, room, key.shape[-1])
            values = value.new_empty(keys.shape)
            for index, parts in enumerate(held):
                keys[index, :, :entries], values[index, :, :entries] = parts[part]
            yield PlainBucket(joining.first_row, head, cached, keys, values, there, there + joining.spare)
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
            question: number of the question's tokens from the first of these on, if they are of the question of rows
                that have just joined, which plain entries see piece by piece; 0 in a step.

        Returns:
            [rows, query heads of the bucket, tokens, D].
        """

    @abstractmethod
    def select(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, by their index in the bucket, ascending and fewer than there are."""

    def rest(self) -> list[Bucket]:
        """The buckets of its rows after others have left."""
        return [self]

    def reserve(self) -> bool:
        """Make room for one more entry of each row; whether tensors were replaced for it."""
        return False

    def taken(self, row: int) -> LayerKV:
        """A copy of the entries of a row as they are so far, by its index in the bucket.

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
        keys: [rows, heads, room, head_dim]; entries of steps that are still to come are uninitialised.
        values: the same shape.
        entries: number of entries kept of the prompt, with those of a question that ran through the cache, without the
            decoded ones.
        most: the most entries that there will be, to which the room grows.
    """

    keys: Tensor
    values: Tensor
    entries: int
    most: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of its rows and of its heads."""
        return self.keys.shape[0], self.keys.shape[1]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, question: int) -> Tensor:
        """See ``Bucket``."""
        return attention(queries, *self.extended(keys, values, question), self.softmax(scaling))

    def extended(self, keys: Tensor, values: Tensor, question: int) -> tuple[Tensor, Tensor]:
        """All keys and values up to those of new tokens, which are written; see ``attend``."""
        start = self.entries - question + self.steps
        stop = start + keys.shape[2]
        self.keys[:, :, start:stop] = keys
        self.values[:, :, start:stop] = values
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def reserve(self) -> bool:
        """See ``Bucket``. The room grows by half, one tensor at a time."""
        there, room = self.entries + self.steps, self.keys.shape[2]
        if there < room or there >= self.most:
            return False
        self.keys = _grown(self.keys, min(self.most, room + max(room // 2, FIRST_SPARE)))
        self.values = _grown(self.values, self.keys.shape[2])
        return True

    def taken(self, row: int) -> LayerKV:
        """See ``Bucket``."""
        entries = self.entries + self.steps
        return LayerKV(self.keys[row, :, :entries].clone(), self.values[row, :, :entries].clone())

    def select(self, rows: Sequence[int]) -> None:
        """See ``Bucket``."""
        self.keys, self.values = self.keys[list(rows)], self.values[list(rows)]


def _grown(tensor: Tensor, room: int) -> Tensor:
    """The tensor with more room, which is uninitialised."""
    rows, heads, there, dim = tensor.shape
    grown = tensor.new_empty(rows, heads, room, dim)
    grown[:, :, :there] = tensor
    return grown


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


def joined(runs: Sequence[LayerKV]) -> LayerKV:
    """The entries of a row in a layer, from those of each run of heads, in their order."""
    if len(runs) == 1:
        return runs[0]
    counts = tuple(run.keys.shape[1] for run in runs for _ in range(run.keys.shape[0]))
    keys = torch.cat([run.keys.flatten(0, 1) for run in runs])
    return LayerKV(keys, torch.cat([run.values.flatten(0, 1) for run in runs]), counts)
