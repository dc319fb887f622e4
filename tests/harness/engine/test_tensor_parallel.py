"""Tensor parallelism: processes that share a model's heads make what one process makes, and end together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from transformers import Olmo2Config, Olmo2ForCausalLM, OPTConfig

from harness.cli import main
from harness.engine import engine as engine_module
from harness.engine import scheduler, tensor_parallel
from harness.engine.decode import Decoding
from harness.engine.rows import Row
from harness.store.run_log import read_runs
from tests.conftest import ROOT, Command, Finished
from tests.harness.folders import cells, outcome, records
from tests.harness.run.test_faults import at_prompt

Prepare = Callable[[int], None]


@pytest.fixture
def grid(tmp_path: Path) -> tuple[str, ...]:
    """Every method on two prompts that begin alike."""
    ids = [0, *((7 * i * i) % 1000 + 2 for i in range(90))]
    (tmp_path / "prompts.json").write_text(json.dumps({"long": ids, "short": [*ids[:66], 5, 7]}))
    of_task = ("task=tokens", f"task.prompts={tmp_path / 'prompts.json'}", "task.max_new_tokens=4")
    return ("method=published", "budget=[32,48]", *of_task, "engine.width=5", f"results_dir={tmp_path / 'results'}")


@pytest.fixture
def small(prompts_file: Path, tmp_path: Path) -> tuple[str, ...]:
    """Two cells of four prompts, one prompt in a batch."""
    of_task = ("task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=2", "engine.width=1")
    return ("method=[fullkv,snapkv]", "budget=32", *of_task, f"results_dir={tmp_path / 'results'}")


def shared(words: Sequence[str], folder: Path, count: int = 2, prepare: Prepare = lambda _: None) -> list[Finished]:
    """The command in processes that share its model, as torchrun starts them.

    Args:
        words: of the command.
        folder: for what they print.
        count: processes.
        prepare: is called in each, with its rank.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = [_child([*words, "model.tp_plan=auto"], folder, rank, count, port, prepare) for rank in range(count)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    printed = [[(folder / f"{rank}.{stream}").read_text() for stream in ("out", "err")] for rank in range(count)]
    return [Finished(code, out, err) for code, (out, err) in zip(codes, printed, strict=True)]


def _child(words: Sequence[str], folder: Path, rank: int, count: int, port: int, prepare: Prepare) -> int:
    if child := os.fork():
        return child
    code = 99
    try:
        for number, stream in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / f"{rank}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        numbers = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": count,
            "LOCAL_WORLD_SIZE": count,
            "MASTER_PORT": port,
        }
        os.environ.update(
            {name: str(number) for name, number in numbers.items()}, MASTER_ADDR="localhost", COLUMNS="200"
        )
        sys.argv = ["run.py", *words]
        prepare(rank)
        main.main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def fails() -> None:
    raise ValueError("nothing can be done")


def lines(finished: Finished) -> list[str]:
    """What a process said of errors, in our own lines."""
    return [line for line in finished.err.splitlines() if line.startswith(("kvgauge", "Traceback"))]


def heard_of(finished: Finished, results: Path, code: int, message: str, kept: Sequence[str]) -> None:
    """How the first process ended, and what it kept."""
    assert finished.code == code, finished.err
    assert message in lines(finished)[-1] and "Traceback" not in finished.err
    assert [of["example_id"] for of in records(cells(results)["snapkv-32"])] == kept


# --- the same results


def same_as_alone(kvgauge: Command, grid: tuple[str, ...], folder: Path, run: Callable[[Sequence[str]], str]) -> None:
    """Two processes write what one does, one process goes on from it, and the first alone prints."""
    grid = (*grid, "selection.granularity=query_head")
    assert kvgauge(*grid, f"results_dir={folder / 'alone'}").code == 0
    assert run(grid).count("prompts: 2; prefills: 2; cells: 9; new records: 18") == 1
    assert outcome(folder / "results") == outcome(folder / "alone")
    manifest = json.loads((cells(folder / "results")["snapkv-32"] / "manifest.json").read_text())
    assert manifest["provenance"]["processes"] == 2
    assert [run.outcome for run in read_runs(folder / "results/tiny/tokens")] == ["done"]
    assert "new records: 0" in kvgauge(*grid).out


