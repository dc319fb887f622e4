"""Storage of keys without the channels that queries look at least (ThinK)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.method import LayerState
from harness.compression.packing import Parts
from harness.compression.storage import Storage
from harness.errors import ConfigError
from harness.values import Count, Refusal, Size


@dataclass(frozen=True)
class PrunedChannels(Storage):
    """Keys without some channels, chosen for each head; what is missing counts as 0. Values stay as they are.

    A channel's score is the mean of its squared queries times the mean of its squared keys; where a head of the cache
    serves several query heads, the mean over them. Entries that come while decoding keep all channels.

    Attributes:
        ratio: share of the channels that are removed; their number is rounded down.
        recent: last kept entries whose keys stay whole.
        queries: last queries of the prompt that the score sees.
        keys: keys that the score sees: ``kept``, or all of the ``prompt``.
    """

    ratio: Annotated[
        float,
        Meta(gt=0, lt=1),
        Refusal("is no share between 0 and 1, both excluded", "use ratio=0.4 to remove 40% of the channels"),
    ]
    recent: Count
    queries: Size
    keys: Literal["kept", "prompt"]
    tail: ClassVar[str] = "recent"

    def check_model(self, head_dim: int) -> None:
        """See ``Storage``."""
        if not int(head_dim * self.ratio):
            raise ConfigError(
                f"storage.{self.label}.ratio={self.ratio} removes none of {head_dim} channels: use "
                f"{math.ceil(1000 / head_dim) / 1000} or more"
            )

    def borders(self, kept: int, entries: int) -> tuple[int, int]:
        """The keys that were kept of the prompt, but for recent ones; no values."""
        return max(0, kept - self.recent), 0

    def look(self, layer: LayerState) -> Tensor:
        """Mean squared queries [query heads, head_dim], times mean squared keys if all of the prompt count."""
        squares = layer.queries[:, -self.queries :].float().square().mean(1)
        if self.keys == "kept":
            return squares
        keys = layer.keys.float().square().mean(1)
        return squares * keys.repeat_interleave(len(squares) // len(keys), dim=0)

    def scores(self, kept: Tensor, seen: Tensor) -> Tensor:
        """Scores of channels, [rows, heads, head_dim]; see ``Storage.first_keys``."""
        scores = seen.mean(1)
        return scores * kept.float().square().mean(2) if self.keys == "kept" else scores.expand(len(kept), -1, -1)

    def first_keys(self, kept: Tensor, border: int, seen: Tensor | None) -> Parts:
        """The channels that stay, and their indices."""
        assert seen is not None
        scores, dim = self.scores(kept, seen), kept.shape[-1]
        order = scores.argsort(dim=-1, descending=True, stable=True)[..., : dim - int(dim * self.ratio)]
        channels = order.sort(-1).values[:, :, None]
        index = torch.uint8 if dim <= 2**8 else torch.int16
        return kept[:, :, :border].gather(-1, channels.expand(-1, -1, border, -1)), channels.to(index)

    def unpack_keys(self, parts: Parts, like: Tensor) -> Tensor:
        """See ``Storage``."""
        keys, channels = parts
        whole = keys.new_zeros(*keys.shape[:-1], like.shape[-1])
        return whole.scatter_(-1, channels.long().expand_as(keys), keys)
