"""The picture of docs/wandb.md: the panels of an offline W&B run, drawn from what it has logged.

python run.py method=published budget=[128,256,512] engine.width=26 tracker=wandb tracker.mode=offline results_dir=R
python docs/panels.py R
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.report.colours import colour_of  # noqa: E402

STYLES = {"128": ":", "256": "--", "512": "-", "full": "-"}
COLUMNS = {
    "method": "method",
    "budget": "budget",
    "score": "score",
    "score_low": "low",
    "score_high": "high",
    "difference": "difference",
    "kept_mean": "kept",
    "retention": "entries",
    "retention_bytes": "bytes",
    "n": "n",
    "errors": "errors",
}


def history(run: Path) -> list[dict[str, Any]]:
    """The numbers shown while the run went on, one mapping per written batch."""
    reader = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(run)]
    done = subprocess.run(reader, capture_output=True, text=True, check=True)
    steps = [line["history"]["item"] for line in map(json.loads, done.stdout.splitlines()) if line["type"] == "history"]
    return [step for step in steps if "progress/prompts" in step]


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    """A table that the run has logged."""
    (path,) = run.parent.glob(f"files/media/table/{name}_[0-9]*.table.json")
    table = json.loads(path.read_text("utf-8"))
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def lines(axes: Axes, steps: list[dict[str, Any]], names: list[str], title: str) -> None:
    """A panel with some of the numbers over the prompts that are written."""
    for name in names:
        label = name.partition("/")[2]
        method, _, budget = label.rpartition("-")
        look = {"color": colour_of(method), "linestyle": STYLES[budget]} if name.startswith("running/") else {}
        shown = [(step["progress/prompts"], step[name]) for step in steps if name in step]
        mark = "." if len(shown) == 1 else None  # one batch of prompts is no line
        axes.plot(*zip(*shown, strict=True), label=label, linewidth=1.3, marker=mark, **look)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("progress/prompts", fontsize=7)
    axes.set_ylim(bottom=0)
    if len(names) > 5:
        axes.legend(fontsize=6, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axes.legend(fontsize=6, frameon=False)


def curves(axes: Axes, run: Path, by: str, across: str) -> None:
    """A panel with one line a method."""
    points = rows(run, f"score_{by}_table")
    for method in dict.fromkeys(point["lineKey"] for point in points):
        own = [(point["step"], point["lineVal"]) for point in points if point["lineKey"] == method]
        axes.plot(
            *zip(*own, strict=True), color=colour_of(method), marker="o", markersize=3, linewidth=1.3, label=method
        )
    axes.set_title(f"score_{by}", fontsize=9)
    axes.set_xlabel(across, fontsize=7)
    axes.set_ylim(0, 102)
    axes.legend(fontsize=6, frameon=False)


def text(value: Any) -> str:
    """A number with two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def draw(run: Path, to: Path) -> None:
    """Write the picture."""
    steps, figure = history(run), Figure(figsize=(12, 13), layout="constrained")
    grid = figure.add_gridspec(4, 6, height_ratios=[1, 1.15, 1.3, 2.6])
    top = [figure.add_subplot(grid[0, place : place + 2]) for place in (0, 2, 4)]
    lines(top[0], steps, ["progress/percent"], "progress")
    lines(top[1], steps, ["progress/prefilled_tokens", "progress/generated_tokens"], "progress: tokens")
    rates = ["rate/prefilled_tokens_per_second", "rate/generated_tokens_per_second"]
    lines(top[2], steps, rates, "rate")
    running = figure.add_subplot(grid[1, :3])
    lines(running, steps, [name for name in steps[-1] if name.startswith("running/")], "running means, 0-100")
    running.set_ylim(0, 102)
    curves(figure.add_subplot(grid[1, 3:]), run, "by_retention", "KV entries kept, % of the prompt")
    table = figure.add_subplot(grid[2, :])
    table.set_title("cells", fontsize=9)
    cells = [[text(row[name]) for name in COLUMNS] for row in rows(run, "cells")]
    shown = table.table(cells, colLabels=list(COLUMNS.values()), bbox=[0, 0, 1, 1], edges="horizontal")
    shown.auto_set_font_size(False)
    shown.set_fontsize(7.5)
    table.set_axis_off()
    for place, name in ((grid[3, :3], "by_budget"), (grid[3, 3:], "heatmap")):
        (image,) = run.parent.glob(f"files/media/images/{name}_[0-9]*.png")
        panel = figure.add_subplot(place)
        panel.imshow(imread(image))
        panel.set_title(name, fontsize=9)
        panel.set_axis_off()
    for axes in figure.axes:
        axes.tick_params(labelsize=6)
    figure.savefig(to, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    files = sorted(Path(sys.argv[1]).glob(".wandb/wandb/*/run-*.wandb"), key=lambda file: file.stat().st_mtime)
    draw(max(files, key=lambda file: len(history(file))), ROOT / "docs/images/wandb.png")
