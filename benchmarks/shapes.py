"""Models with random weights for benchmarks: the cost of a shape does not depend on the values of its weights."""

from __future__ import annotations

import sys
from copy import deepcopy
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel  # noqa: E402

from harness.bench.setup import grid_of  # noqa: E402
from harness.bench.subject import Subject  # noqa: E402
from harness.engine.attention import install  # noqa: E402
from harness.engine.blocked_linear import block_linears  # noqa: E402
from harness.engine.memory import keep_freed_memory  # noqa: E402
from harness.engine.settings import choose_kernels  # noqa: E402
from harness.kernels import Kernels  # noqa: E402

# Small enough for one thread of a CPU, large enough for matrix products to matter.
WIDTH_512 = LlamaConfig(
    vocab_size=1024,
    hidden_size=512,
    intermediate_size=1408,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    max_position_embeddings=40960,
    bos_token_id=None,
    eos_token_id=None,
    dtype="float32",
)
LLAMA_3_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=40960,
    bos_token_id=None,
    eos_token_id=None,
    dtype="bfloat16",
)
# What computes a run on a CPU by default.
ON_CPU = choose_kernels("auto", torch.device("cpu"))
# Random weights give flat attention, whose scores are nearly tied. Larger queries and keys make it prefer some tokens.
_SHARPER = 4.0


def load(config: LlamaConfig, device: str, kernels: Kernels) -> PreTrainedModel:
    """Make the model with seeded random weights, on the device where it will run."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(config.dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(deepcopy(config))  # loading changes it, and other processes need the original
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(_SHARPER)
            layer.self_attn.k_proj.weight.mul_(_SHARPER)
    model.train(False)
    keep_freed_memory()
    block_linears(model, kernels)
    install(model)
    return model


def make_subject(
    name: str,
    config: LlamaConfig,
    device: str,
    granularity: str,
    budgets: list[int],
    new_tokens: int,
    methods: str = "published",
) -> Subject:
    """A subject with a grid of methods on a shape.

    Args:
        name: the model's name.
        config: its shape.
        device: where it runs.
        granularity: the selection's granularity.
        budgets: the budgets of the grid, in entries.
        new_tokens: number of new tokens per row.
        methods: ``published``, ``all``, or names in brackets.
    """
    overrides = [f"method={methods}", f"budget={budgets}", f"selection.granularity={granularity}"]
    kernels = choose_kernels("auto", torch.device(device))
    return Subject(name, partial(load, config, device), config, *grid_of(overrides), new_tokens, kernels)
