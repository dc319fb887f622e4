"""CAOTE's score is the change of the attention output that dropping a token makes."""

from __future__ import annotations

import pytest
import torch

from harness.compression.method import LayerState
from methods.caote import OutputError


def layer_state(tokens: int) -> LayerState:
    generator = torch.Generator().manual_seed(tokens)
    queries, keys, values = (torch.randn(heads, tokens, 8, generator=generator) for heads in (4, 2, 2))
    return LayerState(queries, keys, values, 0, 1, 8**-0.5, torch.float32)


def test_the_score_is_what_the_output_changes_by_when_one_token_is_dropped() -> None:
    layer, tokens = layer_state(20), 20
    scores = OutputError(1, "exact").score(layer)
    assert scores.shape == (4, 19)
    for head in range(4):
        keys, values = layer.keys[head // 2], layer.values[head // 2]
        weights = (keys @ layer.queries[head, -1] * layer.scaling).softmax(0)
        for dropped in range(tokens - 1):
            rest = [token for token in range(tokens) if token != dropped]
            change = weights @ values - (weights[rest] / weights[rest].sum()) @ values[rest]
            torch.testing.assert_close(scores[head, dropped], change.norm(), rtol=1e-4, atol=1e-5)


def test_the_fast_form_takes_the_mean_of_values_for_the_output() -> None:
    layer = layer_state(20)
    alike = LayerState(
        layer.queries,
        layer.keys,
        layer.values.mean(1, keepdim=True).expand_as(layer.values),
        0,
        1,
        8**-0.5,
        torch.float32,
    )
    assert not torch.allclose(OutputError(4, "mean").score(layer), OutputError(4, "exact").score(layer), rtol=1e-2)
    for output in ("mean", "exact"):
        assert OutputError(4, output).score(alike).abs().max() < 1e-5  # type: ignore[arg-type]


@pytest.mark.parametrize("heads", [1, 2])
def test_a_token_that_takes_all_the_attention_has_a_finite_score(heads: int) -> None:
    keys = torch.zeros(heads, 6, 8)
    keys[:, 2, 0] = 1e4
    queries, values = torch.zeros(heads, 6, 8), torch.randn(heads, 6, 8)
    queries[:, :, 0] = 1.0
    scores = OutputError(1, "exact").score(LayerState(queries, keys, values, 0, 1, 1.0, torch.float32))
    assert torch.isfinite(scores).all()
