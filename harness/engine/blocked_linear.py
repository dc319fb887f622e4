"""Linear layers of a CPU whose weights lie as products of few rows like them.

A decoding step multiplies some tens of rows, one per variant and prompt. For so few, BLAS is faster where weights lie
input by input, so that it need not transpose them, and in blocks of some hundred outputs, each in one piece of memory:
``benchmarks/thin_products.py``. Products of whole prompts take as long as before and, by torch, give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.kernels import Kernels
from harness.kernels.products import times

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BLOCK = 768
"""Outputs of a block at most."""
_LINE = 16
"""Outputs of a block are a multiple of so many float32 numbers, which are a line of the processor's cache."""
_SAME_PLACE = 512
"""Outputs of a block are no multiple of this: all inputs' weights would fall on few places of the processor's cache."""


class BlockedLinear(nn.Module):
    """A linear layer in blocks of outputs. It cannot be trained.

    Attributes:
        in_features: number of inputs.
        out_features: number of outputs.
        bias: [out_features], or None.
        kernels: what multiplies; see ``EngineSettings``.
    """

    def __init__(self, linear: nn.Linear, kernels: Kernels) -> None:
        """Copy the weights of a layer."""
        super().__init__()
        self.kernels = kernels
        self.in_features, self.out_features = linear.in_features, linear.out_features
        outputs = _outputs_of_a_block(linear.out_features)
        parts = torch.split(linear.weight.detach(), outputs)
        # Not a list of torch's, which would be a module of its own within this one.
        self._names = [f"block_{index}" for index in range(len(parts))]
        for name, part in zip(self._names, parts, strict=True):
            self.register_parameter(name, nn.Parameter(part.t().contiguous(), requires_grad=False))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    @property
    def blocks(self) -> list[Tensor]:
        """The weights of some outputs each, [in_features, outputs], all but the last equally many."""
        return [self.get_parameter(name) for name in self._names]

    @property
    def weight(self) -> Tensor:
        """The weights [out_features, in_features] as those of an ordinary layer; a copy."""
        return torch.cat(self.blocks, dim=1).t()

    def plain(self) -> nn.Linear:
        """An ordinary layer with the same weights."""
        return _plain(self, self.weight.contiguous())

    def forward(self, inputs: Tensor) -> Tensor:
        """The products of rows with the weights, plus the bias.

        Args:
            inputs: [..., in_features].

        Returns:
            [..., out_features].
        """
        rows, blocks = inputs.reshape(-1, self.in_features), self.blocks
        added = [None] * len(blocks) if self.bias is None else torch.split(self.bias, blocks[0].shape[1])
        if self.kernels == "onednn":
            parts = [times(rows, block.t(), bias, self.kernels) for block, bias in zip(blocks, added, strict=True)]
            out = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
            return out.view(*inputs.shape[:-1], self.out_features)
        out, start = rows.new_empty(len(rows), self.out_features), 0
        for block, bias in zip(blocks, added, strict=True):
            here = out[:, start : start + block.shape[1]]
            if bias is None:
                torch.mm(rows, block, out=here)
            else:
                torch.addmm(bias, rows, block, out=here)
            start += block.shape[1]
        return out.view(*inputs.shape[:-1], self.out_features)


class TiedHead(nn.Linear):
    """A head whose weights are those of the embeddings.

    Attributes:
        kernels: see ``BlockedLinear``.
    """

    def __init__(self, linear: nn.Linear, kernels: Kernels) -> None:
        """Share the weights of a layer."""
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias, self.kernels = linear.weight, linear.bias, kernels

    def plain(self) -> nn.Linear:
        """See ``BlockedLinear``."""
        return _plain(self, self.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """See ``BlockedLinear``."""
        rows = inputs.reshape(-1, self.in_features)
        return times(rows, self.weight, self.bias, self.kernels).view(*inputs.shape[:-1], self.out_features)


def _plain(layer: BlockedLinear | TiedHead, weight: Tensor) -> nn.Linear:
    linear = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    linear.weight, linear.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    return linear


def _outputs_of_a_block(outputs: int) -> int:
    """The size of blocks, which are as many as needed and as equal as whole lines allow."""
    blocks = -(-outputs // _BLOCK)
    sizes = (-(-outputs // (count * _LINE)) * _LINE for count in (blocks, blocks + 1))
    return next(size for size in sizes if size % _SAME_PLACE)


def block_linears(model: PreTrainedModel, kernels: Kernels) -> None:
    """Put a ``BlockedLinear`` in the place of each float32 linear layer on a CPU.

    A head that is tied to the embeddings becomes a ``TiedHead``, because embeddings are read token by token.

    Args:
        model: the model.
        kernels: what multiplies; see ``EngineSettings``.
    """
    model.requires_grad_(False)  # products into given memory cannot be differentiated
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is not nn.Linear:
                continue
            if child.weight.device.type == "cpu" and child.weight.dtype == torch.float32:
                setattr(module, name, (TiedHead if id(child.weight) in embeddings else BlockedLinear)(child, kernels))


@contextmanager
def plain_linears(model: PreTrainedModel) -> Iterator[None]:
    """Give a model ordinary linear layers while the body runs, as transformers itself has them."""
    blocked = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if isinstance(child, BlockedLinear | TiedHead)
    ]
    try:
        for module, name, child in blocked:
            setattr(module, name, child.plain())
        yield
    finally:
        for module, name, child in blocked:
            setattr(module, name, child)
