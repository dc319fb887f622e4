"""The wide loop: all variants of several prompts, one token each per forward, joined by others at any step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.engine import tensor_parallel
from harness.engine.buckets import LayerKV
from harness.engine.cache import KVCache
from harness.engine.cuda_graphs import StepGraphs
from harness.engine.finite import all_finite, first_broken, not_finite
from harness.engine.forward import LayerAttend, run_over
from harness.engine.layer_forms import layer_forms
from harness.engine.rows import Generated, Limits, Row
from harness.engine.sampling import Draws, best_tokens, drawn_tokens
from harness.engine.time_limit import too_slow
from harness.kernels import Kernels

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_QUESTION_TOKENS = 8192
"""Tokens of questions that run through the model at once, of all rows together."""
_PIECE_TOKENS = 4096
"""Tokens of one question that run at once, as memory for their attention grows with them and with what they see."""
Observer = Callable[[Sequence[int], Tensor], None]


@dataclass
class _ActiveRow:
    """A row in the batch.

    Attributes:
        number: how many rows joined before it.
        joined_at: the cache's step when it joined.
        most: a row ends after this many new tokens.
        layers: where its entries are put back when it ends; None if they are not.
        began: when it joined, in seconds of the monotonic clock.
        tokens: what it has generated so far.
        ended: whether it has ended.
    """

    number: int
    joined_at: int
    most: int
    layers: list[LayerKV] | None
    began: float
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


class Decoding:
    """Rows that decode together, each until its ``Limits`` end it. Others may join at any step.

    Attributes:
        generated: number of tokens generated so far.
        asked: number of tokens of questions that ran through the cache so far.
    """

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
            observe: called with (numbers of rows, their float32 logits [rows, vocabulary]), for rows that join and
                then at each step for the whole batch.
            kernels: what computes attention; see ``EngineSettings``.
        """
        self.generated = self.asked = 0
        self._model = model
        self._name = name
        self._limits = limits
        self._stops = torch.tensor(sorted(limits.stop_ids), dtype=torch.int64, device=model.device)
        self._observe = observe
        self._forms = layer_forms(model)
        self._cache = KVCache(self._forms, kernels)
        self._graphs = StepGraphs(model) if kernels == "triton" else None
        self._batch: list[_ActiveRow] = []
        self._tokens = torch.empty(0, dtype=torch.int64, device=model.device)  # the newest token of each row
        self._positions = self._tokens  # of these tokens
        self._joined = 0
        self._draws: dict[int, Draws] = {}  # by number; of rows that are not greedy
        self._ended: dict[int, Generated] = {}

    @property
    def alive(self) -> int:
        """Number of rows that have not ended."""
        return sum(not row.ended for row in self._batch)

    def so_far(self) -> dict[int, tuple[int, ...]]:
        """What the rows that have not ended have generated, by their number."""
        return {row.number: tuple(row.tokens) for row in self._batch if not row.ended}

    def take(self) -> dict[int, Generated]:
        """Rows that ended since the last call, by their number.

        A row ends with an error if its logits are not finite, or with what it has when its time is up.
        """
        ended, self._ended = self._ended, {}
        return ended

    @torch.inference_mode()
    def add(self, rows: Sequence[Row]) -> range:
        """Add rows to the batch and choose their first token.

        Args:
            rows: 1 or more; their entries are taken over.

        Returns:
            Their numbers: how many rows joined before each.
        """
        first = self._joined
        self._joined += len(rows)
        self._draws |= {first + index: row.draws for index, row in enumerate(rows) if row.draws is not None}
        # Rows that keep equally many entries, or share a prompt, become neighbours: the cache attends to them at once.
        order = sorted(range(len(rows)), key=lambda index: rows[index].kind)
        for tokens in sorted({len(row.asked) for row in rows}):
            alike = [index for index in order if len(rows[index].asked) == tokens]
            together = max(1, _QUESTION_TOKENS // tokens) if tokens else len(alike)
            for start in range(0, len(alike), together):
                some = alike[start : start + together]
                join = self._join_with_question if tokens else self._join
                join([rows[index] for index in some], [first + index for index in some])
        for row in rows:
            if not row.goes_on:
                row.layers.clear()
        return range(first, self._joined)

    def _active(self, row: Row, number: int) -> _ActiveRow:
        """The row in the batch."""
        most = min(self._limits.max_new_tokens, row.most or self._limits.max_new_tokens)
        layers = row.layers if row.goes_on else None
        return _ActiveRow(number, self._cache.step, most, layers, time.monotonic(), list(row.begun))

    def _join(self, rows: Sequence[Row], numbers: Sequence[int]) -> None:
        """Add rows whose first token is known from their logits."""
        joining = [self._active(row, number) for row, number in zip(rows, numbers, strict=True)]
        logits = torch.stack([row.logits.to(self._model.device) for row in rows])
        chosen = self._choose(joining, logits, all_finite(logits), [row.broken for row in rows])
        going = [index for index, row in enumerate(joining) if not row.ended]
        self._drop()  # rows that have ended make room before others join
        if going:
            self._cache.add([rows[index].layers for index in going], spare=self._limits.max_new_tokens - 1)
            self._enter([rows[index] for index in going], [joining[index] for index in going], chosen[going])

    def _join_with_question(self, rows: Sequence[Row], numbers: Sequence[int]) -> None:
        """Add rows whose questions are equally long, with what they had begun, and run these through their entries."""
        joining = [self._active(row, number) for row, number in zip(rows, numbers, strict=True)]
        self._drop()
        tokens, device = len(rows[0].asked), self._model.device
        in_pieces = all(layer.in_pieces for row in rows for layer in row.layers)
        self._cache.add([row.layers for row in rows], spare=self._limits.max_new_tokens - 1, question=tokens)
        ids = torch.tensor([row.asked for row in rows], device=device)
        firsts = torch.tensor([row.prompt_tokens - len(row.question) for row in rows], device=device)
        positions = firsts[:, None] + torch.arange(tokens, device=device)
        ask = partial(self._ask, ids, positions, _PIECE_TOKENS if in_pieces else tokens)
        logits = ask()
        self.asked += ids.numel()
        finite, broken = all_finite(logits), [row.broken for row in rows]
        if not all(finite):
            found = first_broken(self._model, ask, len(rows))
            broken = [before or here for before, here in zip(broken, found, strict=True)]
        self._enter(rows, joining, self._choose(joining, logits, finite, broken))
        self._give_back()
        self._drop()

    def _ask(self, ids: Tensor, positions: Tensor, piece: int) -> Tensor:
        """Run the questions of rows that have just joined, piece by piece; logits of what comes after the last."""
        logits = torch.empty(0)
        for start in range(0, ids.shape[1], piece):
            attend = partial(self._cache.attend_question, left=ids.shape[1] - start)
            here = slice(start, start + piece)
            logits = self._run(ids[:, here], positions[:, here], attend, "a question")
        return logits

    def _enter(self, rows: Sequence[Row], joining: Sequence[_ActiveRow], chosen: Tensor) -> None:
        """Put rows, whose entries the cache has, behind the others of the batch."""
        self._changed()
        self._batch += joining
        positions = torch.tensor([row.prompt_tokens + len(row.begun) for row in rows], device=self._model.device)
        self._tokens = torch.cat([self._tokens, chosen])
        self._positions = torch.cat([self._positions, positions])

    @torch.inference_mode()
    def step(self) -> None:
        """Generate one more token for each row; there must be a row.

        Raises:
            ModelError: a layer did not come through the engine.
        """
        if self._cache.reserve():
            self._changed()
        forward = partial(self._forward, self._tokens, self._positions)
        if self._graphs is not None and self._cache.in_kernels:
            logits = self._graphs.run(self._forward, self._tokens, self._positions)
        else:
            logits = forward()
        finite = all_finite(logits)
        broken: Sequence[str | None] = [None for _ in self._batch]
        if not all(good or row.ended for row, good in zip(self._batch, finite, strict=True)):
            broken = first_broken(self._model, forward, len(self._batch))
        self._cache.advance()
        self._positions = self._positions + 1
        self._tokens = self._choose(self._batch, logits, finite, broken)
        self._end_late()
        self._give_back()
        # Rows that have ended stay in the batch until half of it has ended, or until their spare entries are used up.
        if 2 * self.alive <= len(self._batch) or any(
            self._cache.step - row.joined_at == self._limits.max_new_tokens - 1 for row in self._batch
        ):
            self._drop()

    def _forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Float32 logits [rows, vocabulary] of the tokens that come next."""
        where = f"decoding step {self._cache.step + 1}"
        return self._run(tokens[:, None], positions[:, None], self._cache.attend, where)

    def _run(self, ids: Tensor, positions: Tensor, attend: LayerAttend, where: str) -> Tensor:
        """Run tokens [rows, tokens] over the cache; float32 logits [rows, vocabulary] of what comes after the last."""
        return run_over(self._model, self._name, self._forms, ids, positions, attend, where, 1)[:, -1]

    def _choose(
        self, rows: Sequence[_ActiveRow], logits: Tensor, finite: Sequence[bool], broken: Sequence[str | None]
    ) -> Tensor:
        """Choose the next token of each row and note which rows end with it."""
        if self._observe is not None:
            self._observe([row.number for row in rows], logits)
        early = [index for index, row in enumerate(rows) if len(row.tokens) < self._limits.min_new_tokens]
        if early:
            logits = logits.index_put(
                (torch.tensor(early, device=logits.device),), logits[early].index_fill(1, self._stops, -torch.inf)
            )
        chosen = tensor_parallel.from_first(self._next(rows, logits))
        for row, token, good, where in zip(rows, chosen.tolist(), finite, broken, strict=True):
            if row.ended:
                continue
            if good:
                row.tokens.append(token)
                self.generated += 1
            row.ended = not good or self._limits.end(row.tokens) or len(row.tokens) >= row.most
            if row.ended:
                error = None if good else not_finite(len(row.tokens) + 1, where, self._model.dtype)
                self._ended[row.number] = Generated(tuple(row.tokens), error)
                self._draws.pop(row.number, None)
        return chosen

    def _next(self, rows: Sequence[_ActiveRow], logits: Tensor) -> Tensor:
        """The best token of each row, or the one that its chance decides."""
        best = best_tokens(logits)
        drawing = [index for index, row in enumerate(rows) if row.number in self._draws and not row.ended]
        if not drawing:
            return best
        draws = [self._draws[rows[index].number] for index in drawing]
        drawn = drawn_tokens(logits[drawing], draws, [len(rows[index].tokens) for index in drawing])
        return best.index_put((torch.tensor(drawing, device=best.device),), drawn)

    def _end_late(self) -> None:
        """End the rows that have been decoding for too long."""
        limit = self._limits.seconds
        if limit is None:
            return
        now = time.monotonic()
        late = torch.tensor([now - row.began > limit for row in self._batch], device=self._model.device)
        for row, ends in zip(self._batch, tensor_parallel.from_first(late).tolist(), strict=True):
            if ends and not row.ended:
                row.ended = True
                self._ended[row.number] = Generated(tuple(row.tokens), too_slow(len(row.tokens), limit), partial=True)
                self._draws.pop(row.number, None)

    def _give_back(self) -> None:
        """Put back the entries of rows that have just ended and go on."""
        for index, row in enumerate(self._batch):
            if row.ended and row.layers is not None:
                row.layers[:] = self._cache.row(index)
                row.layers = None

    def _changed(self) -> None:
        """Discard the captured step after rows came or went."""
        if self._graphs is not None:
            self._graphs.forget()

    def _drop(self) -> None:
        """Remove the rows that have ended."""
        staying = [index for index, row in enumerate(self._batch) if not row.ended]
        if len(staying) < len(self._batch):
            self._cache.keep(staying)
            self._changed()
            self._batch = [self._batch[index] for index in staying]
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
        model: with ``attention.install`` applied.
        name: the model's name, for errors.
        rows: 1 or more; their entries are taken over.
        limits: when a row ends.
        observe: see ``Decoding``.
        kernels: what computes attention; see ``EngineSettings``.

    Returns:
        One result per row, in order.

    Raises:
        ModelError: a layer did not come through the engine.
    """
    decoding = Decoding(model, name, limits, observe, kernels)
    numbers = decoding.add(rows)
    while decoding.alive:
        decoding.step()
    ended = decoding.take()
    return [ended[number] for number in numbers]
