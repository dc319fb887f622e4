"""Weights that lie input by input are the same weights."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from harness.engine.loading import transpose_linears
from tests.harness.tiny import prompt_of, tiny


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def test_weights_lie_otherwise_and_are_the_same() -> None:
    before, model = tiny(2, dtype=torch.float32), deepcopy(tiny(2, dtype=torch.float32))
    transpose_linears(model)
    for name, linear in linears(model).items():
        assert linear.weight.t().is_contiguous() and isinstance(linear.weight, nn.Parameter)
        assert torch.equal(linear.weight, linears(before)[name].weight)
    transpose_linears(model)
    assert all(linear.weight.t().is_contiguous() for linear in linears(model).values()), "once is as good as twice"


def test_a_head_that_is_tied_to_the_embeddings_stays_and_stays_tied() -> None:
    model = deepcopy(tiny(2, dtype=torch.float32))
    model.lm_head.weight = model.model.embed_tokens.weight
    transpose_linears(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight and model.lm_head.weight.is_contiguous()
    assert model.model.layers[0].mlp.down_proj.weight.t().is_contiguous()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_stay(dtype: torch.dtype) -> None:
    model = deepcopy(tiny(2, dtype=torch.float32)).to(dtype)
    transpose_linears(model)
    assert all(linear.weight.is_contiguous() for linear in linears(model).values())


def test_a_prompt_has_the_same_logits_but_for_rounding() -> None:
    found = []
    for work in (transpose_linears, lambda model: None):
        model = deepcopy(tiny(2, dtype=torch.float32))
        model.set_attn_implementation("sdpa")
        work(model)
        with torch.inference_mode():
            found.append(model(torch.tensor([prompt_of(40)]), use_cache=False).logits)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
