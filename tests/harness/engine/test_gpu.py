"""The same numbers on a GPU; skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.conftest import Command, needs_triton

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def records_of(folder: Path) -> dict[tuple[str, str], tuple[str, list[int]]]:
    """(cell, example): hash of the kept sets, tokens."""
    files = sorted(folder.glob("*/*/*/records.0.jsonl"))
    records = [(file.parent.name, json.loads(line)) for file in files for line in file.read_text().splitlines()]
    assert records
    return {(cell, record["example_id"]): (record["kept_sha256"], record["tokens"]) for cell, record in records}


def check_alike(one: Path, other: Path) -> None:
    """Two devices, or two ways, sum in different orders. That may decide a cut between scores that are nearly equal,
    and nothing else."""
    left, right = records_of(one), records_of(other)
    assert left.keys() == right.keys()
    same = [key for key in left if left[key][0] == right[key][0]]
    for cell in {cell for cell, _ in left}:
        of_cell = [key for key in left if key[0] == cell]
        assert len(set(of_cell) & set(same)) >= len(of_cell) // 2, cell
    assert [left[key][1] for key in same] == [right[key][1] for key in same]


@pytest.fixture
def grid(prompts_file: Path, tmp_path: Path) -> tuple[str, ...]:
    """Of random weights: models/tiny has heads that look one token back, whose column sums are all 1, and rounding
    would order them."""
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    return (
        "method=published",
        "budget=[32,48]",
        f"model.path={tmp_path / 'model'}",
        "task=tokens",
        f"task.prompts={prompts_file}",
        "task.max_new_tokens=12",
    )


def test_a_grid_keeps_and_generates_the_same_on_cpu_and_cuda(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path
) -> None:
    for device in ("cpu", "cuda"):
        done = kvgauge(*grid, f"model.device={device}", f"results_dir={tmp_path / device}")
        assert done.code == 0, done.err
    check_alike(tmp_path / "cpu", tmp_path / "cuda")


@needs_triton
def test_our_kernels_keep_and_generate_the_same_as_torch(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path
) -> None:
    for way in ("torch", "triton"):
        done = kvgauge(*grid, "model.device=cuda", f"engine.kernels={way}", f"results_dir={tmp_path / way}")
        assert done.code == 0, done.err
    check_alike(tmp_path / "torch", tmp_path / "triton")


def test_a_prompt_in_pieces_keeps_and_generates_the_same_as_in_one(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path
) -> None:
    for pieces in ("null", "40"):
        done = kvgauge(*grid, "model.device=cuda", f"engine.prefill_chunk={pieces}", f"results_dir={tmp_path / pieces}")
        assert done.code == 0, done.err
    check_alike(tmp_path / "null", tmp_path / "40")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_on_cuda(kvgauge: Command, prompts_file: Path, tmp_path: Path, dtype: str) -> None:
    words = ("method=published", "budget=32", "task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=4")
    done = kvgauge(*words, "model.device=cuda", f"model.dtype={dtype}", f"results_dir={tmp_path}")
    assert done.code == 0, done.err
