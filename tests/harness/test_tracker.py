"""W&B offline: what a run sends can be read back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command

OFFLINE = ("tracker=wandb", "tracker.mode=offline", "method=[fullkv,snapkv]", "budget=32", "task.lengths=[300]", "task.depths=[50]")


def inspect(file: Path) -> dict[str, Any]:
    """The state, configuration and summary of an offline run, as W&B's own reader has them."""
    wandb = Path(sys.executable).parent / "wandb"
    done = subprocess.run([str(wandb), "leet", "inspect", "--summary", "--json", str(file)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_one_offline_run_per_cell_holds_scores_table_image_and_settings(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary" * 6 + "0000")
    done = kvgauge(*OFFLINE, f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    files = sorted((tmp_path / ".wandb").rglob("run-*.wandb"))
    assert [file.stem.rsplit("-", 1)[0] for file in files] == ["run-fullkv-full", "run-snapkv-32"]
    text = json.dumps(inspect(files[1]))
    for part in ("mean_word_overlap", "retention_bytes", '"window"', "heatmap", "examples", "budget:32"):
        assert part in text, part
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"canarycanary" in path.read_bytes() for path in written)


def test_a_failing_tracker_is_one_line_and_costs_no_record(kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse(**_: Any) -> Any:
        raise wandb.Error("no route to host\nmore")

    monkeypatch.setattr(wandb, "init", refuse)
    failed = kvgauge(*OFFLINE, f"results_dir={tmp_path}")
    assert failed.code == 2
    assert "W&B failed (no route to host): the records are kept" in failed.err
    assert (tmp_path / "tiny-random/needle/snapkv-32/scores.json").exists()
