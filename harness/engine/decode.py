"""The wide greedy loop: all variants of several prompts, one token each per forward; others join while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.engine import tensor_parallel
from harness.engine.attention import ENGINE, check_layers
from harness.engine.cache import KVPool, LayerKV
from harness.engine.cuda_graphs import StepGraphs
from harness.engine.finite import all_finite, first_broken, not_finite
from harness.kernels import Kernels

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Observer = Callable[[Sequence[int], Tensor], None]


@dataclass(frozen=True)
class Limits:
    """When a row ends.

    Attributes:
        stop_ids: a row ends with the first of these tokens.
        max_new_tokens: tokens of a row at most, 1 or more.
        min_new_tokens: stop tokens are impossible before this many tokens of a row.
    """

    stop_ids: frozenset[int]
    max_new_tokens: int
    min_new_tokens: int = 0


@dataclass(frozen=True)
class Row:
    """One sequence to decode.

    Attributes:
        prompt_tokens: length of its prompt; the first new token stands at this position whatever was dropped.
        logits: of its first new token, [vocabulary], float32.
        layers: its kept entries; taken over by decoding.
        broken: where the prefill's numbers stopped being finite, if they did and that is known.
    """

    prompt_tokens: int
    logits: Tensor
    layers: list[LayerKV]
    broken: str | None = None


@dataclass(frozen=True)
class Generated:
    """A finished row.

    Attributes:
        tokens: new ids, the stop token included.
        error: why the row ended without a result, or None.
    """

    tokens: tuple[int, ...]
    error: str | None = None


class _DecodingAttention:
    def __init__(self, pool: KVPool) -> None:
        self.seen: list[int] = []
        self._pool = pool

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        self.seen.append(layer)
        return self._pool.attend(layer, queries, keys, values, scaling)


@dataclass
class _ActiveRow:
    """A row in the batch: its number, the cache's step when it joined, what it has generated, and whether it has ended."""

    number: int
    born: int
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


