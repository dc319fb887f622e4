"""Charts of the report page as coordinates: curves and heatmaps.

The template draws them as inline SVG. No chart library: one for browsers would be most of the page's weight, and an
image by matplotlib cannot follow the reader's colours. What matplotlib decides well is taken from it: ticks, and
colours that colour-blind readers can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from harness.report.colours import MANY, colour_of, marks
from harness.report.format import interval, number, short
from harness.report.stats.curves import Curve, Curves
from harness.report.stats.heatmap import heatmap_of, mean_title, panel_rows
from harness.results import CellResult, TaskResult
from harness.text import plain

WIDTH, HEIGHT = 520, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 14, 12, 44
_APART, _WIDEST = 3, 24
_CHARACTER = 9  # width of a digit on a phone, where texts are largest
SYMBOLS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-4.8L4.6,3.4H-4.6z",
    "M0,-5L5,0L0,5L-5,0z",
    "M0,4.8L4.6,-3.4H-4.6z",
)
"""Marks of the curves, in turn: circle, square, triangle, diamond, triangle on its head."""


@dataclass(frozen=True)
class Point:
    """A score in a chart's units, y downwards; ``low`` and ``high`` are None where there is no interval."""

    x: float
    y: float
    low: float | None
    high: float | None
    says: str


@dataclass(frozen=True)
class Series:
    """One method: points on the axis, and scores that are lines across, whose x means nothing."""

    label: str
    colour: str
    symbol: str
    points: Sequence[Point]
    across: Sequence[Point]


@dataclass(frozen=True)
class Chart:
    """Scores over budgets or retentions; ticks are places and texts.

    With ``many`` curves, intervals are shown only of those that were brought to the front, and those that have points
    have no lines across.
    """

    title: str
    x_title: str
    y_title: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    series: Sequence[Series]
    many: bool

    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
    width, height = WIDTH, HEIGHT


Tile = tuple[float, float, float, float, str, str, int | None]


@dataclass(frozen=True)
class Panel:
    """One cell of a grid of small pictures.

    Attributes:
        label: the method.
        budget: as written.
        says: its mean, or what it kept.
        colour: of the method.
        tiles: x, y, width, height in units of the picture, colour ("" for the method's), what it shows, and the place
            of its first example in the list of examples; None if it is of all.
        x_ticks: its own ticks, where not all pictures have the same; see ``Panels``.
        y_ticks: as ``x_ticks``.
    """

    label: str
    budget: str
    says: str
    colour: str
    tiles: Sequence[Tile]
    x_ticks: Sequence[tuple[float, str]] = ()
    y_ticks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Panels:
    """Small pictures, methods down and budgets across; None is an empty place.

    Ticks are places in percent of the picture, from the left and from the top, and texts.
    """

    DENSE = 12
    """Rows above which pictures are smaller."""

    rows: Sequence[Sequence[Panel | None]]
    width: float
    height: float
    x_title: str
    y_title: str
    x_ticks: Sequence[tuple[float, str]] = ()
    y_ticks: Sequence[tuple[float, str]] = ()


def scale() -> list[str]:
    """Colours of the shares 0 to 1 in steps of a tenth."""
    return [shade(step / 10) for step in range(11)]


