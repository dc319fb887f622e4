"""Each method by itself: what it adds to a prefill, what a token costs, what it holds at most."""

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
    """One cell by itself, at batch 1.

    Attributes:
        cell: its name.
        tokens: of the prompt.
        prefill: seconds, by round.
        overhead: the prefill's seconds over those of the full cache in the same round, less 1.
        token: seconds of a decoding step, by round.
        peak: bytes beyond the model.
    """

    cell: str
    tokens: int
    prefill: tuple[float, ...]
    overhead: tuple[float, ...]
    token: tuple[float, ...]
    peak: int

    def row(self) -> Mapping[str, Any]:
        """Medians."""
        return {
            "cell": self.cell,
            "tokens": self.tokens,
            "prefill s": median(self.prefill),
            "over the full cache %": 100 * median(self.overhead),
            "decode ms per token": 1000 * median(self.token),
            "peak MB": self.peak / 1e6,
        }


def one_by_one(variants: Sequence[Variant]) -> list[Variant]:
    """The full cache first, and every method at its middle budget."""
    found = []
    for label in dict.fromkeys(variant.cell.label for variant in variants):
        of = [variant for variant in variants if variant.cell.label == label]
        found.append(of[len(of) // 2])
    return sorted(found, key=lambda variant: variant.method.ranking is not None)


def method_costs(subject: Subject, engine: Engine, tokens: int, rounds: int) -> list[MethodCost]:
    """Measure every method of the grid alone, in turn within a round.

    Args:
        subject: the grid, with the full cache among its methods.
        engine: the loaded subject.
        tokens: of the prompt.
        rounds: 1 or more; medians are over them.
    """
    variants = one_by_one(subject.variants)
    prompt = subject.prompt(tokens)
    found: dict[str, list[tuple[float, float]]] = {variant.cell.name: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            start = seconds()
            rows = prefilled(subject, engine, prompt, [variant])
            middle = seconds()
            decoded(subject, engine, list(rows.values()))
            found[variant.cell.name].append((middle - start, (seconds() - middle) / (subject.new_tokens - 1)))
    full = [prefill for prefill, _ in found[variants[0].cell.name]]
    return [
        MethodCost(
            cell=variant.cell.name,
            tokens=tokens,
            prefill=tuple(prefill for prefill, _ in found[variant.cell.name]),
            overhead=tuple(
                prefill / base - 1 for (prefill, _), base in zip(found[variant.cell.name], full, strict=True)
            ),
            token=tuple(token for _, token in found[variant.cell.name]),
            peak=peak_bytes(subject, engine, [variant], tokens),
        )
        for variant in variants
    ]
