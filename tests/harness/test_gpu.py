"""The same numbers on a GPU; skipped where there is none."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.conftest import Command

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_a_grid_keeps_and_generates_the_same_on_cpu_and_cuda(kvgauge: Command, prompts_file: Path, tmp_path: Path) -> None:
    words = ("method=all", "budget=[32,48]", "task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=12")
    for device in ("cpu", "cuda"):
        done = kvgauge(*words, f"model.device={device}", f"results_dir={tmp_path / device}")
        assert done.code == 0, done.err
    for cell in sorted(path.parent for path in (tmp_path / "cpu/tiny/tokens").glob("*/scores.json")):
        there = tmp_path / "cuda/tiny/tokens" / cell.name
        cpu, cuda = ([json.loads(line) for line in (folder / "records.0.jsonl").read_text().splitlines()] for folder in (cell, there))
        assert [(r["tokens"], r["kept_sha256"]) for r in cpu] == [(r["tokens"], r["kept_sha256"]) for r in cuda], cell.name


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_the_kernel_keeps_and_generates_the_same_as_torch(kvgauge: Command, prompts_file: Path, tmp_path: Path) -> None:
    words = ("method=h2o", "budget=[32,48]", "task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=12", "model.device=cuda")
    found = []
    for way in ("torch", "triton"):
        done = kvgauge(*words, f"engine.column_sums={way}", f"results_dir={tmp_path / way}")
        assert done.code == 0, done.err
        files = sorted((tmp_path / way).glob("tiny/tokens/*/records.0.jsonl"))
        records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        found.append([(record["tokens"], record["kept_sha256"]) for record in records])
    assert found[0] and found[0] == found[1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_on_cuda(kvgauge: Command, prompts_file: Path, tmp_path: Path, dtype: str) -> None:
    words = ("method=all", "budget=32", "task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=4")
    done = kvgauge(*words, "model.device=cuda", f"model.dtype={dtype}", f"results_dir={tmp_path}")
    assert done.code == 0, done.err
