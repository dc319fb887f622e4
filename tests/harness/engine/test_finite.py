"""Rows with numbers that are not finite are found, and no others."""

from __future__ import annotations

import pytest
import torch

from harness.engine.finite import all_finite


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_a_row_with_one_number_that_is_not_finite_is_found(bad: float) -> None:
    rows = torch.randn(4, 300)
    rows[2, 177] = bad
    assert all_finite(rows) == [True, True, False, True]


def test_opposite_infinities_do_not_cancel_out_and_a_sum_that_overflows_is_finite_numbers() -> None:
    largest = torch.finfo(torch.float32).max
    rows = torch.tensor([[torch.inf, -torch.inf], [largest, largest], [1.0, 2.0]])
    assert all_finite(rows) == [False, True, True]
