"""The cost of a whole grid, against one run per cell and against one stock ``generate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from harness.bench.clock import seconds
from harness.bench.subject import Subject, bytes_read, decoded, prefilled, stock
from harness.engine.engine import Engine
from harness.errors import EngineError
from harness.results import Cell

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """Seconds of one round, measured one after the other in one process.

    Attributes:
        prefill: prefill of all prompts, with every cell's selection.
        decode: decoding of all rows of all prompts together.
        alone: every cell of one prompt by itself, with its own prefill and batch 1; None if that is not measured.
        stock: one ``generate`` of transformers with the full cache, for one prompt.
    """

    prefill: float
    decode: float
    alone: float | None
    stock: float


@dataclass(frozen=True)
class GridCost:
    """What a grid costs.

    Attributes:
        tokens: length of each prompt.
        prompts: number of prompts decoded together.
        cells: number of cells of the grid.
        rows: number of distinct rows of all prompts.
        new_tokens: number of new tokens of each row.
        granularity: the selection's granularity.
        read_bytes: weights and kept entries that the decoding steps have to read, in bytes; once where rows share them.
        rounds: the measurements, round by round.
    """

    tokens: int
    prompts: int
    cells: int
    rows: int
    new_tokens: int
    granularity: str
    read_bytes: int
    rounds: tuple[Round, ...]

    @property
    def per_prompt(self) -> tuple[float, ...]:
        """Seconds of the grid per prompt, round by round."""
        return tuple((each.prefill + each.decode) / self.prompts for each in self.rounds)

    def row(self) -> Mapping[str, Any]:
        """A line of the table: medians over rounds; ratios are medians of the ratios within a round."""
        pairs = list(zip(self.per_prompt, self.rounds, strict=True))
        times_stock = median(grid / each.stock for grid, each in pairs)
        faster = [each.alone / grid for grid, each in pairs if each.alone is not None]
        alone = [each.alone for each in self.rounds if each.alone is not None]
        return {
            "tokens": self.tokens,
            "heads": self.granularity,
            "prompts": self.prompts,
            "cells": self.cells,
            "rows": self.rows,
            "prefill s": median(each.prefill / self.prompts for each in self.rounds),
            "decode s": median(each.decode / self.prompts for each in self.rounds),
            "decode GB/s": median(self.read_bytes / each.decode for each in self.rounds) / 1e9,
            "grid s": median(self.per_prompt),
            "one run per cell s": median(alone) if alone else None,
            "times faster": median(faster) if faster else None,
            "stock generate s": median(each.stock for each in self.rounds),
            "times stock": times_stock,
        }


def grid_cost(subject: Subject, engine: Engine, tokens: int, prompts: int, rounds: int, alone: bool) -> GridCost:
    """Measure a grid: prompts are prefilled one after the other, then all rows decode together.

    Every round compares the tokens of the grid with those of each cell alone, and full-cache tokens with the stock
    ones. In half precision rounding may make them differ, so there they are not compared. On a CUDA device one more
    round comes first and does not count, because kernels are compiled or chosen in it.

    Args:
        subject: the model and its grid.
        engine: the loaded subject.
        tokens: length of each prompt.
        prompts: number of prompts, 1 or more.
        rounds: number of rounds, 1 or more; medians are over them.
        alone: whether to run every cell alone, too.

    Raises:
        EngineError: tokens differ.
    """
    ids = [subject.prompt(tokens, number) for number in range(prompts)]
    measured, rows, read = [], 0, 0
    warm_ups = 1 if engine.device.type == "cuda" else 0
    for turn in range(-warm_ups, rounds):
        stock_seconds, stock_tokens = _stock(subject, engine, ids[0])
        start = seconds()
        cells = [prefilled(subject, engine, prompt, subject.variants) for prompt in ids]
        middle = seconds()
        distinct = {id(row): row for by_cell in cells for row in by_cell.values()}
        read = (subject.new_tokens - 1) * (_weights_read(engine) + bytes_read(list(distinct.values())))
        outcomes = dict(zip(distinct, decoded(subject, engine, list(distinct.values())), strict=True))
        end = seconds()
        generated = {cell: outcomes[id(row)].tokens for cell, row in cells[0].items()}
        rows = len(distinct)
        alone_seconds = None
        if alone and turn >= 0:
            alone_seconds, expected = _alone(subject, engine, ids[0])
            _compare(engine, generated, expected, "alone")
        _compare(
            engine,
            generated,
            {v.cell: stock_tokens for v in subject.variants if v.method.scorer is None},
            "by generate",
        )
        measured.append(Round(middle - start, end - middle, alone_seconds, stock_seconds))
    heads, counted = subject.selection.granularity, tuple(measured[warm_ups:])
    return GridCost(tokens, prompts, len(subject.variants), rows, subject.new_tokens, heads, read, counted)


def _weights_read(engine: Engine) -> int:
    """Bytes of the weights that a decoding step reads: all but embeddings, of which it looks up some rows."""
    embeddings: Any = engine.model.get_input_embeddings()
    head: Any = engine.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    looked_up = 0 if head is not None and head.weight is embeddings.weight else int(embeddings.weight.nbytes)
    return sum(parameter.nbytes for parameter in engine.model.parameters()) - looked_up


def _alone(subject: Subject, engine: Engine, prompt: Sequence[int]) -> tuple[float, dict[Cell, Tokens]]:
    """Seconds and tokens of every cell by itself."""
    start = seconds()
    generated = {}
    for variant in subject.variants:
        rows = prefilled(subject, engine, prompt, [variant])
        generated[variant.cell] = decoded(subject, engine, list(rows.values()))[0].tokens
    return seconds() - start, generated


def _stock(subject: Subject, engine: Engine, prompt: Sequence[int]) -> tuple[float, Tokens]:
    """Seconds and tokens of one ``generate`` of transformers."""
    ids = torch.tensor([list(prompt)], device=engine.device)
    with stock(engine):
        start = seconds()
        generated: Any = engine.model.generate(  # type: ignore[operator]
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=subject.new_tokens,
            eos_token_id=None,
            pad_token_id=0,
        )
        return seconds() - start, tuple(generated[0, len(prompt) :].tolist())


def _compare(engine: Engine, generated: Mapping[Cell, Tokens], expected: Mapping[Cell, Tokens], how: str) -> None:
    if engine.model.dtype != torch.float32:
        return
    for cell, tokens in expected.items():
        if generated[cell] != tokens:
            raise EngineError(
                f"{cell.name} generated other tokens in the grid than {how}: "
                "its times mean nothing; report this as a bug"
            )
