"""The colour of a method: the same in every plot, whichever others are in it."""

from __future__ import annotations

import hashlib
from functools import cache

from harness.config.catalog import ROOT

_PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""matplotlib's ``petroff10``, made for colour-blind readers."""


def colour_of(label: str) -> str:
    """The colour of a method, as ``#rrggbb``.

    By the place of the label among the methods of ``conf/method``; of any other label, by its hash, among the colours
    that are left.
    """
    names = _names()
    if label in names:
        return _PALETTE[names.index(label) % len(_PALETTE)]
    left = _PALETTE[len(names) :] or _PALETTE
    return left[hashlib.sha256(label.encode()).digest()[0] % len(left)]


@cache
def _names() -> tuple[str, ...]:
    """All methods by name; a list of others, as ``all``, is none."""
    return tuple(
        sorted(path.stem for path in (ROOT / "conf/method").glob("*.yaml") if "_target_:" in path.read_text("utf-8"))
    )
