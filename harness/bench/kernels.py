"""The cost of a kernel of the project in one layer, against the torch operations that it equals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from torch import Tensor

from harness.bench.clock import seconds
from harness.compression.method import LayerState
from harness.compression.scorers import column_sums
from harness.engine.fused_causal import fused_causal

_WINDOW, _KEPT = 8, 128
LEAST_TOKENS = _WINDOW + _KEPT


def column_sums_cost(layer: LayerState, rounds: int) -> Mapping[str, Any]:
    """Compute H2O's scores of one layer by torch, by the Triton kernel, and by it with the attention's log sums.

    Args:
        layer: a layer of ``LEAST_TOKENS`` or more, on a device that the kernel runs on.
        rounds: number of rounds, 1 or more; medians are over them.

    Returns:
        A line of the table: milliseconds, those with log sums None if the device's attention does not give them; the
        largest relative difference of torch and what a run takes; and the share of the best candidates that both have.
    """
    log_sums = fused_causal(layer.queries, layer.keys, layer.values, layer.scaling)[1]
    layers = [replace(layer, kernels="torch"), replace(layer, kernels="triton")]
    if log_sums is not None:
        layers.append(replace(layers[1], log_sums=log_sums))
    by_torch, *_, ours = (column_sums(each, _WINDOW, True) for each in layers)  # this compiles the kernel
    round_seconds: list[list[float]] = [[] for _ in layers]
    for _ in range(rounds):
        for each, times in zip(layers, round_seconds, strict=True):
            start = seconds()
            column_sums(each, _WINDOW, True)
            times.append(seconds() - start)
    torch_seconds, triton_seconds, *with_log_sums = map(median, round_seconds)
    return {
        "tokens": layer.keys.shape[1],
        "torch ms": 1000 * torch_seconds,
        "triton ms": 1000 * triton_seconds,
        "with log sums ms": 1000 * with_log_sums[0] if with_log_sums else None,
        "torch / triton": torch_seconds / triton_seconds,
        "largest relative difference": float(((ours - by_torch).abs() / by_torch).max()),
        f"same among the best {_KEPT} %": 100 * _shared(by_torch, ours),
    }


def _shared(one: Tensor, other: Tensor) -> float:
    """Share of the best candidates of one score that are also among those of the other, over all heads."""
    chosen = [scores.topk(_KEPT).indices.sort().values for scores in (one, other)]
    both = sum(len(set(a) & set(b)) for a, b in zip(chosen[0].tolist(), chosen[1].tolist(), strict=True))
    return both / chosen[0].numel()
