"""The benchmarks of a model, part by part, each written to a pair of files as soon as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.bench import PARTS
from harness.bench.checks import row_checks
from harness.bench.clock import machine
from harness.bench.grid import grid_cost
from harness.bench.kernels import LEAST_TOKENS, column_sums_cost
from harness.bench.memory import peak_bytes
from harness.bench.methods import method_costs, one_by_one
from harness.bench.subject import Subject, random_layer
from harness.bench.write import write
from harness.engine.engine import Engine


def measure(
    subject: Subject,
    parts: Sequence[str],
    lengths: Sequence[int],
    prompts: int,
    rounds: int,
    out: Path,
    tell: Callable[[Path], None],
    alone: bool = False,
) -> None:
    """Measure parts and write their files; a part that cannot run on this machine is left out.

    Args:
        subject: the model and its grid, with the full cache among its methods.
        parts: names from ``harness.bench.PARTS``; ``methods`` has peaks only beside ``memory``.
        lengths: lengths of the prompts, in tokens.
        prompts: number of prompts decoded together in ``grid`` and ``checks``.
        rounds: number of rounds, 1 or more; medians are over them.
        out: the folder of the files.
        tell: called with the path of every file.
        alone: whether ``grid`` also runs every cell by itself.

    Raises:
        KvgaugeError: a length is too long for the model or the machine.
    """
    engine = subject.engine()
    for part in PARTS:
        if part in parts:
            options = {"grid": {"alone": alone}, "methods": {"memory": "memory" in parts}}.get(part, {})
            work = partial(_MEASURES[part], **options)
            rows, raw = work(subject, engine, lengths, prompts, rounds)
            if not rows:
                continue
            title = f"{_TITLES[part]}: {subject.name}, {str(engine.model.dtype).removeprefix('torch.')}"
            for path in write(out, part, title, machine(), rows, raw):
                tell(path)


_Measured = tuple[list[Any], list[Any]]


def _grid(
    subject: Subject, engine: Engine, lengths: Sequence[int], prompts: int, rounds: int, alone: bool
) -> _Measured:
    costs = [grid_cost(subject, engine, tokens, prompts, rounds, alone) for tokens in lengths]
    return [cost.row() for cost in costs], [asdict(cost) for cost in costs]


def _methods(subject: Subject, engine: Engine, lengths: Sequence[int], _: int, rounds: int, memory: bool) -> _Measured:
    costs = [cost for tokens in lengths for cost in method_costs(subject, engine, tokens, rounds, memory)]
    return [cost.row() for cost in costs], [asdict(cost) for cost in costs]


def _memory(subject: Subject, engine: Engine, lengths: Sequence[int], _: int, __: int) -> _Measured:
    rows = []
    for tokens in lengths:
        full = peak_bytes(subject, engine, one_by_one(subject.variants)[:1], tokens)
        grid = peak_bytes(subject, engine, subject.variants, tokens)
        rows.append(
            {
                "tokens": tokens,
                "FullKV MB": full / 1e6,
                "grid MB": grid / 1e6,
                "grid / FullKV": grid / full if full else None,
            }
        )
    return rows, rows


def _checks(subject: Subject, engine: Engine, lengths: Sequence[int], prompts: int, _: int) -> _Measured:
    rows = [row_checks(subject, engine, tokens, prompts) for tokens in lengths]
    return rows, rows


def _kernels(subject: Subject, engine: Engine, lengths: Sequence[int], _: int, rounds: int) -> _Measured:
    if engine.device.type != "cuda" or find_spec("triton") is None:
        return [], []
    rows = [
        column_sums_cost(random_layer(subject, engine, tokens), rounds) for tokens in lengths if tokens >= LEAST_TOKENS
    ]
    return rows, rows


_MEASURES: dict[str, Callable[..., _Measured]] = {
    "grid": _grid,
    "methods": _methods,
    "memory": _memory,
    "checks": _checks,
    "kernels": _kernels,
}
_TITLES = {
    "grid": "All cells of a grid against one stock generate",
    "methods": "Each method by itself, batch 1",
    "memory": "Peak memory beyond the model, FullKV alone and all cells together",
    "checks": "Rows together, in reverse order and alone; attention against exact rows",
    "kernels": "H2O's column sums of one layer with random states, by torch and by the kernel in Triton",
}
