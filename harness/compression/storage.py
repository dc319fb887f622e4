"""Storage: as what kept entries are stored: as they are, as codes of a few bits, without channels, merged.

A storage is an axis of the grid beside method and budget. The first entries of a head are packed; the last ones stay
as they are until enough others have come behind them. Keys and values may have borders of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from torch import Tensor

from harness.compression.packing import Parts
from harness.values import check

if TYPE_CHECKING:
    from harness.compression.method import LayerState

Entries: TypeAlias = tuple[Tensor, Tensor]
"""Keys and values."""


@dataclass(frozen=True)
class Storage:
    """As what kept entries are stored; this class: as they are.

    Subclasses are frozen dataclasses; their fields are their YAML, checked against their types. Keys and values [rows,
    heads, tokens, head_dim] become parts; the first two axes of a part are the same, and tokens lie along the last but
    one.

    Attributes:
        label: the name in tables: the stem of the YAML file.
        tail: the knob that says how many of the last entries are not packed.
        merges: whether dropped entries change the kept ones.

    Raises:
        ConfigError: a knob does not fit its type or range.
    """

    label: str
    tail: ClassVar[str] = ""
    merges: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(self, f"storage.{self.label}")

    @property
    def exact(self) -> bool:
        """Whether kept entries are stored as the model made them."""
        return type(self) is Storage

    @property
    def packs(self) -> bool:
        """Whether entries are stored in another form than the model's."""
        return not self.exact

    def merged(self, kept: Entries, dropped: Entries) -> Entries:
        """What becomes of the kept entries of one head where ``merges``.

        Args:
            kept: their keys and values, each [entries, head_dim].
            dropped: the others of the prompt, 1 or more.
        """
        return kept

    @property
    def by_entry(self) -> bool:
        """Whether every entry is packed by itself, as soon as its step has ended, so that any can leave the cache."""
        return False

    @property
    def form(self) -> str:
        """What it is but for its label: entries of equal forms are stored alike."""
        knobs = [f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.name != "label"]
        return f"{type(self).__name__}({', '.join(knobs)})"

    def check_model(self, head_dim: int) -> None:
        """Refuse a model whose keys and values cannot be packed.

        Args:
            head_dim: numbers of a key of one head.

        Raises:
            ConfigError: the knobs do not fit ``head_dim``.
        """

    def borders(self, kept: int, entries: int) -> tuple[int, int]:
        """How many of the first keys and of the first values of a head are packed; neither falls as entries come.

        Args:
            kept: entries that were kept of the prompt.
            entries: these and the ones that have come since.
        """
        return 0, 0

    def look(self, layer: LayerState) -> Tensor | None:
        """What ``first_keys`` needs of a layer besides kept keys, [query heads, ...]; None if it needs nothing."""
        return None

    def first_keys(self, kept: Tensor, border: int, seen: Tensor | None) -> Parts:
        """Pack the first keys that were kept of a prompt.

        Args:
            kept: all kept keys of some heads, [rows, heads, entries, head_dim].
            border: number of the first ones to pack, 1 or more.
            seen: what ``look`` returned of the query heads of each head, [heads, copies, ...].
        """
        return self.pack_keys(kept[:, :, :border])

    def pack_keys(self, keys: Tensor) -> Parts:
        """Pack keys [rows, heads, tokens, head_dim], which come behind those that are packed already."""
        raise NotImplementedError

    def unpack_keys(self, parts: Parts, like: Tensor) -> Tensor:
        """The keys that parts stand for, in the dtype and with the head_dim of ``like``."""
        raise NotImplementedError

    def pack_values(self, values: Tensor) -> Parts:
        """Pack values [rows, heads, tokens, head_dim]."""
        raise NotImplementedError

    def unpack_values(self, parts: Parts, like: Tensor) -> Tensor:
        """The values that parts stand for, in the dtype and with the head_dim of ``like``."""
        raise NotImplementedError


EXACT = Storage("exact")
"""Entries as they are."""
