"""FullKV: nothing is dropped. The yardstick.

Claim: none; equal to the model's own ``generate``, token for token.
Differs: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.compression.method import Ranking


@dataclass(frozen=True)
class FullKV:
    """See the module."""

    label: str

    @property
    def uses_budget(self) -> bool:
        return False

    @property
    def ranking(self) -> Ranking | None:
        return None

    def keep(self, budget: int, prompt_tokens: int, layers: int) -> Sequence[int]:
        return [prompt_tokens] * layers
