"""Entries that rows chose from those of their prompt: the prompt's keys and values lie in memory once for all of them.

Rows of one prompt differ in what they kept of it, not in what keys and values are. So rows that wait until others have
ended hold indices alone. On a CPU, where a step spends its time with reading entries, rows that keep a large share of
their prompt need none of their own later, either: they are attended to by products of all their queries with the whole
prompt, in which what a row did not keep is masked out. That is more arithmetic and much less memory to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from harness.compression.attention_weights import Softmax
from harness.engine.buckets import FIRST_SPARE, Bucket, Joining, LayerKV, PlainBucket, attention, joined
from harness.engine.prompt_sharing import pays, row_cost
from harness.kernels import Kernels
from harness.kernels.products import times

# What is subtracted from the logits of dropped entries: their weights are exactly 0.
_FAR = 1e30
# Bytes of logits that are computed at once, which stay in the processor's cache.
_BLOCK_BYTES = 2 * 2**20


@dataclass(frozen=True)
class ChosenKV(LayerKV):
    """The kept entries of one row in one layer, as a choice from those of its prompt.

    Attributes:
        keys: [kv_heads, tokens, head_dim], of the whole prompt.
        values: the same shape.
        indices: of the kept entries, [cache_heads, entries] in int32; where heads keep different numbers, [entries of
            all heads], head by head; None if all are kept.
        prompt: number of the prompt among all that were prefilled; None if rows have entries of their own from when
            they join a batch.
        copies: number of query heads for each kv head.
        kernels: what multiplies; see ``EngineSettings``.
    """

    indices: Tensor | None = None
    prompt: int | None = None
    copies: int = 1
    kernels: Kernels = "torch"

    @property
    def bytes(self) -> int:
        """Bytes of the kept keys and values, as each row would have them by itself."""
        return self.numbers * self.keys.itemsize

    @property
    def numbers(self) -> int:
        """See ``LayerKV``."""
        return 2 * self.keys.shape[-1] * sum(heads * entries for heads, entries in self.runs)

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """See ``LayerKV``."""
        if self.indices is None or self.counts is not None:
            return super().runs
        return ((self.indices.shape[0], self.indices.shape[1]),)

    @property
    def layout(self) -> tuple[Any, ...]:
        """Rows that share a prompt share a bucket, whatever they keep."""
        return super().layout if self.prompt is None else (type(self).__name__, (), self.prompt)

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``LayerKV``; copies."""
        yield from self.gathered().parts()

    def gathered(self) -> LayerKV:
        """The same entries in tensors of their own."""
        if self.indices is None:
            return LayerKV(self.keys, self.values)
        cached = sum(heads for heads, _ in self.runs)
        heads = torch.arange(cached, device=self.keys.device) // (cached // self.keys.shape[0])
        if self.counts is None:
            heads = heads[:, None]
        else:
            heads = heads.repeat_interleave(torch.tensor(self.counts, device=heads.device))
        return LayerKV(_taken(self.keys, heads, self.indices), _taken(self.values, heads, self.indices), self.counts)

    def dropped(self) -> Tensor:
        """1 where an entry was not kept and 0 where it was, [cache_heads, tokens] in bytes."""
        kv_heads, tokens, _ = self.keys.shape
        if self.indices is None:
            return torch.zeros(kv_heads, tokens, dtype=torch.int8)
        cached = sum(heads for heads, _ in self.runs)
        dropped = torch.ones(cached, tokens, dtype=torch.int8)
        if self.counts is None:
            return dropped.scatter_(1, self.indices.long(), 0)
        starts = torch.arange(cached).repeat_interleave(torch.tensor(self.counts)) * tokens
        dropped.view(-1)[starts + self.indices] = 0
        return dropped

    def buckets(self, rows: Sequence[LayerKV], joining: Joining) -> Iterator[Bucket]:
        """See ``LayerKV``. A few rows, and those that take no step, have entries of their own."""
        chosen = [row for row in rows if isinstance(row, ChosenKV)]
        if joining.spare and self.prompt is not None and share_a_bucket(chosen):
            yield SharedBucket.of(chosen, joining)
        else:
            own = {id(row): row.gathered() for row in chosen}  # several rows can have the same entries
            yield from _apart([own[id(row)] for row in chosen], joining)


