"""How a model's weights lie in the memory of a CPU: so that few rows at a time are multiplied fast."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel


def transpose_linears(model: PreTrainedModel) -> None:
    """Let the float32 weights of linear layers on a CPU lie input by input. What they are, and what calls them, stays as it is.

    A decoding step multiplies a row per variant and prompt, some tens of them: BLAS is faster where it need not transpose the weights
    (``benchmarks/thin_products.py``). Products of whole prompts take as long either way, to the same bits. A head that is tied to the
    embeddings stays: these are read token by token.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if isinstance(module, nn.Linear) and id(module.weight) not in embeddings:
            weight = module.weight
            if weight.device.type == "cpu" and weight.dtype == torch.float32:
                weight.data = weight.data.t().contiguous().t()
