"""What commands and runs print fits 100 columns; only a path or a command to copy can be longer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.run import report
from harness.run.execute import Counts
from tests.conftest import Command
from tests.harness.store.test_places import CELLS, write

LONG = "a-model-whose-name-is-so-long-that-it-takes-half-of-a-line-by-itself"


@pytest.fixture
def fits(kvgauge: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """A command in an empty folder, wherever its output goes, whose every line is looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def command(*words: str) -> Any:
        done = kvgauge(*words)
        for line in done.out.splitlines():
            copied = max(line.split(), key=len) if line.strip() else ""
            assert len(line) <= 100 or len(copied) > 60, line
        return done

    return command


def test_status_fits(fits: Command, tmp_path: Path) -> None:
    for task in ("one", "a-task-with-a-name-that-is-rather-long-as-well"):
        folders = [write(tmp_path / "r", LONG, task, cell) for cell in CELLS]
        for folder in folders:
            (folder / "records.0.jsonl").write_text("")
        run = {
            "worker": "10of16", "command": "x", "host": "node-123.cluster.example.org", "pid": 4321, "cells":
            [cell.name for cell in CELLS], "started": "2026-01-01T00:00:00+00:00", "examples": 4, "prompts": 4,
            "records_before": 0, "device": "cpu", "width": 1,
        }  # fmt: skip
        (folders[0].parent / "runs.10of16.jsonl").write_text(json.dumps(run) + "\n")
    done = fits("status", "r")
    killed = "shard 10 of 16 was killed (pid 4321 on node-123.cluster.example.org): the same command"
    assert done.code == 0 and killed in done.told


def test_doctor_fits_and_cuts_no_path(fits: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = "/a/very/long/path/" + "folder/" * 15
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
    done = fits("doctor", "--results", "r")
    assert done.code == 0 and cache in done.out and "python" in done.out


def test_data_fits(fits: Command, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "trec.jsonl").write_text('{"input": "x"}\n')
    done = fits("data", "check", "d")
    assert done.code == 3 and "trec.jsonl" in done.out


def test_a_dry_run_fits(fits: Command, prompts_file: Path) -> None:
    prompts = json.loads(prompts_file.read_text())
    prompts_file.write_text(json.dumps(prompts | {"long": [0] + [3] * 4_200}))
    words = (f"model.name={LONG}", "method=snapkv", "method.snapkv.window=[8,16]", "budget=[32,64]")
    done = fits(*words, "task=tokens", f"task.prompts={prompts_file.name}", "dry_run=true")
    assert done.code == 0, done.err
    assert all(words in done.told for words in ("note: ", "positions this model is made for", "memory: about"))


def test_the_counts_of_a_large_run_fit(fits: Command, prompts_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, real = Counts(10**9, 10**12, 10**11, 10**11, 10**9, 10**12, 10**9), report.print_end
    monkeypatch.setattr(report, "print_end", lambda tasks, _, *more: real(tasks, large, *more))
    done = fits(
        "budget=32", "task=tokens", f"task.prompts={prompts_file.name}", "task.max_new_tokens=2", "results_dir=r"
    )
    assert done.code == 0
    assert "new records: 1000000000, decoded as 1000000000 rows; from earlier runs: " in done.told