def share_a_bucket(chosen: Sequence[ChosenKV]) -> bool:
    """Whether rows that share a prompt attend to all of its entries: if that pays, and all of these are finite.

    What is not finite would reach rows that dropped it.
    """
    first = chosen[0]
    shares = [row.numbers / (2 * first.keys.numel()) for row in chosen]
    if not pays(shares, row_cost(first.copies, first.kernels)):
        return False
    return bool(torch.isfinite(first.keys.sum() + first.values.sum()))


def _apart(rows: Sequence[LayerKV], joining: Joining) -> Iterator[Bucket]:
    """Buckets of rows with entries of their own: neighbours that keep equally many have one for each run of heads."""
    first = joining.first_row
    for _, same in groupby(rows, lambda row: row.layout):
        alike = list(same)
        yield from alike[0].buckets(alike, replace(joining, first_row=first))
        first += len(alike)


@dataclass
class SharedBucket(Bucket):
    """Rows that chose entries from one prompt.

    Attributes:
        chosen: what each row kept.
        dropped: [kv_heads, rows, 1 or query heads of each, tokens]; see ``ChosenKV.dropped``.
        new: the entries of a question and of steps.
    """

    chosen: list[ChosenKV]
    dropped: Tensor
    new: PlainBucket

    @classmethod
    def of(cls, chosen: Sequence[ChosenKV], joining: Joining) -> SharedBucket:
        """A bucket of rows that join together."""
        keys = chosen[0].keys
        kv_heads, tokens, dim = keys.shape
        each = [row.dropped().view(kv_heads, -1, tokens) for row in chosen]
        copies = max(dropped.shape[1] for dropped in each)
        dropped = torch.stack([dropped.expand(-1, copies, -1) for dropped in each], 1)
        asked = joining.question
        empty = keys.new_empty(len(chosen), kv_heads, asked + min(joining.spare, FIRST_SPARE), dim)
        most = asked + joining.spare
        new = PlainBucket(joining.first_row, 0, kv_heads, empty, torch.empty_like(empty), asked, most)
        return cls(joining.first_row, 0, kv_heads, list(chosen), dropped, new)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of its rows and of its heads."""
        return self.new.shape

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, question: int) -> Tensor:
        """See ``Bucket``."""
        new_keys, new_values = self.new.extended(keys, values, question)
        softmax = self.softmax(scaling)
        if question or not softmax.is_plain:
            return self._attend_apart(queries, new_keys, new_values, softmax)
        rows, kv_heads = self.shape
        scaled = (queries * scaling).view(rows, kv_heads, -1, queries.shape[-1])
        of_prompt, prompt_sums = self._attend_prompt(scaled)
        logits = scaled @ new_keys.transpose(2, 3)
        weights = logits.softmax(-1)
        share = torch.sigmoid(prompt_sums - _log_sums(_largest(logits), _largest(weights)))
        return torch.lerp(weights @ new_values, of_prompt, share).view(queries.shape)

    def _attend_apart(self, queries: Tensor, new_keys: Tensor, new_values: Tensor, softmax: Softmax) -> Tensor:
        """The attention of each row to what it kept, which for many tokens at once is faster."""
        out = torch.empty_like(queries)
        for row in range(queries.shape[0]):
            held, head = self._extended(row, new_keys[row], new_values[row]), 0
            of_each = queries.shape[1] // sum(heads for heads, _ in held.runs)
            for keys, values in held.parts():
                here = slice(head, head + keys.shape[0] * of_each)
                out[row, here] = attention(queries[row, here][None], keys[None], values[None], softmax.of(here))[0]
                head = here.stop
        return out

    def _extended(self, row: int, new_keys: Tensor, new_values: Tensor) -> LayerKV:
        """What a row kept, and then its new entries [kv_heads, entries, D]."""
        chosen, runs, head = self.chosen[row], [], 0
        copies = sum(heads for heads, _ in chosen.runs) // self.cached
        new_keys, new_values = (states.repeat_interleave(copies, 0) for states in (new_keys, new_values))
        for keys, values in chosen.parts():
            here = slice(head, head + keys.shape[0])
            runs.append(LayerKV(torch.cat([keys, new_keys[here]], 1), torch.cat([values, new_values[here]], 1)))
            head = here.stop
        return joined(runs)

    def _attend_prompt(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The attention to the prompt alone.

        Args:
            queries: [rows, kv_heads, query heads of each, D], scaled.

        Returns:
            The output, of the shape of the queries; and the logarithms of the sums of exponentials, with D = 1.
        """
        rows, kv_heads, copies, dim = queries.shape
        keys, values, kernels = self.chosen[0].keys, self.chosen[0].values.transpose(1, 2), self.chosen[0].kernels
        tokens = keys.shape[1]
        together = max(1, _BLOCK_BYTES // (queries.itemsize * copies * tokens))
        # Head by head in one piece of memory, as each call costs about as much as its numbers do.
        of_head = queries.transpose(0, 1).reshape(kv_heads, rows * copies, dim)
        out, largest, heaviest = list[Tensor](), list[Tensor](), list[Tensor]()
        for head in range(kv_heads):
            blocks = torch.split(of_head[head], together * copies), torch.split(self.dropped[head], together)
            for some, dropped in zip(*blocks, strict=True):
                logits = times(some, keys[head], kernels=kernels).view(-1, copies, tokens)
                logits.sub_(dropped, alpha=_FAR)
                weights = logits.softmax(-1)
                out.append(times(weights.view(-1, tokens), values[head], kernels=kernels))
                largest.append(logits.amax(-1))
                heaviest.append(weights.amax(-1))
        sums = _log_sums(torch.cat(largest), torch.cat(heaviest))
        return (
            torch.cat(out).view(kv_heads, rows, copies, dim).transpose(0, 1),
            sums.view(kv_heads, rows, copies, 1).transpose(0, 1),
        )

    def reserve(self) -> bool:
        """See ``Bucket``."""
        return self.new.reserve()

    def taken(self, row: int) -> LayerKV:
        """See ``Bucket``."""
        new = self.new.taken(row)
        return self._extended(row, new.keys, new.values)

    def rest(self) -> list[Bucket]:
        """See ``Bucket``. A few rows that are left have entries of their own from here on."""
        if share_a_bucket(self.chosen):
            return [self]
        own = [self.taken(row) for row in range(len(self.chosen))]
        return list(_apart(own, Joining(self.row, self.new.most - self.new.entries - self.new.steps)))

    def select(self, rows: Sequence[int]) -> None:
        """See ``Bucket``."""
        self.chosen = [self.chosen[row] for row in rows]
        self.dropped = self.dropped[:, list(rows)]
        self.new.select(rows)

    def advance(self) -> None:
        """See ``Bucket``."""
        super().advance()
        self.new.advance()


def _largest(numbers: Tensor) -> Tensor:
    return numbers.amax(-1, keepdim=True)


def _log_sums(logits: Tensor, weights: Tensor) -> Tensor:
    """Logarithms of the sums of exponentials, from the largest logits and weights, which are exp(logit) / sum."""
    return logits - weights.log()


def _taken(states: Tensor, heads: Tensor, indices: Tensor) -> Tensor:
    """Keys or values of some tokens, [..., head_dim].

    Whole rows of memory are copied, in a third of the time that ``states[heads, indices]`` takes.

    Args:
        states: [kv_heads, tokens, head_dim].
        heads: heads of the tokens, [...] or of a shape that fits it.
        indices: indices of the tokens, [...].
    """
    kv_heads, tokens, dim = states.shape
    if states.is_contiguous():
        rows, at = states.view(-1, dim), indices + heads * tokens
    else:  # a view of projections, which lie token after token
        rows, at = states.transpose(0, 1).reshape(-1, dim), indices * kv_heads + heads
    return rows.index_select(0, at.flatten()).view(*at.shape, dim)
