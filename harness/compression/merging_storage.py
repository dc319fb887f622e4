"""Storage of what was dropped in what was kept: each dropped entry is merged into the kept one with the nearest key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from harness.compression.storage import Entries, Storage

_LEAST_WEIGHT = 1e-6


@dataclass(frozen=True)
class Merged(Storage):
    """Kept keys and values with a share of the dropped ones, in the model's dtype, so that no byte is added or saved.

    Every head of the cache merges for itself. The nearest key is that of the largest cosine, of equal ones the first.
    Entries that come while decoding stay as they are.

    Attributes:
        how: ``pivot``: the mean of the kept entry and, for each dropped one, the mean of it and the kept one;
            ``weighted``: the mean in which the kept entry weighs 1 and a dropped one (cosine + 1) / 2.
    """

    how: Literal["pivot", "weighted"]
    merges: ClassVar[bool] = True

    @property
    def packs(self) -> bool:
        """Merged entries have the form of others."""
        return False

    def merged(self, kept: Entries, dropped: Entries) -> Entries:
        """See ``Storage``."""
        keys, others = (states.to(torch.promote_types(states.dtype, torch.float32)) for states in (kept[0], dropped[0]))
        cosines = torch.nn.functional.normalize(others, dim=-1) @ torch.nn.functional.normalize(keys, dim=-1).T
        nearest, place = cosines.max(-1)
        weights = torch.full_like(nearest, 0.5) if self.how == "pivot" else ((nearest + 1) / 2).clamp(min=_LEAST_WEIGHT)

        def mean(mine: Tensor, theirs: Tensor) -> Tensor:
            own, added = mine.to(keys.dtype), theirs.to(keys.dtype) * weights[:, None]
            if self.how == "pivot":
                added = added + own[place] / 2
                weight = torch.ones_like(weights)
            else:
                weight = weights
            total = torch.ones(len(own), dtype=keys.dtype, device=keys.device).index_add(0, place, weight)
            return (own.index_add(0, place, added) / total[:, None]).to(mine.dtype)

        return mean(kept[0], dropped[0]), mean(kept[1], dropped[1])
