"""FullKV: the full cache, which drops nothing and is the yardstick.

Claim: none; equal token for token to the model's own greedy ``generate`` without what its generation config adds.
Differs: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.method import Method


@dataclass(frozen=True)
class FullKV(Method):
    """Keep every entry."""

    @property
    def uses_budget(self) -> bool:
        """False: there is one cell, ``full``."""
        return False

    @property
    def scorer(self) -> None:
        """None: no entry is ever dropped."""
        return None
