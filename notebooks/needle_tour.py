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
# One sentence is hidden in a long text, and the model is asked for it. A compressed cache finds it where the method
# kept the right entries. The embedded model is small enough to see all methods fail in a minute, without a GPU.

# %%
import os
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import OmegaConf

import kvgauge

ROOT = Path.cwd() if Path("conf").is_dir() else Path.cwd().parent
FIGURES = Path(os.environ.get("FIGURES", ROOT / "results/notebooks"))
LENGTHS = OmegaConf.create(os.environ.get("TOUR_LENGTHS", "[500,1000,2000]"))

# %% [markdown]
# ## The grid
#
# Each prompt is prefilled once; all methods and budgets pick their entries from that prefill and decode together. Run
# it again, and nothing is computed: records are on disk.

# %%
result = kvgauge.run(
    model="tiny",
    task="needle",
    methods="published",
    budgets=[12, 16, 32, 64, 128],
    results=FIGURES / "needle_tour",
    settings={"task.lengths": LENGTHS, "task.depths": [{"count": 5}]},
)
table = result.table()
full = table[table["retention"] == 1].iloc[0]
print(f"With the full cache the model finds the sentence in {full['score']:.1f} % of {full['n']} prompts.")

# %% [markdown]
# ## Where each method finds it
#
# One panel for each method and budget; depth goes down, length goes across.

# %%
figure = result.heatmap()
figure.savefig(FIGURES / "needle_tour_heatmap.png")
figure

# %% [markdown]
# ## What it costs
#
# Retention is the share of the prompt's entries that were kept.

# %%
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
axes.set_ylabel("sentences found, %")
axes.legend(fontsize=7)
curves.savefig(FIGURES / "needle_tour.png")
print(FIGURES / "needle_tour.png")
curves
