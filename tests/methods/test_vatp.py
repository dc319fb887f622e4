"""VATP weighs H2O's attention sums by the values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.compression.method import LayerState
from harness.compression.scorers import ColumnSums
from harness.compression.selection import Selection, order_of
from harness.errors import BudgetError
from methods.vatp import VATP, ValuedAttention

PER_HEAD = Selection("query_head", "mean", "stable", "float32")


def layer_state() -> LayerState:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(heads, 60, 8, generator=generator) for heads in (4, 2, 2))
    return LayerState(queries, keys, values, 0, 1, 8**-0.5, torch.float32)


def test_values_of_equal_size_leave_the_order_of_h2o() -> None:
    layer = layer_state()
    layer = replace(layer, values=layer.values.sign())
    with_values = order_of(ValuedAttention(8, 0), layer, PER_HEAD)
    alone = order_of(ColumnSums(8, True), layer, PER_HEAD)
    torch.testing.assert_close(with_values.scores, 8 * alone.scores)


def test_the_sum_of_absolute_values_is_the_weight() -> None:
    layer = layer_state()
    scores = order_of(ValuedAttention(8, 0), layer, PER_HEAD).scores
    weights = layer.values.abs().sum(-1).repeat_interleave(2, 0)[:, :52]
    torch.testing.assert_close(scores, ColumnSums(8, True).score(layer) * weights)


def test_first_tokens_are_kept_whatever_their_values() -> None:
    layer = layer_state()
    layer.values[:, :5] = 0
    best = order_of(ValuedAttention(8, 5), layer, PER_HEAD).best(10)
    assert (best[:, :5] == torch.arange(5)).all()


def test_a_budget_of_the_first_and_recent_tokens_alone_is_refused() -> None:
    method = VATP("vatp", 8, 20)
    with pytest.raises(BudgetError, match=r"budget=28 is not above window\+sinks=28 \(method=vatp\): use budget>=29"):
        method.check_budget(28)
    method.check_budget(29)
