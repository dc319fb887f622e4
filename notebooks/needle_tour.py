# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A needle in a haystack, under every method
#
# One sentence is hidden in a long text, and the model is asked for it. The full cache finds it at every depth; a
# compressed cache finds it where the method kept the right entries. The embedded model is small enough to see all
# methods fail in a minute, without a GPU.

# %%
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from matplotlib import image
from matplotlib.figure import Figure

ROOT = Path.cwd() if Path("conf").is_dir() else Path.cwd().parent
FIGURES = Path(os.environ.get("FIGURES", ROOT / "results/notebooks"))
LENGTHS = os.environ.get("TOUR_LENGTHS", "[500,1000,2000]")

# %% [markdown]
# ## The grid
#
# This is the command line as anyone would give it. Each prompt is prefilled once; all methods and budgets pick their
# entries from that prefill and decode together. Run it again, and nothing is computed: records are on disk.

# %%
command = [
    sys.executable,
    "run.py",
    "task=needle",
    f"task.lengths={LENGTHS}",
    "task.depths=[{count:5}]",
    "method=all",
    "budget=[12,16,32,64,128]",
    f"results_dir={FIGURES / 'needle_tour'}",
]
done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
print(done.stdout[-2500:], done.stderr)
done.check_returncode()

# %% [markdown]
# ## Where each method finds it
#
# One panel for each method and budget; depth goes down, length goes across.

# %%
report = next((FIGURES / "needle_tour/report").glob("*/needle"))
picture = image.imread(report / "heatmap.png")
figure = Figure(figsize=(picture.shape[1] / 130, picture.shape[0] / 130), dpi=130)
axes = figure.add_axes((0, 0, 1, 1))
axes.imshow(picture)
axes.set_axis_off()
figure

# %% [markdown]
# ## What it costs
#
# The table is a CSV file. Retention is the share of the prompt's entries that were kept.

# %%
table = pd.read_csv(report / "table.csv")
scores = table.pivot(index="method", columns="budget", values="score").round(1)
print(scores.reindex(index=table["method"].unique(), columns=table["budget"].unique()).to_string(na_rep="–"))

# %%
curves = Figure(figsize=(6.5, 3.6), dpi=130, layout="constrained")
axes = curves.subplots()
for method, cells in table.groupby("method", sort=False):
    if len(cells) == 1:
        axes.axhline(cells["score"].item(), color="0.5", linestyle="--", label=method)
    else:
        axes.plot(100 * cells["retention"], cells["score"], "o-", label=method)
axes.set_xscale("log")
axes.set_xlabel("entries kept, % of the prompt")
axes.set_ylabel("score (0-100)")
axes.legend(fontsize=7)
curves.savefig(FIGURES / "needle_tour.png")
print(FIGURES / "needle_tour.png")
curves
