"""What goes wrong on a cluster: what happened, what the user saw, what was kept. docs/scale.md has the table."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.cli.commands import status
from harness.config.build import build
from harness.engine import engine as engine_module
from harness.engine.prefill import prefill
from harness.errors import Stopped
from harness.store.locks import at_work
from harness.store.run_log import read_runs
from tests.conftest import Command, Finished
from tests.harness.folders import cells, outcome, records

Event = Callable[[], None]


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """SIGINT as a terminal gives it. A background job's is ignored, and so is that of the processes it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def words(prompts_file: Path, tmp_path: Path) -> tuple[str, ...]:
    """Two cells of four prompts, one prompt in a batch."""
    of_task = ("task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=4", "engine.width=1")
    return ("method=[fullkv,snapkv]", "budget=32", *of_task, f"results_dir={tmp_path / 'results'}")


@pytest.fixture
def undisturbed(
    kvgauge: Command, words: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What nothing disturbed; computed once."""
    folder = tmp_path_factory.getbasetemp() / "undisturbed"
    if not folder.exists():
        assert kvgauge(*words, f"results_dir={folder}").code == 0
    return outcome(folder)


def at_prompt(number: int, happens: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen as a prompt is prefilled, the first is 1."""
    seen = [0]

    def disturbed(*words: Any) -> Any:
        seen[0] += 1
        if seen[0] == number:
            happens()
        return prefill(*words)

    monkeypatch.setattr(engine_module, "prefill", disturbed)


def in_child(prepare: Event, words: Sequence[str]) -> tuple[int, str]:
    """The command in a process of its own: exit code, negative for a signal that killed it, and what it said of
    errors."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(writer, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            sys.argv = ["run.py", *words]
            prepare()
            main.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as heard:
        text = heard.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def goes_on(done: Finished, results: Path, undisturbed: dict[str, dict[str, Any]]) -> None:
    """The same command made it whole."""
    assert done.code == 0, done.err
    assert outcome(results) == undisturbed
    assert all(len(of["records"]) == len(set(of["records"])) == 4 for of in outcome(results).values())


@pytest.mark.parametrize(
    ("number", "code", "says"), [(signal.SIGTERM, 143, "stopped by SIGTERM"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_lets_the_batch_finish_and_the_same_command_goes_on(
    kvgauge: Command,
    words: tuple[str, ...],
    undisturbed: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
    says: str,
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_prompt(2, lambda: os.kill(os.getpid(), number), patch)
        stopped = kvgauge(*words)
    assert stopped.code == code
    assert stopped.err == f"kvgauge: {says}: what is finished is kept, and the same command goes on from there\n"
    assert [of["example_id"] for of in records(cells(tmp_path / "results")["snapkv-32"])] == ["p40", "p64"]
    assert [run.outcome for run in read_runs(tmp_path / "results/tiny/tokens")] == ["stopped"]
    assert signal.getsignal(number) is before
    goes_on(kvgauge(*words), tmp_path / "results", undisturbed)


class StoppedWhileMade:
    def __init__(self) -> None:
        raise Stopped(signal.SIGTERM)


def test_a_signal_while_objects_are_made_stays_one() -> None:
    with pytest.raises(Stopped, match="SIGTERM"):
        build({"_target_": f"{__name__}.StoppedWhileMade"})


def test_a_signal_ends_a_multirun_and_not_one_of_its_jobs(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_prompt(1, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    assert kvgauge("-m", *words, "budget=32,48").code == 143
    assert list(cells(tmp_path / "results")) == ["fullkv-full", "snapkv-32"]


def test_a_second_signal_ends_at_once(
    kvgauge: Command,
    words: tuple[str, ...],
    undisturbed: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    code, said = in_child(lambda: at_prompt(2, twice, monkeypatch), words)
    assert code == 130
    assert said.splitlines()[-2:] == [
        "kvgauge: SIGINT: finishing the batch at hand; a second signal ends at once",
        "kvgauge: stopped at once: what is written is kept",
    ]
    assert [of["example_id"] for of in records(cells(tmp_path / "results")["snapkv-32"])] == ["p40"]
    goes_on(kvgauge(*words), tmp_path / "results", undisturbed)


@pytest.mark.parametrize(
    "sent", [("SIGUSR2",), ("SIGTERM", "SIGUSR2"), ("SIGUSR2", "SIGTERM"), ("SIGTERM", "SIGUSR2", "SIGUSR2")]
)
def test_a_preempted_worker_finishes_its_batch_before_its_scheduler_queues_it_again(
    kvgauge: Command,
    words: tuple[str, ...],
    undisturbed: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: tuple[str, ...],
) -> None:
    """submitit hears of preemption by SIGUSR2; its handler asks for another start and exits. Slurm sends SIGTERM,
    too."""
    results = tmp_path / "results"

    def queue_again(*_: object) -> None:
        assert [of["example_id"] for of in records(cells(results)["snapkv-32"])] == ["p40", "p64"]
        raise SystemExit(144)

    before = signal.signal(signal.SIGUSR2, queue_again)
    try:
        with monkeypatch.context() as patch:
            at_prompt(2, lambda: [os.kill(os.getpid(), signal.Signals[name]) for name in sent], patch)
            assert kvgauge(*words).code == 144
        assert signal.getsignal(signal.SIGUSR2) is queue_again
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert [run.outcome for run in read_runs(results / "tiny/tokens")] == ["stopped"]
    goes_on(kvgauge(*words), results, undisturbed)


def limited(size: int) -> None:
    """No file may grow above a size, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
def test_a_full_disk_stops_before_a_torn_record(
    kvgauge: Command, prompts_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long records and short paths: a manifest, which holds the command, needs less room than two records and a half.
    monkeypatch.chdir(tmp_path)
    of_task = ("task=tokens", f"task.prompts={prompts_file.name}", "task.max_new_tokens=60", "engine.width=1")
    words = ("method=[fullkv,snapkv]", "budget=32", *of_task, "results_dir=results")
    assert kvgauge(*words, "results_dir=undisturbed").code == 0
    whole = tmp_path / "undisturbed/tiny/tokens/snapkv-32"
    first, second, third, _ = map(len, (whole / "records.0.jsonl").read_bytes().splitlines(keepends=True))
    room = first + second + third // 2
    assert room > (whole / "manifest.json").stat().st_size
    code, said = in_child(lambda: limited(room), words)
    assert code == 5, said
    assert said.count("\n") == 1 and "cannot be written (File too large): make room in results/tiny/tokens" in said
    assert "the 2 records in results/tiny/tokens/fullkv-full are safe" in said or "snapkv-32 are safe" in said
    kept = [of["example_id"] for of in records(cells(tmp_path / "results")["snapkv-32"])]
    assert kept == ["p40", "p64"], "all batches before"
    for cell in cells(tmp_path / "results").values():
        assert all(path.read_bytes()[-1:] in (b"", b"\n") for path in cell.glob("records.*"))
        assert not list(cell.glob("*.partial")) and not (cell / "scores.json").exists()
    goes_on(kvgauge(*words), tmp_path / "results", outcome(tmp_path / "undisturbed"))


def test_a_disk_that_is_full_for_the_report_alone_costs_no_record_and_no_score(
    kvgauge: Command,
    words: tuple[str, ...],
    undisturbed: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, said = in_child(lambda: limited(12_000), words)
    assert code == 5
    assert said.count("\n") == 1 and "report cannot be written (File too large): make room in" in said
    assert f"the 8 records in {tmp_path / 'results'} are safe, and the same command goes on" in said
    assert outcome(tmp_path / "results") == undisturbed
    assert "new records: 0" in kvgauge(*words).out


def test_a_broken_record_is_named_and_its_example_computed_again_once_it_is_deleted(
    kvgauge: Command, words: tuple[str, ...], undisturbed: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert kvgauge(*words).code == 0
    path = cells(tmp_path / "results")["snapkv-32"] / "records.0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:30] + b"\n" + b"".join(lines[2:]))
    failed = kvgauge(*words)
    assert failed.code == 5 and f"line 2 of {path} is not a record" in failed.err and failed.err.count("\n") == 1
    path.write_bytes(lines[0] + b"".join(lines[2:]))
    goes_on(kvgauge(*words), tmp_path / "results", undisturbed)


def test_a_torn_last_line_is_cut_off_and_its_example_computed_again(
    kvgauge: Command, words: tuple[str, ...], undisturbed: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert kvgauge(*words).code == 0
    path = cells(tmp_path / "results")["snapkv-32"] / "records.0.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    done = kvgauge(*words)
    assert "new records: 1" in done.out
    goes_on(done, tmp_path / "results", undisturbed)


def test_data_that_vanishes_ends_no_run_and_keeps_none_from_being_reported(
    kvgauge: Command,
    words: tuple[str, ...],
    undisturbed: dict[str, dict[str, Any]],
    prompts_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        at_prompt(2, prompts_file.unlink, patch)
        goes_on(kvgauge(*words), tmp_path / "results", undisturbed)
    again = kvgauge(*words)
    assert again.code == 3 and again.err.count("\n") == 1 and "cannot be read" in again.err
    assert kvgauge("report", str(tmp_path / "results")).code == 0


@pytest.mark.parametrize("place", ["results", "results/tiny", "results/tiny/tokens/snapkv-32"])
def test_a_place_that_cannot_be_written_is_found_before_anything_is_computed(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, place: str
) -> None:
    """A file stands where a folder is to be: that stops root, too, as a read-only folder stops everybody else."""
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("")
    failed = kvgauge(*words)
    assert failed.code == 5 and failed.err.count("\n") == 1
    assert f"{tmp_path / place} is a file, where a folder is to be" in failed.err and "Model" not in failed.err


def test_a_worker_that_was_killed_for_good_is_seen_in_status_and_its_shard_is_taken_up_again(
    kvgauge: Command,
    words: tuple[str, ...],
    undisturbed: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = tmp_path / "results"

    def killed() -> None:
        at_prompt(2, lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch)

    assert in_child(killed, [*words, "shards=2", "shard=1"])[0] == -signal.SIGKILL
    assert kvgauge(*words, "shards=2", "shard=0").code == 0
    told = kvgauge("status", str(results))
    assert told.code == 0, told.err
    rows = {" ".join(line.split()[1:5]): line.split() for line in told.out.splitlines()}
    assert rows["shard 0 of 2"][5:7] == ["done", "4"]
    assert rows["shard 1 of 2"][5:7] == ["gone", "2"]
    assert "snapkv-32 3 of 4" in " ".join(told.out.split()) and "partial" in told.out
    assert "- tiny/tokens: shard 1 of 2 was killed (pid " in told.out
    assert "the same command again goes on from there" in told.out
    goes_on(kvgauge(*words, "shards=2", "shard=1"), results, undisturbed)
    assert kvgauge("status", str(results)).out.rstrip().endswith("everything is whole")


def test_status_names_what_lies_still_and_what_to_do(kvgauge: Command, words: tuple[str, ...], tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert kvgauge(*words).code == 0
    cell = cells(results)["snapkv-32"]
    (cell / "scores.json").unlink()
    assert (
        "- tiny/tokens: snapkv-32 without scores of all records: the same command again"
        in kvgauge("status", str(results)).out
    )
    (cell / "records.0.jsonl").write_text("")
    told = kvgauge("status", str(results)).out
    assert "snapkv-32 0 of 4 0 no records" in " ".join(told.split())
    assert "- tiny/tokens: nobody is at work on snapkv-32: the same command again goes on" in told
    path = cells(results)["fullkv-full"] / "records.0.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(of | {"error": "x", "scores": {}}) + "\n" for of in found))
    assert "- tiny/tokens: errors in fullkv-full: retry_errors=true" in kvgauge("status", str(results)).out


def test_status_forgets_a_killed_worker_once_another_has_made_all_of_it_whole(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        at_prompt(2, lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch)

    assert in_child(killed, [*words, "shards=2", "shard=0"])[0] == -signal.SIGKILL
    assert kvgauge(*words).code == 0
    assert kvgauge("status", str(tmp_path / "results")).out.rstrip().endswith("everything is whole")


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user to be")
def test_status_by_one_who_may_only_read_calls_nobody_killed(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def look() -> None:
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.setuid(65534)
            os.write(writer, repr(at_work(tmp_path / "results/tiny/tokens/snapkv-32")).encode())
            os._exit(0)
        os.close(writer)
        told.append(os.read(reader, 100))
        os.close(reader)
        monkeypatch.setattr(status, "at_work", lambda folder: None)
        told.append(kvgauge("status", str(tmp_path / "results")).out)

    at_prompt(2, look, monkeypatch)
    assert kvgauge(*words).code == 0
    assert told[0] == b"None"
    assert "unknown" in told[1] and "killed" not in told[1]


def test_status_of_a_folder_without_results_is_one_line(kvgauge: Command, tmp_path: Path) -> None:
    failed = kvgauge("status", str(tmp_path))
    assert failed.code == 5 and failed.err.count("\n") == 1 and "holds no cell" in failed.err


def test_the_run_log_survives_a_torn_line_and_says_what_a_run_took(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    log = tmp_path / "results/tiny/tokens/runs.0.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"worker": "0", "comm')
    assert kvgauge(*words).code == 0
    (run,) = read_runs(log.parent)
    assert (run.outcome, run.prompts, run.prefills, run.rows, run.records, run.width) == ("done", 4, 4, 8, 8, 1)
    assert run.peak_bytes > 2**20 and run.peak_of == "process" and run.tokens_per_second > 0
    assert run.prefilled_tokens == 40 + 64 + 65 + 100


@pytest.mark.parametrize(
    "changes",
    [
        {"worker": 1}, {"worker": "../0"}, {"worker": "x\0y"}, {"started": 5}, {"started": "garbage"}, {"seconds": "x"},
        {"seconds": -1},
        {"records": "x"}, {"records": True}, {"cells": 5}, {"cells": [1]}, {"outcome": 3}, {"outcome": "zz"},
        {"examples": "x"},
        {"pid": "1"}, {"host": 1}, {"device": 1}, {"peak_of": 1},
    ],
)  # fmt: skip
def test_a_line_of_the_run_log_that_is_none_is_left_out(tmp_path: Path, changes: dict[str, object]) -> None:
    good = {
        "worker": "0", "command": "x", "host": "h", "pid": 1, "started": "2026-01-01T00:00:00+00:00",
        "cells": ["snapkv-32"], "examples": 1,
        "prompts": 1, "records_before": 0, "device": "cpu", "width": 1, "outcome": "done", "seconds": 1.5,
    }  # fmt: skip
    bad = ["[" * 100_000, "[]", "3", '{"cells": "x"}', json.dumps(good | {"pid": 2} | changes)]
    (tmp_path / "runs.0.jsonl").write_text("\n".join([*bad, json.dumps(good)]) + "\n")
    assert [(run.pid, run.seconds) for run in read_runs(tmp_path)] == [(1, 1.5)]


def test_a_bad_line_of_the_run_log_stops_neither_status_nor_a_run(
    kvgauge: Command, words: tuple[str, ...], tmp_path: Path
) -> None:
    assert kvgauge(*words).code == 0
    log = tmp_path / "results/tiny/tokens/runs.9.jsonl"
    first = json.loads(log.with_name("runs.0.jsonl").read_text().splitlines()[0])
    log.write_text(
        "\n".join(
            [
                "[" * 100_000,
                *(json.dumps(first | {"pid": 1} | bad) for bad in ({"started": 5}, {"records": "x"}, {"outcome": 3})),
            ]
        )
    )
    assert kvgauge("status", str(tmp_path / "results")).out.rstrip().endswith("everything is whole")
    assert kvgauge(*words).code == 0
