"""Leverage of keys, and attention within chunks, against their definitions."""

from __future__ import annotations

import pytest
import torch

from harness.compression.leverage import chunk_attention, leverage_scores, sketch


def test_leverage_is_the_diagonal_of_the_projection_onto_all_keys() -> None:
    keys, projection = torch.randn(2, 50, 8), torch.eye(8).expand(2, -1, -1)
    scores = leverage_scores(keys, projection, ridge=0.0)
    centred = (keys - keys.mean(1, keepdim=True)).double()
    onto = centred @ torch.linalg.inv(centred.transpose(1, 2) @ centred) @ centred.transpose(1, 2)
    torch.testing.assert_close(scores, onto.diagonal(dim1=1, dim2=2).float())
    torch.testing.assert_close(scores.sum(1), torch.tensor([8.0, 8.0]))


@pytest.mark.parametrize("tokens", [1, 2, 10])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_short_prompts_with_keys_of_any_size_have_scores(tokens: int, size: float) -> None:
    keys = torch.randn(2, tokens, 64, generator=torch.Generator().manual_seed(tokens)) * size
    scores = leverage_scores(keys, sketch(0, 3, 2, 64, 48))
    assert torch.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1.001).all()


def test_a_sketch_depends_on_the_seed_and_the_layer_alone() -> None:
    assert torch.equal(sketch(0, 3, 2, 64, 48), sketch(0, 3, 2, 64, 48))
    assert not torch.equal(sketch(0, 3, 2, 64, 48), sketch(0, 2, 2, 64, 48))
    assert not torch.equal(sketch(0, 3, 2, 64, 48), sketch(1, 3, 2, 64, 48))


def test_a_whole_chunk_is_softmax_without_a_mask() -> None:
    queries, keys = torch.randn(4, 12, 8), torch.randn(2, 12, 8)
    found = chunk_attention(queries, keys, 6)
    for head in range(4):
        for first in (0, 6):
            part = slice(first, first + 6)
            weights = (queries[head, part] @ keys[head // 2, part].T).softmax(-1)
            torch.testing.assert_close(found[head, part], weights.sum(0))


def test_what_fills_the_last_chunk_takes_part() -> None:
    queries, keys = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    logits = torch.zeros(6, 6)
    logits[:4, :4] = queries[0] @ keys[0].T
    torch.testing.assert_close(chunk_attention(queries, keys, 6)[0], logits.softmax(-1).sum(0)[:4])
