"""Offline runs of W&B, read back, for the tests of what a run sends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

GRID = (
    "method=[fullkv,snapkv]",
    "budget=32",
    "task.lengths=[300]",
    "task.depths=[0,20,40,60,80,100]",
)  # enough for intervals
OFFLINE = ("tracker=wandb", "tracker.mode=offline", *GRID)


def inspect(file: Path) -> dict[str, Any]:
    """The state, configuration and summary of an offline run, as W&B's own reader has them."""
    wandb = Path(sys.executable).parent / "wandb"
    done = subprocess.run(
        [str(wandb), "leet", "inspect", "--summary", "--json", str(file)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def history(file: Path) -> list[dict[str, Any]]:
    """The numbers of each step of an offline run."""
    wandb = Path(sys.executable).parent / "wandb"
    done = subprocess.run(
        [str(wandb), "leet", "inspect", "--json", str(file)], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line["history"]["item"] for line in lines if line["type"] == "history"]


def logged_table(file: Path, name: str) -> list[dict[str, Any]]:
    """The rows of the table of that name that an offline run has."""
    (path,) = file.parent.glob(f"files/media/table/{name}_[0-9]*.table.json")
    table = json.loads(path.read_text("utf-8"))
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def run_files(folder: Path) -> list[Path]:
    """All offline runs, the oldest first."""
    return sorted((folder / ".wandb").rglob("run-*.wandb"), key=lambda file: file.stat().st_mtime_ns)


def newest(folder: Path) -> dict[str, str]:
    """What the last file of each run holds, by the run's name."""
    return {file.stem.removeprefix("run-").rsplit("-", 1)[0]: json.dumps(inspect(file)) for file in run_files(folder)}


def check_grid(file: Path, folder: Path) -> None:
    """A run holds its grid: cells as in the table of the report, curves, images, examples and settings."""
    wanted = pd.read_csv(folder / "report/tiny/needle/table.csv", dtype={"budget": str})
    rows = pd.DataFrame(logged_table(file, "cells"))
    pd.testing.assert_frame_equal(rows[list(wanted)].astype(wanted.dtypes), wanted)
    assert (rows["peak_bytes"] > 0).all() and (rows["tokens_per_second"] > 0).all()
    for name in ("by_budget", "by_retention"):
        assert {point["lineKey"] for point in logged_table(file, f"score_{name}_table")} == {"fullkv", "snapkv"}
    examples = logged_table(file, "examples")
    assert [(row["example_id"], row["method"]) for row in examples[:3]] == [
        ("300-0", "fullkv"), ("300-0", "snapkv"), ("300-20", "fullkv"),
    ]  # fmt: skip
    assert len(examples) == 12 and examples[0]["text"]
    state = inspect(file)
    assert (state["state"], state["name"]) == ("finished", "tiny/needle")
    assert {"heatmap", "summary", "by_budget", "by_retention"} <= state["summary"].keys()
    assert state["summary"]["score/fullkv-full"] == wanted["score"][0]
    assert state["config"]["cells"]["snapkv-32"]["method"]["window"] == 8
    assert state["config"]["tasks"]["needle"]["stop_ids"] and state["config"]["provenance"]
