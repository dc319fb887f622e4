"""Charts of the report page as coordinates: curves, heatmaps, kept entries by layer. The template draws them as inline SVG.

No chart library: one for browsers would be most of the page's weight, and an image by matplotlib cannot follow the reader's colours. What
matplotlib decides well is taken from it: ticks, and colours that colour-blind readers can tell apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from harness.report.colours import colour_of
from harness.report.plots import Curve, apart, axis_title, mean_title, ordered, panel_rows, pivot
from harness.report.task_tables import interval, number
from harness.results import CellResult, TaskResult
from harness.text import plain

WIDTH, HEIGHT = 520, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 14, 12, 44
_APART = 3
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
    """A score in a chart, in the chart's units, y downwards; ``low`` and ``high`` are None where there is no interval."""

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
    """Scores over budgets or retentions; ticks are places and texts."""

    title: str
    x_title: str
    y_title: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    series: Sequence[Series]

    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
    width, height = WIDTH, HEIGHT


@dataclass(frozen=True)
class Panel:
    """One cell of a grid of small pictures.

    Attributes:
        label: the method.
        budget: as written.
        says: its mean, or what it kept.
        colour: of the method.
        tiles: x, y, width, height in units of the picture, colour ("" for the method's), and what it shows.
    """

    label: str
    budget: str
    says: str
    colour: str
    tiles: Sequence[tuple[float, float, float, float, str, str]]


@dataclass(frozen=True)
class Panels:
    """Small pictures, methods down and budgets across; None is an empty place."""

    rows: Sequence[Sequence[Panel | None]]
    width: float
    height: float
    x_title: str
    y_title: str
    x_ends: tuple[str, str]
    y_ends: tuple[str, str]


def scale() -> list[str]:
    """Colours of the shares 0 to 1 in steps of a tenth."""
    return [_shade(step / 10) for step in range(11)]


def chart(lines: Sequence[Curve], title: str, x_title: str, y_title: str) -> Chart | None:
    """The chart of some curves on a logarithmic axis; None where there is no score to draw.

    Args:
        lines: one per method.
        title: of the chart.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
    """
    known = [
        (line, x, score, low, high)
        for line in lines
        for x, score, low, high in zip(line.across, line.scores, line.low, line.high, strict=True)
        if math.isfinite(score) and (x is None or math.isfinite(x))
    ]
    if not known:
        return None
    ends = [v for _, _, *values in known for v in values if math.isfinite(v)]
    y_values = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(min(ends), max(max(ends), min(ends) + 1))
    bottom, top = float(y_values[0]), float(y_values[-1])
    x_values = sorted({x for _, x, *_ in known if x is not None})
    low_x, high_x = (x_values[0] / 1.15, x_values[-1] * 1.15) if x_values else (1.0, 2.0)

    def x_of(value: float) -> float:
        share = math.log(value / low_x) / math.log(high_x / low_x)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y_of(value: float) -> float:
        return round(HEIGHT - _BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - _BOTTOM - _TOP), 1)

    def point(line: Curve, aside: float, x: float | None, score: float, low: float, high: float) -> Point:
        known = math.isfinite(low)
        where = "" if x is None else f" at {_short(x)}"
        says = f"{plain(line.label)}{where}: {number(score, 2)}" + (f" ({interval(low, high)})" if known else "")
        return Point(
            0.0 if x is None else round(x_of(x) + aside, 1), y_of(score), y_of(low) if known else None, y_of(high) if known else None, says
        )

    series = []
    for place, line in enumerate(lines):
        # A little aside, so that intervals at one budget stay apart.
        aside = _APART * (place - (len(lines) - 1) / 2)
        mine = [(x, point(line, aside, x, *rest)) for other, x, *rest in known if other is line]
        on_axis = sorted((p for x, p in mine if x is not None), key=lambda p: p.x)
        symbol = SYMBOLS[place % len(SYMBOLS)]
        series.append(Series(plain(line.label), to_hex(colour_of(line.label)), symbol, on_axis, [p for x, p in mine if x is None]))
    x_ticks = [(x_of(x), _short(x)) for x in apart(x_values)]
    return Chart(title, x_title, y_title, x_ticks, [(y_of(y), f"{y:g}") for y in y_values], series)