@pytest.mark.slow
def test_two_processes_make_what_one_makes_and_one_goes_on_from_it(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path
) -> None:
    def run(words: Sequence[str]) -> str:
        finished = shared(words, tmp_path)
        assert [process.code for process in finished] == [0, 0], finished[0].err
        return "".join(process.out for process in finished)

    same_as_alone(kvgauge, grid, tmp_path, run)


@pytest.mark.slow
def test_torchrun_makes_what_one_process_makes_and_goes_on_from_it(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "run.py")]

    def run(words: Sequence[str]) -> str:
        command = [sys.executable, *torchrun, *words, "model.tp_plan=auto"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    same_as_alone(kvgauge, grid, tmp_path, run)


@pytest.mark.slow
def test_kv_heads_in_pieces_are_those_of_one_process(kvgauge: Command, grid: tuple[str, ...], tmp_path: Path) -> None:
    grid = (
        *grid,
        "selection.granularity=kv_head",
        "engine.prefill_chunk=32",
        "engine.reuse_prefix=true",
        "engine.audit=0.3",
    )
    assert kvgauge(*grid, f"results_dir={tmp_path / 'alone'}").code == 0
    finished = shared(grid, tmp_path)
    assert [process.code for process in finished] == [0, 0], finished[0].err
    assert "the others shared" in finished[0].out
    assert not finished[1].out and not lines(finished[1])
    assert outcome(tmp_path / "results") == outcome(tmp_path / "alone")
    again = shared(grid, tmp_path)
    assert [process.code for process in again] == [0, 0] and "new records: 0" in again[0].out


def test_automatic_width_is_that_of_the_process_with_the_least_memory(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In each process 8 layers, keys and values of 32 dimensions in float32: 100 + 2 entries of its kv head, 32 + 2 of
    # its 2 query heads.
    each = 8 * 2 * 32 * 4 * (1 * (100 + 2) + 2 * (32 + 2)) // 2

    def tight(rank: int) -> None:
        monkeypatch.setattr(scheduler, "free_bytes", lambda _: 2 * 3 * each + 5 if rank else 2**40)

    finished = shared([*small, "engine.width=auto"], tmp_path, prepare=tight)
    assert [process.code for process in finished] == [0, 0], finished[0].err
    assert (
        f"engine.width=auto: 3 rows decode together at most, of {each / 1e6:.1f} MB for a prompt of 100 tokens"
        in finished[0].out
    )


# --- ends


@pytest.mark.parametrize("hears", [0, 1])
def test_a_signal_that_one_process_hears_lets_all_finish_the_batch(
    kvgauge: Command, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hears: int
) -> None:
    def prepare(rank: int) -> None:
        if rank == hears:
            at_prompt(2, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)

    first, other = shared(small, tmp_path, prepare=prepare)
    heard_of(first, tmp_path / "results", 143, "stopped by SIGTERM: what is finished is kept", ["p40", "p64"])
    assert other.code and not lines(other)
    assert kvgauge(*small, f"results_dir={tmp_path / 'alone'}").code == 0
    assert "new records: 4" in kvgauge(*small).out
    assert outcome(tmp_path / "results") == outcome(tmp_path / "alone")


def test_a_process_out_of_memory_says_so_and_the_first_one_keeps_what_is_finished(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tight(rank: int) -> None:
        class Tight(Decoding):
            def add(self, rows: Sequence[Row]) -> range:
                if rank == 1 and rows[0].prompt_tokens == 65:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return super().add(rows)

        monkeypatch.setattr(engine_module, "Decoding", Tight)

    first, other = shared(small, tmp_path, prepare=tight)
    heard_of(first, tmp_path / "results", 6, "one of the 2 processes of this run has ended", ["p40", "p64"])
    assert other.code == 6 and len(lines(other)) == 1
    assert "process 1 of 2 ran out of memory (CUDA out of memory.)" in other.err and "engine.prefill_chunk" in other.err


def test_an_exception_that_all_processes_raise_is_in_that_prompts_records_and_the_others_are_done(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = shared(small, tmp_path, prepare=lambda _: at_prompt(2, fails, monkeypatch))
    assert (first.code, other.code) == (1, 0) and not lines(first) + lines(other)
    for cell in cells(tmp_path / "results").values():
        errors = {of["example_id"]: of["error"] for of in records(cell)}
        assert errors.pop("p64").startswith("the prefill failed with ValueError (test_tensor_parallel.py, line ")
        assert errors == dict.fromkeys(("p40", "p65", "p100"))


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_an_exception_that_one_process_alone_raises_ends_the_run_in_one_line(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    def prepare(rank: int) -> None:
        monkeypatch.setattr(tensor_parallel, "_AGREEMENT", timedelta(seconds=1))
        if rank == failing:
            at_prompt(2, fails, monkeypatch)

    finished = shared(small, tmp_path, prepare=prepare)
    message = f"process {failing} of 2 failed with ValueError (test_tensor_parallel.py, line "
    assert message in lines(finished[failing])[-1] and "the others did not fail alike" in finished[failing].err
    says = message if failing == 0 else "one of the 2 processes of this run has ended"
    heard_of(finished[0], tmp_path / "results", 6, says, ["p40"])


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_ends_the_others(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    def prepare(rank: int) -> None:
        if rank == killed:
            at_prompt(2, lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch)

    finished = shared(small, tmp_path, prepare=prepare)
    assert finished[killed].code == -signal.SIGKILL
    if killed == 1:
        heard_of(finished[0], tmp_path / "results", 6, "one of the 2 processes of this run has ended", ["p40"])
    else:
        assert finished[1].code == 6 and not lines(finished[1])


# --- refusals


@pytest.mark.parametrize(
    ("words", "processes", "code", "message"),
    [
        (("task.prompts=none.json",), 2, 3, "none.json cannot be read"),
        (("wdith=3",), 2, 2, "wdith is not a setting of this run"),
        (("engine.time_limit_seconds=5",), 2, 2, "engine.time_limit_seconds is each process's own"),
        (("model.device=cpu",), 2, 2, "model.device=cpu is one device"),
        (("model.device_map=auto",), 2, 2, "use null for one of them"),
        ((), 3, 2, "tiny has 2 kv heads, which 3 processes cannot share evenly"),
        (("model=hf", "model.path=opt"), 2, 4, "model=opt (opt) has no tensor-parallel plan in transformers"),
        (
            ("model=hf", "model.path=olmo2"),
            2,
            4,
            "gives each of 2 processes 2 of its 2 kv heads: use model.device_map=auto",
        ),
    ],
)
def test_what_cannot_be_is_one_line_of_the_first_process(
    small: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: Sequence[str],
    processes: int,
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shape = {"vocab_size": 1024, "hidden_size": 32, "num_attention_heads": 4}
    OPTConfig(**shape).save_pretrained("opt")
    Olmo2ForCausalLM(
        Olmo2Config(**shape, num_key_value_heads=2, intermediate_size=48, num_hidden_layers=2)
    ).save_pretrained("olmo2")
    first, *others = shared([*small, *words], tmp_path, processes)
    assert first.code == code and len(lines(first)) == 1 and message in first.err, first.err
    assert not any(lines(other) for other in others)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "needs the processes of torchrun (RANK is not set)"),
        (("limit=1,2", "--multirun"), "for one run, not for several"),
        (("hydra/launcher=local", "shards=2"), "needs torchrun, which no launcher starts"),
        (("model.tp_plan=rowwise",), "model.tp_plan=rowwise is unknown: use null or auto"),
    ],
)
def test_a_plan_without_torchrun_is_one_line(
    kvgauge: Command, small: tuple[str, ...], words: Sequence[str], message: str
) -> None:
    failed = kvgauge(*small, "model.tp_plan=auto", *words)
    assert failed.code == 2 and failed.err.count("\n") == 1 and message in failed.err, failed.err


def test_other_commands_load_no_share_of_a_model(kvgauge: Command) -> None:
    failed = kvgauge("bench", "model.tp_plan=auto", "--tokens", "64")
    assert failed.code == 2 and "model.tp_plan=auto is for runs, under torchrun" in failed.err
