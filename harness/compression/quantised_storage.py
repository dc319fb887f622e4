"""Storages that round numbers: KIVI, whole numbers with one scale per token, and eight-bit floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from harness.compression.packing import Axis, Bits, Parts, dequantise, quantise
from harness.compression.storage import Storage
from harness.errors import ConfigError
from harness.values import Count, Size


@dataclass(frozen=True)
class Quantised(Storage):
    """Codes of a few bits; a group of neighbours shares a scale and a zero point, in the dtype of the model.

    The values of a token form groups of channels; all but the last ``residual`` are packed. Keys form groups like
    values, or groups of tokens of one channel: then ``residual`` keys are packed at once when so many have come.

    Attributes:
        keys: ``channel``: a group of keys is one channel of neighbouring tokens, as in KIVI; ``token``: neighbouring
            channels of one token, as of values.
        bits: bits of a code.
        group: numbers of a group; None: all of a token.
        residual: last entries that are not packed.
    """

    keys: Literal["channel", "token"]
    bits: Bits
    group: Size | None
    residual: Count
    tail: ClassVar[str] = "residual"

    def __post_init__(self) -> None:
        super().__post_init__()
        knob = f"storage.{self.label}"
        if self.group is not None and self.group % (8 // self.bits):
            raise ConfigError(
                f"{knob}.group={self.group} does not fill bytes with {self.bits} bits: use a multiple of "
                f"{8 // self.bits}, as 32"
            )
        if self.keys == "channel" and self.group is None:
            raise ConfigError(f"{knob}.group=null is a whole token, and keys=channel needs tokens of a group: use 32")
        if self.keys == "channel" and (not self.residual or self.residual % (self.group or 1)):
            raise ConfigError(
                f"{knob}.residual={self.residual} is no multiple of group={self.group}, in which keys=channel packs "
                f"keys: use {self.group} or {4 * (self.group or 1)}"
            )

    @property
    def by_entry(self) -> bool:
        """See ``Storage``."""
        return self.keys == "token" and not self.residual

    def check_model(self, head_dim: int) -> None:
        """See ``Storage``."""
        if head_dim % (self.group or 8 // self.bits):
            raise ConfigError(
                f"storage.{self.label}.group={'null' if self.group is None else self.group} does not divide the "
                f"{head_dim} numbers of a value: use a divisor of {head_dim} that is a multiple of {8 // self.bits}"
            )

    def borders(self, kept: int, entries: int) -> tuple[int, int]:
        """See ``Storage``; both depend on the number of entries alone."""
        values = max(0, entries - self.residual)
        return (entries - entries % self.residual if self.keys == "channel" else values), values

    def pack_keys(self, keys: Tensor) -> Parts:
        """See ``Storage``."""
        return quantise(keys, self.bits, self._group(keys), self._axis)

    def unpack_keys(self, parts: Parts, like: Tensor) -> Tensor:
        """See ``Storage``."""
        return dequantise(parts, self.bits, self._group(like), self._axis)

    def pack_values(self, values: Tensor) -> Parts:
        """See ``Storage``."""
        return quantise(values, self.bits, self._group(values), -1)

    def unpack_values(self, parts: Parts, like: Tensor) -> Tensor:
        """See ``Storage``."""
        return dequantise(parts, self.bits, self._group(like), -1)

    @property
    def _axis(self) -> Axis:
        return -2 if self.keys == "channel" else -1

    def _group(self, states: Tensor) -> int:
        return self.group or states.shape[-1]


@dataclass(frozen=True)
class Float8(Storage):
    """Every number as the nearest float of eight bits, four of them exponent and three mantissa (e4m3).

    There is no scale; numbers beyond 448, the largest one, become 448.
    """

    @property
    def by_entry(self) -> bool:
        """See ``Storage``."""
        return True

    def borders(self, kept: int, entries: int) -> tuple[int, int]:
        """All entries are packed."""
        return entries, entries

    def pack_keys(self, keys: Tensor) -> Parts:
        """See ``Storage``."""
        return self.pack_values(keys)

    def unpack_keys(self, parts: Parts, like: Tensor) -> Tensor:
        """See ``Storage``."""
        return self.unpack_values(parts, like)

    def pack_values(self, values: Tensor) -> Parts:
        """See ``Storage``."""
        largest = torch.finfo(torch.float8_e4m3fn).max
        return (values.clamp(-largest, largest).to(torch.float8_e4m3fn).view(torch.uint8),)

    def unpack_values(self, parts: Parts, like: Tensor) -> Tensor:
        """See ``Storage``."""
        return parts[0].view(torch.float8_e4m3fn).to(like.dtype)
