"""The colour of a method, the same in every plot, whichever others are in it; and marks for methods of one colour."""

from __future__ import annotations

import colorsys
import hashlib
import re
from collections.abc import Sequence
from functools import cache

from harness.config.catalog import ROOT

_PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
"""matplotlib's ``petroff10``, made for colour-blind readers."""


MARKS = 5
"""Marks of points that a plot has."""
MANY = 8
"""Methods in a plot above which intervals hide more than they show."""


def marks(labels: Sequence[str]) -> list[int]:
    """The mark of each method, 0 to ``MARKS`` - 1: in turn, but up to ``MARKS`` methods of one colour all differ.

    Args:
        labels: the methods of a plot, in their order.
    """
    given: list[tuple[str, int]] = []
    for place, label in enumerate(labels):
        colour = colour_of(label)
        taken = [mark for other, mark in given if other == colour]
        given.append((colour, min(((place + step) % MARKS for step in range(MARKS)), key=taken.count)))
    return [mark for _, mark in given]


def colour_of(label: str) -> str:
    """The colour of a method, as ``#rrggbb``.

    Each of the published methods has one of its own; the other methods of ``conf/method`` share the colours that are
    left, in turn. A label of one of them with other values of its knobs or a storage, as ``snapkv_w32`` or
    ``snapkv+kivi2``, has a shade of its colour; any other label one of the colours that are left. Which shade and
    which colour, the label's hash says.
    """
    published, others = _names()
    left = _PALETTE[len(published) :]
    if label in published:
        return _PALETTE[published.index(label)]
    if label in others:
        return left[others.index(label) % len(left)]
    drawn = hashlib.sha256(label.encode()).digest()
    if family := max(
        (name for name in (*published, *others) if label.startswith((f"{name}_", f"{name}+"))), key=len, default=None
    ):
        return _shade(colour_of(family), drawn[0] / 255, drawn[1] / 255)
    return left[drawn[0] % len(left)]


def _shade(colour: str, turn: float, light: float) -> str:
    """A colour near another one.

    Args:
        colour: the other one, as ``#rrggbb``.
        turn: 0-1, the hue, from an eighth of the circle before the other's to an eighth after it.
        light: 0-1, the lightness, from dark to light, both readable on white and on black.
    """
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    hue, _, saturation = colorsys.rgb_to_hls(red, green, blue)
    shade = colorsys.hls_to_rgb((hue + (turn - 0.5) / 4) % 1, 0.3 + 0.4 * light, max(saturation, 0.5))
    return "#" + "".join(f"{round(255 * part):02x}" for part in shade)


@cache
def _names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The published methods, and all others, by name; a list of methods, as ``all``, is none."""
    folder = ROOT / "conf/method"
    names = sorted(path.stem for path in folder.glob("*.yaml") if "_target_:" in path.read_text("utf-8"))
    published = re.findall(r"^  - (\w+)$", (folder / "published.yaml").read_text("utf-8"), re.MULTILINE)
    return tuple(sorted(published)), tuple(name for name in names if name not in published)