class Decoding:
    """Rows that decode greedily together, each until it has met a stop token or ``max_new_tokens``. Others may join at any step."""

    def __init__(
        self,
        model: PreTrainedModel,
        name: str,
        limits: Limits,
        observe: Observer | None = None,
        kernels: Kernels = "torch",
    ) -> None:
        """Start without rows.

        Args:
            model: with ``attention.install`` applied.
            name: the model's name, for errors.
            limits: when a row ends.
            observe: called with (numbers of rows, their float32 logits [rows, vocabulary]): of those that join, then of
                those in the batch.
            kernels: what computes; see ``EngineSettings``.
        """
        self._model = model
        self._name = name
        self._limits = limits
        self._stops = torch.tensor(sorted(limits.stop_ids), dtype=torch.int64, device=model.device)
        self._observe = observe
        self._layers: int = model.config.num_hidden_layers
        self._pool = KVPool(self._layers, kernels)
        self._graphs = StepGraphs(model) if kernels == "triton" else None
        self._batch: list[_ActiveRow] = []
        self._tokens = torch.empty(0, dtype=torch.int64, device=model.device)  # the newest of each row in the batch
        self._positions = self._tokens  # where they stand
        self._joined = 0
        self._ended: dict[int, Generated] = {}

    @property
    def alive(self) -> int:
        """Rows that go on."""
        return sum(not row.ended for row in self._batch)

    def take(self) -> dict[int, Generated]:
        """Rows that ended since the last time, by their number. A row whose logits were not finite ended with an error."""
        ended, self._ended = self._ended, {}
        return ended

    @torch.inference_mode()
    def add(self, rows: Sequence[Row]) -> range:
        """Rows join, with their first token.

        Args:
            rows: 1 or more; their entries are taken over.

        Returns:
            Their numbers: how many joined before each.
        """
        first = self._joined
        self._joined += len(rows)
        # Rows that keep equally many entries become neighbours, which the pool attends to at once.
        places = sorted(range(len(rows)), key=lambda place: [layer.keys.shape[:2] for layer in rows[place].layers])
        joining = [_ActiveRow(first + place, self._pool.step) for place in places]
        logits = torch.stack([rows[place].logits.to(self._model.device) for place in places])
        chosen = self._choose(joining, logits, all_finite(logits), [rows[place].broken for place in places])
        going = [place for place, row in enumerate(joining) if not row.ended]
        self._drop()  # what has ended makes room before the others come
        if going:
            self._pool.add([rows[places[place]].layers for place in going], spare=self._limits.max_new_tokens - 1)
            self._batch += [joining[place] for place in going]
            positions = torch.tensor([rows[places[place]].prompt_tokens for place in going], device=self._model.device)
            self._changed()
            self._tokens, self._positions = (
                torch.cat([self._tokens, chosen[going]]),
                torch.cat([self._positions, positions]),
            )
        for row in rows:
            row.layers.clear()
        return range(first, self._joined)

    @torch.inference_mode()
    def step(self) -> None:
        """One more token for each row; there must be one.

        Raises:
            ModelError: a layer did not come through the engine.
        """
        forward = partial(self._forward, self._tokens, self._positions)
        logits = forward() if self._graphs is None else self._graphs.run(self._forward, self._tokens, self._positions)
        finite = all_finite(logits)
        broken: Sequence[str | None] = [None for _ in self._batch]
        if not all(good or row.ended for row, good in zip(self._batch, finite, strict=True)):
            broken = first_broken(self._model, forward, len(self._batch))
        self._pool.advance()
        self._positions = self._positions + 1
        self._tokens = self._choose(self._batch, logits, finite, broken)
        # A row that has ended keeps its place until half have, but no longer than its part of the pool has room.
        if 2 * self.alive <= len(self._batch) or any(
            self._pool.step - row.born == self._limits.max_new_tokens - 1 for row in self._batch
        ):
            self._drop()

    def _forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Float32 logits [rows, vocabulary] behind the newest tokens."""
        attention = _DecodingAttention(self._pool)
        output = self._model(
            tokens[:, None],
            position_ids=positions[:, None],
            use_cache=False,
            past_key_values=None,
            logits_to_keep=1,
            **{ENGINE: attention},
        )
        check_layers(attention.seen, self._layers, self._name, f"decoding step {self._pool.step + 1}")
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _choose(
        self, rows: Sequence[_ActiveRow], logits: Tensor, finite: Sequence[bool], broken: Sequence[str | None]
    ) -> Tensor:
        """The next token of each row, noted where the row goes on or ends with it."""
        if self._observe is not None:
            self._observe([row.number for row in rows], logits)
        early = [place for place, row in enumerate(rows) if len(row.tokens) < self._limits.min_new_tokens]
        if early:
            logits = logits.index_put(
                (torch.tensor(early, device=logits.device),), logits[early].index_fill(1, self._stops, -torch.inf)
            )
        chosen = tensor_parallel.from_first(logits.argmax(-1))
        for row, token, good, where in zip(rows, chosen.tolist(), finite, broken, strict=True):
            if row.ended:
                continue
            if good:
                row.tokens.append(token)
            row.ended = not good or token in self._limits.stop_ids or len(row.tokens) == self._limits.max_new_tokens
            if row.ended:
                error = None if good else not_finite(len(row.tokens) + 1, where, self._model.dtype)
                self._ended[row.number] = Generated(tuple(row.tokens), error)
        return chosen

    def _changed(self) -> None:
        """Rows have come or gone."""
        if self._graphs is not None:
            self._graphs.forget()

    def _drop(self) -> None:
        """Rows that have ended leave the batch."""
        staying = [place for place, row in enumerate(self._batch) if not row.ended]
        if len(staying) < len(self._batch):
            self._pool.keep(staying)
            self._changed()
            self._batch = [self._batch[place] for place in staying]
            self._tokens, self._positions = self._tokens[staying], self._positions[staying]


def decode(
    model: PreTrainedModel,
    name: str,
    rows: Sequence[Row],
    limits: Limits,
    observe: Observer | None = None,
    kernels: Kernels = "torch",
) -> list[Generated]:
    """Decode some rows together, from their first token to their last.

    Args:
        model, name, limits, observe, kernels: as in ``Decoding``.
        rows: 1 or more; their entries are taken over.

    Returns:
        One outcome per row, in order.

    Raises:
        ModelError: a layer did not come through the engine.
    """
    decoding = Decoding(model, name, limits, observe, kernels)
    numbers = decoding.add(rows)
    while decoding.alive:
        decoding.step()
    ended = decoding.take()
    return [ended[number] for number in numbers]
