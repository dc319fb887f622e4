"""The colour of a method: the same in every plot, whichever others are in it."""

from __future__ import annotations

import hashlib
from functools import cache

from matplotlib import color_sequences
from matplotlib.typing import ColorType

from harness.config.catalog import ROOT

_PALETTE = color_sequences["petroff10"]  # made for colour-blind readers


def colour_of(label: str) -> ColorType:
    """By the place of the label among the methods of ``conf/method``; of any other label, by its hash, among the colours that are left."""
    names = _names()
    if label in names:
        return _PALETTE[names.index(label) % len(_PALETTE)]
    left = _PALETTE[len(names) :] or _PALETTE
    return left[hashlib.sha256(label.encode()).digest()[0] % len(left)]


@cache
def _names() -> tuple[str, ...]:
    """All methods by name; a list of others, as ``all``, is none."""
    return tuple(sorted(path.stem for path in (ROOT / "conf/method").glob("*.yaml") if "_target_:" in path.read_text("utf-8")))
