"""Runs: killed at any moment, out of memory, with broken weights; aliases; what is shared."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.cli import main
from harness.engine import engine as engine_module
from harness.engine import memory, scheduler
from harness.engine.decode import Decoding
from harness.engine.prefill import extend, prefill
from harness.engine.rows import Row
from tests.conftest import KILLS, Command
from tests.harness.folders import cells, outcome, records

ROOT = Path(__file__).parents[3]


def watched(join: Callable[[Decoding, Sequence[Row]], None]) -> type[Decoding]:
    """A ``Decoding`` that something happens to before rows join."""

    class Watched(Decoding):
        def add(self, rows: Sequence[Row]) -> range:
            join(self, rows)
            return super().add(rows)

    return Watched


def _command(words: Sequence[str]) -> None:
    """In a child: the command line, quiet, on one thread."""
    torch.set_num_threads(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.argv = ["run.py", *words]
    main.main()


@pytest.mark.slow
@pytest.mark.parametrize("kills", [KILLS])
def test_a_run_killed_at_random_moments_loses_and_doubles_nothing(
    grid: tuple[str, ...], tmp_path: Path, kills: int
) -> None:
    """Each start is killed at a random moment of what an undisturbed run takes, then one goes to the end."""
    import_module("harness.run.execute")  # before forking: importing it takes longer than the run
    context = multiprocessing.get_context("fork")

    def start(results: Path) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=_command, args=([*grid, f"results_dir={results}"],))
        process.start()
        return process

    begun = time.monotonic()
    undisturbed = start(tmp_path / "undisturbed")
    undisturbed.join()
    seconds = time.monotonic() - begun
    assert undisturbed.exitcode == 0
    draw = random.Random(7)
    disturbed = tmp_path / "disturbed"
    interrupted = 0
    seen: dict[str, list[str]] = {}
    for _ in range(kills):
        process = start(disturbed)
        process.join(draw.uniform(0.1, 0.9) * seconds)
        assert process.pid is not None
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            interrupted += 1
        process.join()
        for name, cell in (cells(disturbed) if (disturbed / "tiny").exists() else {}).items():
            lines = (
                b"".join(path.read_bytes() for path in sorted(cell.glob("records.*.jsonl"))).decode().split("\n")[:-1]
            )
            assert lines[: len(seen.get(name, []))] == seen.get(name, []), "an acknowledged record is gone or changed"
            seen[name] = lines
        if process.exitcode == 0:
            seen = {}
            shutil.rmtree(disturbed)
    assert interrupted > 0
    last = start(disturbed)
    last.join()
    assert last.exitcode == 0
    assert outcome(disturbed) == outcome(tmp_path / "undisturbed")
    assert all(len(cell["records"]) == len(set(cell["records"])) == 4 for cell in outcome(disturbed).values())


def test_equal_kept_sets_are_decoded_once_and_named(kvgauge: Command, grid: tuple[str, ...], tmp_path: Path) -> None:
    done = kvgauge(*grid, "budget=[64,full]", "wide=true", f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    by_cell = {name: {r["example_id"]: r for r in records(cell)} for name, cell in cells(tmp_path).items()}
    for example, full in by_cell["fullkv-full"].items():
        assert full["alias_of"] is None
        for name, of in by_cell.items():
            same = of[example]["kept_sha256"] == full["kept_sha256"]
            assert same == (of[example]["retention"] == 1.0)
            if same and name != "fullkv-full":
                assert of[example]["alias_of"] == "fullkv-full"
                assert of[example]["tokens"] == full["tokens"]
    # Prompts of 40 and 64 tokens are not compressed at 64: one row each. At 65 and 100 FullKV, StreamingLLM, H2O and
    # SnapKV differ; PyramidKV equals SnapKV below 2 (64 - 8) tokens.
    assert "new records: 36, decoded as 10 rows" in done.out
    assert {by_cell["pyramidkv-64"][name]["alias_of"] for name in ("p65", "p100")} == {"snapkv-64"}
    alias_column = next(line for line in done.out.splitlines() if line.startswith("snapkv") and " full " in line)
    assert alias_column.rstrip().endswith("= fullkv-full")


def test_a_cell_added_later_takes_the_tokens_of_its_twin(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path
) -> None:
    first = kvgauge(*grid, "method=fullkv", f"results_dir={tmp_path}")
    assert "decoded as 4 rows" in first.out
    more = kvgauge(*grid, "method=[fullkv,snapkv]", "budget=full", f"results_dir={tmp_path}")
    assert "prefills: 4; cells: 2; new records: 4, decoded as 0 rows; from earlier runs: 4" in more.out
    assert [r["alias_of"] for r in records(cells(tmp_path)["snapkv-full"])] == ["fullkv-full"] * 4


@pytest.mark.slow
def test_width_changes_no_record(kvgauge: Command, grid: tuple[str, ...], tmp_path: Path) -> None:
    for width in (1, 3, 64):
        assert kvgauge(*grid, f"engine.width={width}", f"results_dir={tmp_path / str(width)}").code == 0
    assert outcome(tmp_path / "1") == outcome(tmp_path / "3") == outcome(tmp_path / "64")


def test_automatic_width_is_what_half_of_the_free_memory_holds(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*grid, "method=[fullkv,snapkv]", "budget=32")
    kvgauge(*words, f"results_dir={tmp_path / 'one'}")
    # 8 layers, keys and values of 32 dimensions in float32: 100 + 12 entries of 2 kv heads, and 32 + 12 of 4 query
    # heads.
    each = 8 * 2 * 32 * 4 * (2 * (100 + 12) + 4 * (32 + 12)) // 2
    monkeypatch.setattr(scheduler, "free_bytes", lambda _: 2 * 3 * each + 5)
    widths: list[int] = []
    monkeypatch.setattr(
        engine_module, "Decoding", watched(lambda decoding, rows: widths.append(decoding.alive + len(rows)))
    )
    done = kvgauge(*words, "engine.width=auto", f"results_dir={tmp_path / 'auto'}")
    assert done.code == 0, done.err
    assert (
        f"engine.width=auto: 3 rows decode together at most, of {each / 1e6:.1f} MB for a prompt of 100 tokens"
        in done.out
    )
    assert max(widths) == 2, "two rows of a prompt, and no third without its second"
    assert outcome(tmp_path / "auto") == outcome(tmp_path / "one")
    monkeypatch.undo()
    assert memory.free_bytes(torch.device("cpu")) > 2**20
    assert [memory.rows_that_fit(free, 100) for free in (10, 650, 10**9)] == [1, 3, 256]
    assert kvgauge(*words, "engine.width=all").code == 2


def test_out_of_memory_halves_the_width_and_changes_no_record(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kvgauge(*grid, "engine.width=64", f"results_dir={tmp_path / 'calm'}")
    widths: list[int] = []

    def tight(decoding: Decoding, rows: Sequence[Row]) -> None:
        widths.append(decoding.alive + len(rows))
        if widths[-1] > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(engine_module, "Decoding", watched(tight))
    done = kvgauge(*grid, "engine.width=64", f"results_dir={tmp_path / 'tight'}")
    assert done.code == 0, done.err
    assert "out of memory: going on with engine.width=26; budgets and prompts stay as they are" in done.out
    assert max(widths) > 5 and widths[-1] <= 5
    assert outcome(tmp_path / "tight") == outcome(tmp_path / "calm")


@pytest.mark.slow
def test_out_of_memory_at_prefill_halves_the_width_then_the_pieces_and_changes_no_record(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kvgauge(*grid, f"results_dir={tmp_path / 'calm'}")
    prefilled: list[int] = []

    def tight(work: Any) -> Any:
        def run(model: Any, name: str, prompt: Any, plans: Any, selection: Any, past: Any, *more: Any) -> Any:
            prefilled.append(len(prompt) - (len(past.ids) if past is not None else 0))
            if prefilled[-1] > 64:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return work(model, name, prompt, plans, selection, past, *more)

        return run

    monkeypatch.setattr(engine_module, "prefill", tight(prefill))
    monkeypatch.setattr(engine_module, "extend", tight(extend))
    done = kvgauge(*grid, "engine.width=64", f"results_dir={tmp_path / 'tight'}")
    assert done.code == 0, done.err
    told = [line for line in done.out.splitlines() if "out of memory" in line]
    assert [line.split()[6].rstrip(";") for line in told] == [
        "engine.width=26", "engine.width=13", "engine.prefill_chunk=64",
    ], told  # fmt: skip
    assert max(prefilled) == 65 and prefilled[-2:] == [64, 36]
    assert outcome(tmp_path / "tight") == outcome(tmp_path / "calm")


def test_prompt_that_no_piece_is_small_enough_for_is_one_line(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(engine_module, "prefill", full)
    monkeypatch.setattr(engine_module, "extend", full)
    failed = kvgauge(*grid, f"results_dir={tmp_path}")
    assert failed.code == 6
    assert "one prompt of 40 tokens does not fit into memory with fullkv-full alone (CUDA out of memory.)" in failed.err


def test_one_row_that_does_not_fit_is_one_line_and_keeps_what_is_finished(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"

    def tight(_: Decoding, rows: Sequence[Row]) -> None:
        if any(row.prompt_tokens >= 65 for row in rows):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(engine_module, "Decoding", watched(tight))
    failed = kvgauge(*grid, f"results_dir={results}")
    assert failed.code == 6
    assert "one prompt of 65 tokens does not fit into memory with fullkv-full alone (CUDA out of memory.)" in failed.err
    assert [r["example_id"] for r in records(cells(results)["snapkv-32"])] == ["p40", "p64"]


def test_other_runtime_errors_are_not_taken_for_a_lack_of_memory(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(engine_module, "Decoding", watched(broken))
    done = kvgauge(*grid, "method=fullkv", f"results_dir={tmp_path / 'results'}")
    assert done.code == 1 and "memory" not in done.out
    errors = [record["error"] for record in records(cells(tmp_path / "results")["fullkv-full"])]
    assert len(errors) == 4 and all(error.startswith("decoding failed with RuntimeError (") for error in errors)


def test_logits_that_are_not_finite_are_error_records_and_enter_no_mean(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(ROOT / "models/tiny", folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.3.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    done = kvgauge(*grid, "model=hf", f"model.path={folder}", "wide=true", f"results_dir={tmp_path / 'results'}")
    assert done.code == 1
    told = (
        "logits of new token 1 are not finite, first in the output of layer 3 (of 0 to 7): check the weights or use "
        "another dtype"
    )
    assert f"errors of snapkv-32: 4, the first in example p40: {told}" in done.out
    for cell in cells(tmp_path / "results", model="broken").values():
        assert all(r["error"] and not r["scores"] and not r["tokens"] for r in records(cell))
        summary = json.loads((cell / "scores.json").read_text())
        assert (summary["n"], summary["errors"], summary["expected"]) == (0, 4, 4)


def test_settings_hold_what_changes_numbers_and_nothing_else(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path
) -> None:
    words = [word for word in grid if not word.startswith(("method", "budget"))]
    assert kvgauge(*words, "method=snapkv", "budget=32", f"results_dir={tmp_path}").code == 0
    settings = json.loads((cells(tmp_path)["snapkv-32"] / "manifest.json").read_text())["settings"]
    assert set(settings) == {"model", "task", "selection", "method", "budget"}
    assert settings["method"] == {"class": "methods.snapkv.SnapKV", "window": 8, "kernel": 7, "pooling": "maxpool"}
    # Another folder of the same weights, another width, an explicit device: the same cell.
    shutil.copytree(ROOT / "models/tiny", tmp_path / "elsewhere")
    again = kvgauge(
        *words,
        "method=snapkv",
        "budget=32",
        f"results_dir={tmp_path}",
        f"model.path={tmp_path / 'elsewhere'}",
        "model.device=cpu",
        "engine.width=7",
    )
    assert "new records: 0" in again.out
    other = kvgauge(*words, "method=snapkv", "budget=32", f"results_dir={tmp_path}", "model.dtype=bfloat16")
    assert other.code == 5
    assert "model.dtype=float32, now it is bfloat16" in other.err
