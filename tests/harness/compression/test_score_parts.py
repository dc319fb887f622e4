"""Forced tokens and standardised scores."""

from __future__ import annotations

import pytest
import torch

from harness.compression.score_parts import forced, standardised

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_forced_tokens_stand_above_all_heads_and_rise_with_the_position(dtype: torch.dtype) -> None:
    scores = torch.tensor([[9.0, 1, 2, 3, 9, 9], [9.0, 5, 6, 7, 9, 9]], dtype=dtype)
    found = forced(scores, first=1, last=2)
    assert torch.equal(found[:, 1:4], scores[:, 1:4])
    raised = found[:, [0, 4, 5]]
    assert (raised >= 8).all() and (raised < 8.2).all()
    assert (raised.diff(dim=1) > 0).all()
    assert torch.equal(raised[0], raised[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 64, 5000])
def test_of_a_window_that_does_not_fit_the_newest_tokens_win(dtype: torch.dtype, tokens: int) -> None:
    found = forced(torch.zeros(1, tokens, dtype=dtype), last=64)
    order = found[0].sort(descending=True, stable=True).indices[: min(64, tokens)]
    assert order.tolist() == list(range(tokens - 1, max(-1, tokens - 65), -1))


@pytest.mark.parametrize(("first", "last"), [(9, 0), (0, 9), (3, 3), (2, 2), (0, 0)])
def test_more_forced_tokens_than_there_are_is_all_of_them(first: int, last: int) -> None:
    found = forced(torch.zeros(2, 4), first, last)
    assert torch.isfinite(found).all()
    assert (found > 0).sum(1).tolist() == [min(4, first + last)] * 2


def test_standardised_scores_of_equal_numbers_are_finite() -> None:
    assert torch.equal(standardised(torch.ones(2, 5)), torch.zeros(2, 5))
    found = standardised(torch.randn(3, 40))
    assert abs(float(found.mean())) < 1e-6 and abs(float(found.std()) - 1) < 1e-5
