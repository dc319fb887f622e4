"""Parts of models: what stood before the rotary embedding, and output projections, against the modules themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from harness.compression.method import LayerState
from harness.engine.attention import install
from harness.engine.keeping import Keeping
from harness.engine.model_parts import ModelParts
from harness.engine.prefill import prefill
from harness.errors import ModelError
from tests.harness.tiny import STABLE, prompt_of

SIZES = {
    "vocab_size": 101, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}


def model_of(family: str, **more: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(SIZES | more)))
    return model.eval()


def states_of(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> list[LayerState]:
    """The layers that a scorer sees of one prompt."""
    install(model)
    seen: list[LayerState] = []
    monkeypatch.setattr(Keeping, "take", lambda self, state, scores: seen.append(state))
    prefill(model, "m", prompt_of(40), [], STABLE)
    return seen


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {}),
        ("llama", {"rope_parameters": YARN}),
        (
            "llama",
            {
                "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
                "max_position_embeddings": 32,
            },
        ),
        ("qwen2", {}),
        ("smollm3", {"no_rope_layers": [1, 0]}),
        ("phi", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
    ],
)
def test_states_before_the_rotary_embedding_are_what_the_projections_gave(
    family: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(family, **more)
    given: dict[str, list[Tensor]] = {"q_proj": [], "k_proj": []}
    for name, module in model.named_modules():
        if (last := name.split(".")[-1]) in given:
            module.register_forward_hook(lambda module, _, out, last=last: given[last].append(out[0]))
    for layer in states_of(model, monkeypatch):
        for states, name in ((layer.queries, "q_proj"), (layer.keys, "k_proj")):
            expected = given[name][layer.index].view(40, -1, 8).transpose(0, 1)
            torch.testing.assert_close(layer.unrotated(states), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_the_output_projection_gives_the_attentions_output_head_by_head(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(family)
    given: list[tuple[Tensor, Tensor]] = []
    for name, module in model.named_modules():
        if name.split(".")[-1] in ("o_proj", "dense"):
            module.register_forward_hook(lambda module, put, out: given.append((put[0][0], out[0] - _bias(module))))
    for layer in states_of(model, monkeypatch):
        put, out = given[layer.index]
        heads = put.view(40, 4, 8)
        torch.testing.assert_close(torch.einsum("thd,hdo->to", heads, layer.output_projection), out)


def _bias(module: Any) -> Any:
    return 0 if module.bias is None else module.bias


@pytest.mark.parametrize("family", ["cohere", "gpt2"])
def test_a_family_that_turns_other_dimensions_or_none_is_named(family: str) -> None:
    model = model_of(family)
    with pytest.raises(ModelError, match=r"^model=mine has no rotary embedding of halves: leave out the methods"):
        ModelParts(model, "mine").rotary(0, torch.arange(3))