def heatmaps(result: TaskResult) -> Panels | None:
    """The headline as a share of its maximum over the task's two axes, on the fixed scale 0-1; None where there is nothing to show."""
    groups = [r.group for cell in result.cells for r in cell.records]
    if not (result.metrics and result.heatmap_axes and groups):
        return None
    metric, axes = result.metrics[0], result.heatmap_axes
    columns, rows = (ordered({group[axis] for group in groups}) for axis in axes)

    def panel(cell: CellResult) -> Panel:
        shares = pivot(cell, metric, axes).reindex(index=rows, columns=columns).to_numpy(dtype=float)
        names = [axis_title(axis) for axis in axes]
        tiles = []
        for (y, row), (x, column) in product(enumerate(rows), enumerate(columns)):
            value = shares[y, x]
            if math.isfinite(value):
                tiles.append((x, y, 1, 1, _shade(value), f"{names[0]} {column}, {names[1]} {row}: {number(value, 3)}"))
        return Panel(plain(cell.cell.label), cell.cell.budget, mean_title(cell, metric), to_hex(colour_of(cell.cell.label)), tiles)

    panels = [[None if cell is None else panel(cell) for cell in row] for row in panel_rows(result.cells)]
    x_ends, y_ends = ((plain(str(values[0])), plain(str(values[-1]))) for values in (columns, rows))
    return Panels(panels, len(columns), len(rows), axis_title(axes[0]), axis_title(axes[1]), x_ends, y_ends)


def kept_by_layer(result: TaskResult) -> Panels | None:
    """Entries that each layer keeps, the mean over results, as a figure that is as wide as the layer keeps: the first layer at its foot.

    Figures of one budget share their scale. None where nobody knows what was kept.
    """
    means = {cell.cell: _layers(cell) for cell in result.cells}
    most: Mapping[str, float] = {
        budget: max(entries for cell, of in means.items() if cell.budget == budget for entries, *_ in of)
        for budget in {cell.budget for cell, of in means.items() if of}
    }
    if not most:
        return None
    layers = max(len(of) for of in means.values())

    def panel(cell: CellResult) -> Panel:
        of = means[cell.cell]
        tiles = []
        for layer, (mean, least, largest) in enumerate(of):
            width = round(100 * mean / most[cell.cell.budget], 2)
            spread = "" if least == largest else f" ({least} to {largest})"
            tiles.append((round(50 - width / 2, 2), layers - 1 - layer, width, 0.86, "", f"layer {layer}: {mean:.0f} entries{spread}"))
        says = f"{of[0][0]:.0f} … {of[-1][0]:.0f}" if of else "–"
        return Panel(plain(cell.cell.label), cell.cell.budget, says, to_hex(colour_of(cell.cell.label)), tiles)

    panels = [[None if cell is None else panel(cell) for cell in row] for row in panel_rows(result.cells)]
    return Panels(panels, 100, layers, "entries kept", "layer", ("", ""), (str(layers - 1), "0"))


def _layers(cell: CellResult) -> list[tuple[float, int, int]]:
    """Per layer, the mean, the least and the most entries over results."""
    kept = Counter(tuple(record.kept) for record in cell.done if record.kept)  # most records of a cell kept the same
    records = sum(kept.values())
    return [
        (sum(entries * times for entries, times in zip(layer, kept.values(), strict=True)) / records, min(layer), max(layer))
        for layer in zip(*kept, strict=True)
    ]


def _shade(share: float) -> str:
    return to_hex(colormaps["viridis"](share))


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
