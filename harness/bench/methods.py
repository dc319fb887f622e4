"""The cost of each method by itself: what it adds to a prefill, seconds per token, peak memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness.bench.clock import seconds
from harness.bench.memory import peak_bytes
from harness.bench.subject import Subject, decoded, prefilled
from harness.compression.grid import Variant
from harness.engine.engine import Engine


@dataclass(frozen=True)
class MethodCost:
    """The cost of one cell by itself, at batch 1.

    Attributes:
        cell: name of the cell.
        tokens: length of the prompt.
        prefill: seconds of the prefill, round by round.
        overhead: seconds of the prefill divided by those of the full cache in the same round, minus 1.
        token: seconds of a decoding step, round by round.
        peak: peak bytes beyond the model; None if it was not asked for.
    """

    cell: str
    tokens: int
    prefill: tuple[float, ...]
    overhead: tuple[float, ...]
    token: tuple[float, ...]
    peak: int | None

    def row(self) -> Mapping[str, Any]:
        """A line of the table: medians over rounds."""
        return {
            "cell": self.cell,
            "tokens": self.tokens,
            "prefill s": median(self.prefill),
            "over the full cache %": 100 * median(self.overhead),
            "decode ms per token": 1000 * median(self.token),
            "peak MB": None if self.peak is None else self.peak / 1e6,
        }


def one_by_one(variants: Sequence[Variant]) -> list[Variant]:
    """The full cache first, and every method at its middle budget."""
    middle = []
    for label in dict.fromkeys(variant.cell.label for variant in variants):
        budgets = [variant for variant in variants if variant.cell.label == label]
        middle.append(budgets[len(budgets) // 2])
    return sorted(middle, key=lambda variant: variant.method.scorer is not None)


def method_costs(subject: Subject, engine: Engine, tokens: int, rounds: int, memory: bool = True) -> list[MethodCost]:
    """Measure every method of the grid alone, in turn within a round.

    Args:
        subject: the grid, with the full cache among its methods.
        engine: the loaded subject.
        tokens: length of the prompt.
        rounds: number of rounds, 1 or more; medians are over them.
        memory: whether to measure peak memory, too, which on a CPU takes a new process for each method.
    """
    variants = one_by_one(subject.variants)
    prompt = subject.prompt(tokens)
    times: dict[str, list[tuple[float, float]]] = {variant.cell.name: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            start = seconds()
            rows = prefilled(subject, engine, prompt, [variant])
            middle = seconds()
            decoded(subject, engine, list(rows.values()))
            times[variant.cell.name].append((middle - start, (seconds() - middle) / (subject.new_tokens - 1)))
    full = [prefill for prefill, _ in times[variants[0].cell.name]]
    return [
        MethodCost(
            cell=variant.cell.name,
            tokens=tokens,
            prefill=tuple(prefill for prefill, _ in times[variant.cell.name]),
            overhead=tuple(
                prefill / base - 1 for (prefill, _), base in zip(times[variant.cell.name], full, strict=True)
            ),
            token=tuple(token for _, token in times[variant.cell.name]),
            peak=peak_bytes(subject, engine, [variant], tokens) if memory else None,
        )
        for variant in variants
    ]
