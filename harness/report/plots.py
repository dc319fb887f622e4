"""Plots of a task's cells: a heatmap per cell, and scores by budget. Figures are objects; no pyplot, no global state.

Published needle heatmaps run from red over yellow to green. Here the map is viridis: it stays readable for colour-blind
readers, and in grey.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from harness.compression.budget import FULL, parse_budget
from harness.report.colours import MANY, colour_of, marks
from harness.report.format import number, short
from harness.report.stats.curves import Curves, score_curves
from harness.report.stats.heatmap import Heatmap, heatmap_of, mean_title, panel_rows
from harness.report.stats.means import MISSING
from harness.report.stats.summary import full_cache
from harness.report.stats.table import table
from harness.results import CellResult, TaskResult
from harness.text import plain

DPI = 150
_CHARACTER_INCHES = 0.075  # of the 8 point font that titles are set in, wide letters included
_MARKERS = "os^Dv"
_TEXT: dict[str, Any] = {"parse_math": False, "fontsize": 8}  # a $ in a label is a $


def heatmap_figure(result: TaskResult) -> Figure:
    """One panel per cell: the headline as a share of its maximum over the task's two axes.

    The scale is always 0-1.     Methods are rows and budgets columns, as in ``panel_rows``. Positions without a result
    are grey and hatched. Panel titles give the mean over results.

    Args:
        result: has ``metrics``, ``heatmap_axes`` and at least one record.
    """
    shown = heatmap_of(result)
    assert shown is not None
    metric, layout = result.metrics[0], panel_rows(result.cells)
    width, height = min(max(0.3 * len(shown.columns), 2.4), 4.5), min(max(0.26 * len(shown.rows), 1.6), 3.2)
    wide = len(layout[0])
    figure = Figure(figsize=(width * wide + 1.6, (height + 0.6) * len(layout) + 0.8), dpi=DPI, layout="constrained")
    grid = figure.subplots(len(layout), wide, squeeze=False)
    image = None
    for axes, cell in zip(grid.flat, (cell for row in layout for cell in row), strict=True):
        if cell is None:
            axes.set_axis_off()
            continue
        image = _panel(axes, shown, shown.shares[cell.cell], (width, height))
        axes.set_title(_fold(f"{cell.cell.label} {cell.cell.budget}", width) + f"\n{mean_title(cell, metric)}", **_TEXT)
    assert image is not None
    bar = figure.colorbar(image, ax=grid.ravel().tolist(), aspect=30, fraction=0.05, pad=0.02)
    bar.set_label(_fold(f"{metric.title} (share of the maximum)", figure.get_figheight()), **_TEXT)
    bar.ax.tick_params(labelsize=7)
    _title(figure, result)
    figure.supxlabel(shown.across, **_TEXT)
    figure.supylabel(shown.down, **_TEXT)
    return figure


def heatmap(result: TaskResult, path: Path) -> None:
    """Write ``heatmap_figure`` as a PNG."""
    _save(heatmap_figure(result), path)


def summary(result: TaskResult, path: Path) -> None:
    """The headline of every cell by budget (0-100), with its interval.

    Where a cell kept everything, a second panel has percentages of that cell's headline, as needle results are often
    published. They go over the examples that both cells have.

    Args:
        result: has ``metrics``.
        path: the PNG to write.
    """
    assert result.metrics
    metric, full, raw = result.metrics[0], full_cache(result.cells), table(result)
    # By budget, the full cache at the top, as what the others are held against.
    size = {budget: (budget != FULL.text, parse_budget(budget).rank) for budget in raw["budget"]}
    order = sorted(range(len(result.cells)), key=lambda place: size[raw["budget"][place]])
    cells, raw = [result.cells[place] for place in order], raw.iloc[order]
    relative_drawn = full is not None and bool(raw["percent_of_full"].notna().any())
    figure = Figure(
        figsize=(10 if relative_drawn else 6.5, 0.24 * (len(cells) + 0.6 * len(size)) + 1.6),
        dpi=DPI,
        layout="constrained",
    )
    panels = figure.subplots(1, 2 if relative_drawn else 1, sharey=True, squeeze=False)[0]
    _bars(panels[0], cells, raw["score"], (raw["score_low"], raw["score_high"]))
    panels[0].set_xlabel(_fold(f"{metric.title} (0-100)", 4), **_TEXT)
    if relative_drawn and full:
        _bars(panels[1], cells, raw["percent_of_full"])
        panels[1].axvline(100, color="0.3", linewidth=0.8, linestyle="--", zorder=0)
        panels[1].set_xlabel(_fold(f"% of {full.cell.name}, over the examples that both have", 4), **_TEXT)
    else:
        why = "the full cache scores 0" if full else "no cell of this grid kept the full cache"
        panels[0].set_title(f"No scores relative to the full cache: {why}.", **_TEXT)
    _title(figure, result)
    _save(figure, path)


def by_bytes(result: TaskResult, path: Path) -> None:
    """The headline over the bytes that were kept of a prompt, one line for each method in each storage.

    Args:
        result: has ``metrics``, and a cell whose entries a storage packed.
        path: the PNG to write.
    """
    title = " ".join([f"{result.title}.", *([result.note] if result.note else [])])
    (drawn,) = (one for one in score_curves(table(result)) if one.by == "bytes")
    curves(drawn, title, f"{result.metrics[0].title} (0-100)", path)


def curves(drawn: Curves, title: str, down: str, path: Path) -> None:
    """Scores with intervals over budgets, retentions or bytes, on a logarithmic axis.

    Of more than ``MANY`` curves there are no intervals, and of those that have points no lines across.

    Args:
        drawn: the curves.
        title: of the plot.
        down: title of the vertical axis.
        path: the PNG to write.
    """
    many = len(drawn.lines) > MANY
    figure = Figure(figsize=(7.5, max(4.5, 0.17 * len(drawn.lines) + 0.6)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for line, mark in zip(drawn.lines, marks([line.label for line in drawn.lines]), strict=True):
        colour = colour_of(line.label)
        points = [p for p in zip(line.across, line.scores, line.low, line.high, strict=True) if math.isfinite(p[1])]
        on_axis = sorted((x, y, low, high) for x, y, low, high in points if x is not None and math.isfinite(x))
        if on_axis:
            xs, ys, lows, highs = map(np.array, zip(*on_axis, strict=True))
            # Of equal scores, sums that are rounded differently can put a mean a hair outside its interval.
            axes.errorbar(
                xs,
                ys,
                None if many else np.maximum([ys - lows, highs - ys], 0),
                color=colour,
                marker=_MARKERS[mark],
                markersize=4,
                capsize=3,
                linewidth=1.2,
                label=plain(line.label),
            )
        for x, y, low, high in points:
            if x is None and not (many and on_axis):
                if math.isfinite(low) and not many:
                    axes.axhspan(low, high, color=colour, alpha=0.12, linewidth=0)
                axes.axhline(y, color=colour, linestyle="--", linewidth=1.2, label=plain(line.label))
    axes.set_xscale("log", base=2)
    axes.set_xticks(drawn.ticks, [short(x) for x in drawn.ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(plain(drawn.across), **_TEXT)
    axes.set_ylabel(_fold(down, 4), **_TEXT)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.suptitle(_fold(title, 7.5), parse_math=False, fontsize=10)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    # Without Software the file does not depend on the version of matplotlib; other metadata is not written.
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _title(figure: Figure, result: TaskResult) -> None:
    lines = [result.title, *([result.note] if result.note else [])]
    figure.suptitle("\n".join(_fold(line, figure.get_figwidth()) for line in lines), parse_math=False, fontsize=10)


def _fold(text: str, inches: float) -> str:
    return "\n".join(textwrap.wrap(plain(text), max(8, int(inches / _CHARACTER_INCHES))))


def _panel(axes: Axes, shown: Heatmap, shares: NDArray[np.float64], inches: tuple[float, float]) -> AxesImage:
    # The image leaves missing positions open, so that this shows through; hatching tells it from every colour of the
    # map.
    axes.add_patch(
        Rectangle(
            (0, 0),
            1,
            1,
            transform=axes.transAxes,
            facecolor="0.85",
            edgecolor="0.55",
            hatch="////",
            linewidth=0,
            zorder=-1,
        )
    )
    image = axes.imshow(
        np.ma.masked_invalid(shares), cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
    )
    columns, rows = (
        _ticks(values, room)
        for values, room in zip((shown.columns, shown.rows), (inches[0] / 0.3, inches[1] / 0.17), strict=True)
    )
    axes.set_xticks(
        list(columns),
        list(columns.values()),
        rotation=45,
        ha="right",
        rotation_mode="anchor",
        fontsize=7,
        parse_math=False,
    )
    axes.set_yticks(list(rows), list(rows.values()), fontsize=7, parse_math=False)
    return image


def _ticks(values: Sequence[float | int | str], room: float) -> dict[int, str]:
    """Positions and labels, thinned evenly to those that fit into ``room``."""
    step = math.ceil(len(values) / max(1, int(room)))
    return {i: f"{v:g}" if isinstance(v, float) else plain(str(v)) for i, v in enumerate(values) if i % step == 0}


def _bars(
    axes: Axes,
    cells: Sequence[CellResult],
    values: Iterable[float],
    interval: tuple[Iterable[float], Iterable[float]] | None = None,
) -> None:
    """One bar per cell from the top, a gap between budgets, the number behind it; partial cells are pale and say so."""
    values = list(values)
    lows, highs = map(list, interval) if interval else ([MISSING] * len(values),) * 2
    budgets = list(dict.fromkeys(cell.cell.budget for cell in cells))
    places = [i + 0.6 * budgets.index(cell.cell.budget) for i, cell in enumerate(cells)]
    for place, cell, value, low, high in zip(places, cells, values, lows, highs, strict=True):
        whole, known = len(cell.done) == cell.expected, math.isfinite(value)
        axes.barh(place, value if known else 0, height=0.8, color=colour_of(cell.cell.label), alpha=1 if whole else 0.5)
        if math.isfinite(low):
            axes.errorbar(
                value,
                place,
                xerr=np.maximum([[value - low], [high - value]], 0),
                color="0.25",
                linewidth=0.9,
                capsize=2,
            )
        text = number(value, 1) + ("" if whole else f" ({len(cell.done)} of {cell.expected})")
        axes.annotate(
            text,
            (np.nanmax([value, high, 0]), place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.set_yticks(
        places, [_fold(f"{cell.cell.label} {cell.cell.budget}", 2.5) for cell in cells], fontsize=7, parse_math=False
    )
    axes.set_ylim(max(places) + 0.7, -0.7)
    most = max([100, *filter(math.isfinite, (*values, *highs))])
    axes.set_xlim(0, 1.25 * most)  # with room for the numbers behind the bars, which the axis does not count
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= most])
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