def chart(drawn: Curves, title: str) -> Chart | None:
    """The chart of some curves on a logarithmic axis; None where no score has a place on it.

    Scores begin at 0.


    Args:
        drawn: the curves.
        title: what the scores are.
    """
    lines = drawn.lines
    known = [
        (line, x, score, low, high)
        for line in lines
        for x, score, low, high in zip(line.across, line.scores, line.low, line.high, strict=True)
        if math.isfinite(score) and (x is None or math.isfinite(x))
    ]
    if all(x is None for _, x, *_ in known):
        return None
    ends = [v for _, _, *values in known for v in values if math.isfinite(v)]
    y_values = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(min(0, *ends), max(1, *ends))
    bottom, top = float(y_values[0]), float(y_values[-1])
    x_values = sorted({x for _, x, *_ in known if x is not None})
    low_x, high_x = x_values[0] / 1.15, x_values[-1] * 1.15

    def x_of(value: float) -> float:
        share = math.log(value / low_x) / math.log(high_x / low_x)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y_of(value: float) -> float:
        return round(HEIGHT - _BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - _BOTTOM - _TOP), 1)

    def point(line: Curve, aside: float, x: float | None, score: float, low: float, high: float) -> Point:
        known = math.isfinite(low)
        where = "" if x is None else f" at {short(x)}"
        says = f"{plain(line.label)}{where}: {number(score, 2)}" + (f" ({interval(low, high)})" if known else "")
        return Point(
            0.0 if x is None else round(x_of(x) + aside, 1),
            y_of(score),
            y_of(low) if known else None,
            y_of(high) if known else None,
            says,
        )

    many = len(lines) > MANY
    series = []
    for place, (line, mark) in enumerate(zip(lines, marks([line.label for line in lines]), strict=True)):
        # A little aside, so that intervals at one budget stay apart.
        aside = min(_APART, _WIDEST / len(lines)) * (place - (len(lines) - 1) / 2)
        mine = [(x, point(line, aside, x, *rest)) for other, x, *rest in known if other is line]
        on_axis = sorted((p for x, p in mine if x is not None), key=lambda p: p.x)
        across = [] if many and on_axis else [p for x, p in mine if x is None]
        series.append(Series(plain(line.label), colour_of(line.label), SYMBOLS[mark], on_axis, across))
    x_ticks = _clear([(x_of(x), short(x)) for x in drawn.ticks])
    y_ticks = [(y_of(y), f"{y:g}") for y in y_values]
    return Chart(f"{title} by {drawn.by}", drawn.across, f"{title} (0-100)", x_ticks, y_ticks, series, many)


def heatmaps(result: TaskResult, places: Mapping[tuple[Any, Any], int]) -> Panels | None:
    """The heatmaps of all cells, on the fixed scale 0-1; None where there is nothing to show.

    Args:
        result: the task.
        places: by the values of its axes, the place of their first example in the list of examples; empty if the page
            has none.
    """
    shown = heatmap_of(result)
    if shown is None:
        return None
    metric = result.metrics[0]

    def panel(cell: CellResult) -> Panel:
        tiles: list[Tile] = []
        for (y, row), (x, column) in product(enumerate(shown.rows), enumerate(shown.columns)):
            value = float(shown.shares[cell.cell][y, x])
            if math.isfinite(value):
                says = f"{shown.across} {column}, {shown.down} {row}: {number(value, 3)}"
                tiles.append((x, y, 1, 1, shade(value), says, places.get((column, row))))
        return Panel(
            plain(cell.cell.label), cell.cell.budget, mean_title(cell, metric), colour_of(cell.cell.label), tiles
        )

    panels = [[None if cell is None else panel(cell) for cell in row] for row in panel_rows(result.cells)]
    x_ticks, y_ticks = ticks(shown.columns, 3), ticks(shown.rows, 5)
    return Panels(panels, len(shown.columns), len(shown.rows), shown.across, shown.down, x_ticks, y_ticks)


def _clear(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Ticks from left to right without those whose text would touch the one before."""
    clear: list[tuple[float, str]] = []
    for x, text in ticks:
        if not clear or x - clear[-1][0] >= _CHARACTER * (len(text) + len(clear[-1][1])) / 2 + _CHARACTER:
            clear.append((x, text))
    return clear


def ticks(values: Sequence[float | int | str], most: int) -> list[tuple[float, str]]:
    """Where the values stand, evenly thinned to ``most`` and with both ends."""
    last = len(values) - 1
    chosen = sorted({round(last * step / max(1, min(last, most - 1))) for step in range(min(last, most - 1) + 1)})
    return [(round(100 * (place + 0.5) / len(values), 2), plain(str(values[place]))) for place in chosen]


def shade(share: float) -> str:
    """The colour of a share, 0-1, as ``#rrggbb``."""
    return to_hex(colormaps["viridis"](share))
