"""Pictures of what cells kept: entries by layer, or by layer and head where heads keep different numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.colours import colour_of
from harness.report.format import DASH
from harness.report.page.charts import Panel, Panels, Tile, shade, ticks
from harness.report.stats.heatmap import panel_rows
from harness.results import CellResult, TaskResult, by_head
from harness.text import plain

MOST_TILES = 40_000
"""Tiles of layers and heads in one view, about 5 MB; the pictures that go beyond have one bar for each layer."""


@dataclass(frozen=True)
class Layer:
    """What one layer kept.

    Attributes:
        heads: entries of each head, on average over results; one number if all heads keep equally many.
        least: the fewest entries of a head in a result.
        most: the most.
    """

    heads: Sequence[float]
    least: int
    most: int

    @property
    def mean(self) -> float:
        """Entries on average over heads."""
        return sum(self.heads) / len(self.heads)


def kept_by_layer(result: TaskResult) -> Panels | None:
    """Entries that each layer keeps, the mean over results, with the first layer at the foot.

    Layers are bars; where heads keep different numbers, a tile for each layer and head. Bars of one budget share their
    scale, and so do tiles. None where nobody knows what was kept.
    """
    kept = {cell.cell: _layers(cell) for cell in result.cells}
    count = max(map(len, kept.values()), default=0)
    if not count:
        return None
    widest, lightest = dict[str, float](), dict[str, float]()
    for cell, layers in kept.items():
        widest[cell.budget] = max([widest.get(cell.budget, 0.0), *(layer.mean for layer in layers)])
        lightest[cell.budget] = max([lightest.get(cell.budget, 0.0), *(max(layer.heads) for layer in layers)])
    room = MOST_TILES

    def panel(cell: CellResult) -> Panel:
        nonlocal room
        layers, budget = kept[cell.cell], cell.cell.budget
        heads = max((len(layer.heads) for layer in layers), default=1)
        says = f"{layers[0].mean:.0f} … {layers[-1].mean:.0f}" if layers else DASH
        tiles, x_ticks, y_ticks = _bars(layers, widest[budget], count), [], []
        if heads > 1:
            says += f"; heads {min(layer.least for layer in layers)} to {max(layer.most for layer in layers)}"
        if heads > 1 and heads * count <= room:
            room -= heads * count
            tiles, x_ticks = _tiles(layers, lightest[budget], heads, count), ticks(range(heads), 5)
            y_ticks = ticks(range(count - 1, -1, -1), 3)
        return Panel(plain(cell.cell.label), budget, says, colour_of(cell.cell.label), tiles, x_ticks, y_ticks)

    panels = [[None if cell is None else panel(cell) for cell in row] for row in panel_rows(result.cells)]
    return Panels(panels, 100, count, "entries kept", "layer")


def held_by_step(result: TaskResult) -> Panels | None:
    """Entries per head that cells held while decoding, step by step, of methods that evict then; None without one.

    A cell's picture is of its longest answer. Pictures of one budget share their scale.
    """
    longest = {}
    for cell in result.cells:
        known = [record.evicted for record in cell.done if record.evicted is not None]
        if known:
            longest[cell.cell] = max(known, key=lambda one: one.steps[-1])
    if not longest:
        return None
    most = dict[str, float]()
    for one, held in longest.items():
        most[one.budget] = max(most.get(one.budget, 0.0), held.peak)
    cells = [cell for cell in result.cells if cell.cell in longest]

    def panel(cell: CellResult) -> Panel:
        held, label = longest[cell.cell], cell.cell.label
        width, tiles = 100 / len(held.steps), list[Tile]()
        for place, (step, entries) in enumerate(zip(held.steps, held.entries, strict=True)):
            height = round(100 * entries / most[cell.cell.budget], 2)
            says = f"{f'step {step}' if step else 'after the prompt'}: {entries:.1f} entries"
            tiles.append((round(place * width, 2), round(100 - height, 2), round(width, 2), height, "", says, None))
        says = f"after an eviction {held.target:.0f}, at most {held.peak:.0f}, mean {held.mean:.1f}"
        across = [(0.0, "0"), (100.0, str(held.steps[-1]))]
        down = [(0.0, f"{most[cell.cell.budget]:.0f}"), (100.0, "0")]
        return Panel(plain(label), cell.cell.budget, says, colour_of(label), tiles, across, down)

    panels = [[None if cell is None else panel(cell) for cell in row] for row in panel_rows(cells)]
    return Panels(panels, 100, 100, "step", "entries")


def _bars(layers: Sequence[Layer], widest: float, count: int) -> list[Tile]:
    """One bar for each layer, as wide as what it keeps on average."""
    tiles: list[Tile] = []
    for place, layer in enumerate(layers):
        width = round(100 * layer.mean / widest, 2)
        says = f"layer {place}: {layer.mean:.0f} entries{_spread(layer)}"
        tiles.append((round(50 - width / 2, 2), count - 1 - place, width, 0.86, "", says, None))
    return tiles


def _tiles(layers: Sequence[Layer], lightest: float, heads: int, count: int) -> list[Tile]:
    """One tile for each layer and head, as light as what it keeps; a layer whose heads are equal has one."""
    tiles: list[Tile] = []
    for place, layer in enumerate(layers):
        width = 100 / len(layer.heads)
        for head, entries in enumerate(layer.heads):
            where = f"layer {place}, head {head}" if len(layer.heads) > 1 else f"layer {place}, every head"
            says = f"{where}: {entries:.0f} entries; the layer {layer.mean:.0f}{_spread(layer)}"
            x, y = round(head * width, 2), count - 1 - place
            tiles.append((x, y, round(width, 2), 1, shade(entries / lightest), says, None))
    return tiles


def _spread(layer: Layer) -> str:
    return "" if layer.least == layer.most else f" ({layer.least} to {layer.most})"


def _layers(cell: CellResult) -> list[Layer]:
    """What each layer kept, over results."""
    kept = Counter(record.kept for record in cell.done if record.kept)  # most records of a cell kept the same
    records = sum(kept.values())
    found = []
    for layer in zip(*kept, strict=True):
        counts = [by_head(one) for one in layer]
        heads = max(map(len, counts))
        sums = [0] * heads
        for one, times in zip(counts, kept.values(), strict=True):
            for head, entries in enumerate(one * heads if len(one) == 1 else one):
                sums[head] += entries * times
        found.append(Layer([total / records for total in sums], min(map(min, counts)), max(map(max, counts))))
    return found
