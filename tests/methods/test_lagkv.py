"""LagKV on prompts at the edges of its partitions."""

from __future__ import annotations

import pytest
import torch

from harness.compression.method import LayerState
from harness.compression.selection import Selection, order_of
from methods.lagkv import LagDeviation

SELECTION = Selection("kv_head", "mean", "stable", "float32")


def layer_state(tokens: int, values: torch.Tensor | None = None) -> LayerState:
    generator = torch.Generator().manual_seed(tokens)
    queries, keys, drawn = (torch.randn(heads, tokens, 8, generator=generator) for heads in (4, 2, 2))
    return LayerState(queries, keys, drawn if values is None else values, 0, 1, 8**-0.5, torch.float32)


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 20, 35])
def test_a_prompt_below_two_partitions_keeps_sinks_and_the_newest(tokens: int) -> None:
    order = order_of(LagDeviation(4, 16, False), layer_state(tokens), SELECTION)
    for count in range(5, tokens):
        expected = [0, 1, 2, 3, *range(tokens - count + 4, tokens)]
        assert order.best(count).tolist() == [expected, expected]


@pytest.mark.parametrize("cross_scoring", [False, True])
def test_sinks_and_the_newest_come_before_all_scored_tokens(cross_scoring: bool) -> None:
    tokens = 4 + 3 * 16 + 5
    order = order_of(LagDeviation(4, 16, cross_scoring), layer_state(tokens), SELECTION)
    assert order.best(10).tolist() == [[0, 1, 2, 3, *range(tokens - 6, tokens)]] * 2
    assert order.best(4 + 16 + 5).tolist() == [[0, 1, 2, 3, *range(tokens - 21, tokens)]] * 2


@pytest.mark.parametrize("cross_scoring", [False, True])
def test_values_that_do_not_vary_leave_finite_scores(cross_scoring: bool) -> None:
    layer = layer_state(100, torch.ones(2, 100, 8))
    assert torch.isfinite(order_of(LagDeviation(4, 16, cross_scoring), layer, SELECTION).scores).all()
