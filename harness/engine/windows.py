"""Layers that attend to a window of tokens: their exact attention, and the entries that they keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.compression.attention_weights import Softmax
from harness.engine.attention import masked_attention
from harness.engine.buckets import Bucket, Joining, LayerKV
from harness.engine.layer_forms import Window

# Rows of a prefill that are computed at once are as many as the window, but not fewer than this.
_LEAST_ROWS = 128


@dataclass(frozen=True, kw_only=True)
class WindowKV(LayerKV):
    """The entries that later tokens still see in a layer with a window.

    Attributes:
        keys: [kv_heads, entries, head_dim].
        values: the same shape.
        window: the window.
    """

    in_pieces: ClassVar[bool] = False
    window: Window

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, window: Window, tokens: int) -> WindowKV:
        """What later tokens see of keys and values [kv_heads, n, head_dim] of the last n of so many tokens.

        It is a copy, so that it does not hold the memory of all.
        """
        first = keys.shape[1] - window.needed(tokens)
        return cls(keys[:, first:].clone(), values[:, first:].clone(), window=window)

    @property
    def layout(self) -> tuple[Any, ...]:
        """See ``LayerKV``."""
        return (*super().layout, self.window.kind, self.window.size)

    def buckets(self, rows: Sequence[LayerKV], joining: Joining) -> Iterator[Bucket]:
        """See ``LayerKV``."""
        heads, entries, dim = self.keys.shape
        room = min(self.window.size, entries + joining.spare) if not joining.question else entries + joining.question
        keys = self.keys.new_empty(len(rows), heads, room, dim)
        values = self.values.new_empty(keys.shape)
        for index, row in enumerate(rows):
            keys[index, :, :entries], values[index, :, :entries] = row.keys, row.values
        yield WindowBucket(
            joining.first_row, 0, heads, keys, values, entries, self.window, joining.question, joining.spare
        )


@dataclass
class WindowBucket(Bucket):
    """A ring of the entries in a window: a new entry takes the place of the oldest when there are as many as it has.

    Entry n lies at n modulo the size of the window; in a chunk, those behind the newest are of the chunk before. Order
    among the others means nothing, as all of them are seen.

    Attributes:
        keys: [rows, heads, room, head_dim]; until the question has run, all of its entries follow those of the prompt.
        values: the same shape.
        entries: number of entries of the prompt, and of the question once that has run.
        window: the window.
        question: number of tokens of a question whose entries are not in their places yet.
        spare: largest number of steps that the rows will stay.
    """

    keys: Tensor
    values: Tensor
    entries: int
    window: Window
    question: int
    spare: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of its rows and of its heads."""
        return self.keys.shape[0], self.keys.shape[1]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scaling: float, question: int) -> Tensor:
        """See ``Bucket``."""
        softmax = self.softmax(scaling)
        if question:
            self.keys[:, :, self.entries :], self.values[:, :, self.entries :] = keys, values
            mask = visible(self.window, self.entries, self.entries + question, 0, queries.device)
            return masked_attention(queries, self.keys, self.values, softmax, mask)
        self._settle()
        size, count = self.window.size, self.entries + self.steps
        place = count % size
        self.keys[:, :, place : place + 1], self.values[:, :, place : place + 1] = keys, values
        seen = slice(0, min(count + 1, size) if self.window.kind == "sliding" else place + 1)
        return masked_attention(queries, self.keys[:, :, seen], self.values[:, :, seen], softmax)

    def _settle(self) -> None:
        """Put the entries of a question that has run into their places."""
        if not self.question:
            return
        total, kept = self.entries + self.question, self.window.needed(self.entries + self.question)
        rows, heads, _, dim = self.keys.shape
        keys, values = self.keys[:, :, total - kept :], self.values[:, :, total - kept :]
        room = min(self.window.size, kept + self.spare)
        self.keys, self.values = (states.new_empty(rows, heads, room, dim) for states in (keys, values))
        self.keys[:, :, :kept], self.values[:, :, :kept] = keys, values
        self.entries, self.question = kept, 0

    def taken(self, row: int) -> LayerKV:
        """See ``Bucket``."""
        self._settle()
        count, size = self.entries + self.steps, self.window.size
        places = torch.arange(count - self.window.needed(count), count, device=self.keys.device) % size
        return WindowKV(self.keys[row][:, places], self.values[row][:, places], window=self.window)

    def select(self, rows: Sequence[int]) -> None:
        """See ``Bucket``."""
        self.keys, self.values = self.keys[list(rows)], self.values[list(rows)]


def visible(window: Window, start: int, stop: int, first: int, device: torch.device) -> Tensor:
    """Which tokens are seen by others.

    Args:
        window: the window.
        start: position of the first token that sees.
        stop: position behind the last one, which is the last that is seen.
        first: position of the first token that is seen.
        device: where the result lies.

    Returns:
        [stop - start, stop - first], True where it is seen.
    """
    rows = torch.arange(start, stop, device=device)[:, None]
    columns = torch.arange(first, stop, device=device)[None]
    return (columns <= rows) & (columns >= window.first(rows))


def window_attention(
    queries: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, window: Window, tokens: int
) -> Tensor:
    """The attention output [H, rows, D] of the last queries of a prompt in a layer with a window.

    Args:
        queries: [H, rows, D] at positions ``tokens`` - rows to ``tokens`` - 1.
        keys: [Hk, n, D], of the last n tokens, which are all that the queries see.
        values: [Hk, n, D].
        softmax: how products become weights.
        window: the window.
        tokens: number of tokens so far.
    """
    rows, held = queries.shape[1], tokens - keys.shape[1]
    together = max(window.size, _LEAST_ROWS)
    out = torch.empty_like(queries)
    for start in range(tokens - rows, tokens, together):
        stop = min(start + together, tokens)
        first = max(held, window.first(start))
        here = slice(start - tokens + rows, stop - tokens + rows)
        seen = slice(first - held, stop - held)
        mask = visible(window, start, stop, first, queries.device)
        out[:, here] = masked_attention(
            queries[None, :, here], keys[None, :, seen], values[None, :, seen], softmax, mask
        )[0]
    return out
