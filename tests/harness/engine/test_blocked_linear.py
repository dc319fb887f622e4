"""Linear layers in blocks are the same layers."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from harness.engine.blocked_linear import BlockedLinear, block_linears, plain_linears
from harness.engine.model_parts import ModelParts
from tests.harness.tiny import prompt_of, tiny


def blocked(**settings: torch.dtype) -> PreTrainedModel:
    model = deepcopy(tiny(2, **settings))
    block_linears(model, "torch")
    return model


def test_every_layer_lies_in_blocks_and_has_the_same_weights() -> None:
    before, after = tiny(2, dtype=torch.float32), blocked(dtype=torch.float32)
    linears = {name: module for name, module in before.named_modules() if isinstance(module, nn.Linear)}
    there = dict(after.named_modules())
    assert not any(isinstance(module, nn.Linear) for module in there.values())
    for name, linear in linears.items():
        assert isinstance(there[name], BlockedLinear) and torch.equal(there[name].weight, linear.weight)
        assert all(block.is_contiguous() for block in there[name].blocks)
    assert sum(each.numel() for each in after.parameters()) == sum(each.numel() for each in before.parameters())


@pytest.mark.parametrize(
    ("outputs", "blocks"),
    [
        (192, [192]),
        (768, [768]),
        (512, [256, 256]),
        (1000, [336, 336, 328]),
        (1408, [704, 704]),
        (2000, [672, 672, 656]),
    ],
)
def test_blocks_are_as_many_as_needed_and_about_as_large(outputs: int, blocks: list[int]) -> None:
    layer = BlockedLinear(nn.Linear(8, outputs), "torch")
    assert [block.shape[1] for block in layer.blocks] == blocks


@pytest.mark.parametrize("rows", [1, 3, 42, 300])
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_those_of_the_ordinary_layer(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    linear, inputs = nn.Linear(96, 1200, bias=bias), torch.randn(2, rows, 96)
    with torch.inference_mode():
        expected = functional.linear(inputs, linear.weight, linear.bias)
        torch.testing.assert_close(BlockedLinear(linear, "torch")(inputs), expected)


def test_a_head_that_is_tied_to_the_embeddings_stays_and_stays_tied() -> None:
    model = deepcopy(tiny(2, dtype=torch.float32))
    model.lm_head.weight = model.model.embed_tokens.weight
    block_linears(model, "torch")
    assert model.lm_head.weight is model.model.embed_tokens.weight and model.lm_head.weight.is_contiguous()
    assert isinstance(model.model.layers[0].mlp.down_proj, BlockedLinear)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_stay(dtype: torch.dtype) -> None:
    model = deepcopy(tiny(2, dtype=torch.float32)).to(dtype)
    block_linears(model, "torch")
    assert not any(isinstance(module, BlockedLinear) for module in model.modules())


def test_a_prompt_has_the_same_logits_but_for_rounding_whether_or_not_gradients_are_on() -> None:
    found = []
    for work in (partial(block_linears, kernels="torch"), lambda model: None):
        model = deepcopy(tiny(2, dtype=torch.float32))
        model.set_attn_implementation("sdpa")
        work(model)
        found.append(model(torch.tensor([prompt_of(40)]), use_cache=False).logits.detach())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_scorers_find_the_output_projection_of_a_blocked_layer() -> None:
    before, after = tiny(2, dtype=torch.float32), blocked(dtype=torch.float32)
    found = [ModelParts(model, "tiny").output_projection(1) for model in (before, after)]
    assert torch.equal(*found)


def test_a_model_has_ordinary_layers_while_asked_to_and_its_own_afterwards() -> None:
    before, after = deepcopy(tiny(2, dtype=torch.float32)), deepcopy(tiny(2, dtype=torch.float32))
    for model in (before, after):
        model.lm_head.weight = model.model.embed_tokens.weight
    block_linears(after, "torch")
    layer, head = after.model.layers[0].mlp.down_proj, after.lm_head
    with plain_linears(after):
        inside = after.model.layers[0].mlp.down_proj
        assert type(inside) is type(after.lm_head) is nn.Linear and inside.weight.is_contiguous()
        assert torch.equal(inside.weight, before.model.layers[0].mlp.down_proj.weight)
        assert after.lm_head.weight.data_ptr() == after.model.embed_tokens.weight.data_ptr()
    assert after.model.layers[0].mlp.down_proj is layer and after.lm_head is head
