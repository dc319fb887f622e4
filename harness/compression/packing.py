"""Packing: numbers rounded to codes of a few bits, several codes in one byte, and back.

Numbers that are packed lie in tensors [..., tokens, head_dim]. So do the parts that they become, codes, scales and zero
points: tokens, or groups of them, lie along the last axis but one, so that parts of later tokens can be appended there.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Bits: TypeAlias = Literal[2, 4, 8]
"""Bits of a code."""
Axis: TypeAlias = Literal[-2, -1]
"""The axis along which neighbours form groups and share bytes: -2, tokens of a channel; -1, channels of a token."""
Parts: TypeAlias = tuple[Tensor, ...]
"""What packed numbers consist of; see the module."""


def pack(codes: Tensor, bits: Bits, axis: Axis) -> Tensor:
    """Put the codes of neighbours into one byte, the first one into its lowest bits.

    Args:
        codes: uint8, each below 2**bits; along the axis their number is a multiple of 8 / bits.
        bits: bits of a code.
        axis: the axis along which codes share bytes.

    Returns:
        uint8, with bits / 8 times as many numbers along the axis.
    """
    first, *others = _grouped(codes, 8 // bits, axis).unbind(axis)
    packed = first.clone()
    for place, code in enumerate(others, 1):
        packed |= code << place * bits
    return packed


def unpack(packed: Tensor, bits: Bits, axis: Axis) -> Tensor:
    """The codes that ``pack`` put into bytes."""
    codes = torch.stack([packed >> place * bits & 2**bits - 1 for place in range(8 // bits)], axis)
    return codes.flatten(axis - 1, axis)


def quantise(numbers: Tensor, bits: Bits, group: int, axis: Axis) -> Parts:
    """Round numbers to steps between the smallest and the largest of their group, as KIVI does.

    Every operation rounds to the dtype of the numbers. The numbers of a constant group get code 0, where the reference
    divides 0 by 0; they come back exactly. A group with a number that is not finite comes back as NaN.

    Args:
        numbers: [..., tokens, head_dim], of any float dtype.
        bits: bits of a code.
        group: neighbours along the axis that share a scale and a zero point; it divides their number and is a multiple
            of 8 / bits.
        axis: the axis along which groups lie.

    Returns:
        Packed codes, scales and zero points; the last two in the dtype of the numbers.
    """
    groups = _grouped(numbers, group, axis)
    zero, largest = groups.aminmax(dim=axis, keepdim=True)
    scale = (largest - zero) / (2**bits - 1)
    steps = ((groups - zero) / scale).clamp(0, 2**bits - 1).round().nan_to_num(0)
    codes = steps.to(torch.uint8).flatten(axis - 1, axis)
    return pack(codes, bits, axis), scale.squeeze(axis), zero.squeeze(axis)


def dequantise(parts: Parts, bits: Bits, group: int, axis: Axis) -> Tensor:
    """The numbers [..., tokens, head_dim] that parts of ``quantise`` stand for: code x scale + zero point."""
    packed, scale, zero = parts
    codes = _grouped(unpack(packed, bits, axis), group, axis).to(scale.dtype)
    return codes.mul_(scale.unsqueeze(axis)).add_(zero.unsqueeze(axis)).flatten(axis - 1, axis)


def _grouped(numbers: Tensor, size: int, axis: Axis) -> Tensor:
    """The axis as two: groups, and in its place the members of each."""
    shape = list(numbers.shape)
    place = numbers.ndim + axis
    return numbers.reshape(*shape[:place], -1, size, *shape[place + 1 :])
