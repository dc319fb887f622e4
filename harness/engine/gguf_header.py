"""The header of a GGUF file: its metadata and the list of its tensors, read in a fraction of a second.

The format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (MIT). Long arrays, such as a
vocabulary, are passed over: transformers reads them, which takes seconds.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Codes of value types in the file, and their codes in ``struct``."""
_MOST_DIMENSIONS = 8


class Broken(Exception):
    """What is wrong with a file, in words that follow its name."""


@dataclass(frozen=True)
class Tensor:
    """A tensor's entry in the header.

    Attributes:
        elements: number of its elements.
        type: number of its quantization type.
        offset: bytes from the beginning of the file.
    """

    elements: int
    type: int
    offset: int


@dataclass(frozen=True)
class Header:
    """The header of a file.

    Attributes:
        metadata: numbers and texts by their keys; of an array, its length.
        tensors: the tensors by their names.
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def read_header(file: Path) -> Header:
    """Read the header of a file.

    Raises:
        Broken: the file is empty, of another format or version, or cut off within the header.
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        if not (start := stream.read(8)):
            raise Broken("is empty")
        if start[:4] != b"GGUF":
            raise Broken("is not a GGUF file (it does not begin with GGUF)")
        version = int.from_bytes(start[4:], "little")
        if version not in (2, 3):
            raise Broken(f"is of GGUF version {version}" if version < 2**16 else "is a big-endian GGUF file")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            try:
                return _Reader(mapped).header()
            # ValueError: no UTF-8, or an alignment that is no number; RecursionError: arrays in arrays without end.
            except (struct.error, ValueError, KeyError, OverflowError, ZeroDivisionError, RecursionError) as error:
                raise Broken("is cut off or damaged within its header") from error


class _Reader:
    """Reads values one after the other."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self.mapped = mapped
        self.at = 8

    def header(self) -> Header:
        tensors, keys = self.number("Q"), self.number("Q")
        metadata = {self.text(): self.value() for _ in range(keys)}
        entries = [self.tensor() for _ in range(tensors)]
        alignment = int(metadata.get("general.alignment", 32))
        data = self.at + -self.at % alignment
        return Header(metadata, {name: Tensor(size, kind, data + offset) for name, size, kind, offset in entries})

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.mapped, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def text(self) -> str:
        length = self.number("Q")
        self.skip(length)
        return self.mapped[self.at - length : self.at].decode("utf-8")

    def value(self) -> Any:
        kind = self.number("I")
        if kind == _STRING:
            return self.text()
        return self.array() if kind == _ARRAY else self.number(_NUMBERS[kind])

    def array(self) -> int:
        """Pass over an array, and return its length."""
        kind, length = self.number("I"), int(self.number("Q"))
        if kind == _STRING:
            for _ in range(length):
                self.skip(self.number("Q"))
        elif kind == _ARRAY:
            for _ in range(length):
                self.array()
        else:
            self.skip(length * struct.calcsize(_NUMBERS[kind]))
        return length

    def skip(self, length: int) -> None:
        self.at += length
        if self.at > len(self.mapped):
            raise struct.error

    def tensor(self) -> tuple[str, int, int, int]:
        name, dimensions = self.text(), self.number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise struct.error
        elements = 1
        for _ in range(dimensions):
            elements *= self.number("Q")
        return name, elements, self.number("I"), self.number("Q")
