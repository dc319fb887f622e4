"""FullKV: the full cache, which drops nothing and is the yardstick.

Claim: none; equal token for token to the model's own greedy ``generate`` without what its generation config adds.
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.compression.method import Ranking


@dataclass(frozen=True)
class FullKV:
    """Keep every entry.

    Attributes:
        label: shown in tables.
    """

    label: str

    @property
    def uses_budget(self) -> bool:
        """False: there is one cell, ``full``."""
        return False

    @property
    def ranking(self) -> Ranking | None:
        """None: no entry is ever dropped."""
        return None

    def keep(self, budget: int, prompt_tokens: int, layers: int) -> Sequence[int]:
        """The whole prompt in every layer."""
        return [prompt_tokens] * layers
