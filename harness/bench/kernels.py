"""A kernel of ours against the torch operations that it stands for: seconds of one layer, and how far their numbers are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from torch import Tensor

from harness.bench.clock import seconds
from harness.compression.method import LayerState
from harness.compression.scorers import column_sums

_WINDOW, _KEPT = 8, 128
LEAST_TOKENS = _WINDOW + _KEPT


def column_sums_cost(layer: LayerState, rounds: int) -> Mapping[str, Any]:
    """H2O's scores of one layer by torch and by the kernel in Triton, in turn.

    Args:
        layer: on a device that the kernel runs on, of ``LEAST_TOKENS`` or more.
        rounds: 1 or more; medians are over them.

    Returns:
        Milliseconds; the largest difference over torch's number; how many of all heads' best candidates are the same.
    """
    layers = [replace(layer, kernels="torch"), replace(layer, kernels="triton")]
    by_torch, by_triton = (column_sums(each, _WINDOW, True) for each in layers)  # which compiles, too
    found: list[list[float]] = [[], []]
    for _ in range(rounds):
        for each, times in zip(layers, found, strict=True):
            start = seconds()
            column_sums(each, _WINDOW, True)
            times.append(seconds() - start)
    torch_seconds, triton_seconds = map(median, found)
    return {
        "tokens": layer.keys.shape[1],
        "torch ms": 1000 * torch_seconds,
        "triton ms": 1000 * triton_seconds,
        "torch / triton": torch_seconds / triton_seconds,
        "largest relative difference": float(((by_triton - by_torch).abs() / by_torch).max()),
        f"same among the best {_KEPT} %": 100 * _shared(by_torch, by_triton),
    }


def _shared(one: Tensor, other: Tensor) -> float:
    """Share of the best candidates of both that both have, over all heads."""
    chosen = [scores.topk(_KEPT).indices.sort().values for scores in (one, other)]
    both = sum(len(set(a) & set(b)) for a, b in zip(chosen[0].tolist(), chosen[1].tolist(), strict=True))
    return both / chosen[0].numel()
