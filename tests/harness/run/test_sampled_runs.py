"""Runs that draw answers: killed, resumed, scored again, verified, and refused beside others."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.harness.folders import outcome
from tests.harness.run.test_faults import at_prompt, in_child

ROOT = Path(__file__).parents[3]
MATHS = (
    "task=math500",
    f"task.data={ROOT / 'tests/golden/maths'}",
    "task.max_new_tokens=5",
    "method=[fullkv,snapkv]",
    "budget=40",
    "limit=2",
    "engine.width=1",
)
DRAWN = ("sampling.temperature=1", "sampling.samples=4")


@pytest.mark.slow
def test_math500_with_four_answers_killed_and_resumed_is_as_undisturbed(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    told = kvgauge(*MATHS, *DRAWN, f"results_dir={whole}").told
    assert "cells: 3; new records: 6, decoded as 18 rows" in told  # 2 x (4 + 4 + 1)
    with monkeypatch.context() as disturbed:
        code, _ = in_child(
            lambda: at_prompt(2, lambda: os.kill(os.getpid(), signal.SIGKILL), disturbed),
            (*MATHS, *DRAWN, f"results_dir={killed}"),
        )
    assert code == -signal.SIGKILL
    assert "new records: 3, decoded as 9 rows" in kvgauge(*MATHS, *DRAWN, f"results_dir={killed}").told
    assert outcome(killed, task="math500") == outcome(whole, task="math500")

    cell = whole / "tiny/math500/snapkv-40"
    records = [json.loads(line) for file in cell.glob("records.*.jsonl") for line in file.read_text().splitlines()]
    for record in records:
        marks = [sample["scores"]["correct"] for sample in record["samples"]]
        assert record["scores"]["correct"] == sum(marks) / 4 and record["scores"]["pass@4"] == max(marks)
        assert len({tuple(sample["tokens"]) for sample in record["samples"]}) > 1
    table = kvgauge("report", str(whole)).told
    assert "fullkv " in table and "fullkv_greedy" in table

    assert kvgauge("verify", str(whole), "--sample", "2").code == 0
    for words, message in (
        (("sampling.temperature=1", "sampling.samples=8"), "sampling.samples=4, now it is 8: use another task.name"),
        ((), "was made with sampling."),
        (("sampling.temperature=0", "sampling.top_p=0.5"), "sampling.top_p=0.5 has no effect on greedy decoding"),
    ):
        refused = kvgauge(*MATHS, *words, f"results_dir={whole}")
        assert refused.code in (2, 5) and message in refused.err and refused.err.count("\n") == 1
    beside = kvgauge(*MATHS, "method=[streamingllm]", f"results_dir={whole}")
    assert beside.code == 5 and "beside it has not set: use another task.name" in beside.err

    assert kvgauge("score", str(whole), "--set", "task.extraction=math_verify").code == 0
    manifest = json.loads((cell / "manifest.json").read_text())
    assert [metric["name"] for metric in manifest["metrics"]] == ["correct", "output_tokens", "pass@2", "pass@4"]
