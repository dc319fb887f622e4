"""``kvgauge status``: what is whole, running, waiting or stalled, by what was asked of each cell."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from harness.store.locks import WriteLock
from harness.store.shards import ALONE, Worker
from tests.conftest import Command
from tests.harness.run.test_faults import at_prompt, in_child
from tests.harness.store.test_places import CELLS, write


def needle(results: Path, methods: str, depths: str) -> list[str]:
    settings = ("budget=32", "task=needle", "task.lengths=[300]", "engine.width=1", f"results_dir={results}")
    return [f"method={methods}", f"task.depths={depths}", *settings]


def told(kvgauge: Command, results: Path) -> tuple[dict[str, str], list[str]]:
    """The rows of cells (name, and the words after it), and the lines after the tables."""
    done = kvgauge("status", str(results))
    assert done.code == 0, done.err
    tables = done.out.strip().replace("\n  ", " ").split("\n\n")
    rows = (line.split(maxsplit=2) for line in tables[0].splitlines()[1:])
    return {cell: " ".join(rest.split()) for _, cell, rest in rows}, tables[-1].splitlines()


@pytest.mark.slow
def test_a_grid_whose_cells_were_asked_for_different_examples_is_whole(kvgauge: Command, tmp_path: Path) -> None:
    assert kvgauge(*needle(tmp_path, "[fullkv,snapkv]", "[0,50,100]")).code == 0
    assert kvgauge(*needle(tmp_path, "[h2o]", "[0]")).code == 0
    rows, last = told(kvgauge, tmp_path)
    assert rows == {"2": "cells 3 of 3 0 whole", "h2o-32": "1 of 1 0 whole"}
    assert last == ["everything is whole"]


@pytest.mark.slow
def test_what_runs_is_called_running_and_what_was_killed_stalled(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        at_prompt(2, lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch)

    words = needle(tmp_path, "[fullkv,snapkv]", "[0,50,100]")
    assert in_child(killed, words)[0] == -signal.SIGKILL
    rows, last = told(kvgauge, tmp_path)
    assert rows == dict.fromkeys(("fullkv-full", "snapkv-32"), "1 of 3 0 partial, stalled")
    assert len(last) == 1 and last[0].startswith("- tiny/needle: run 0 was killed (pid ")
    assert kvgauge(*needle(tmp_path, "[fullkv,snapkv]", "[25]")).code == 0
    rows, last = told(kvgauge, tmp_path)
    assert rows == dict.fromkeys(("fullkv-full", "snapkv-32"), "2 of 4 0 partial, stalled")
    assert len(last) == 1 and last[0].startswith("- tiny/needle: an earlier command asked for more of fullkv-full")

    seen = []
    at_prompt(1, lambda: seen.append(told(kvgauge, tmp_path)), monkeypatch)
    assert kvgauge(*words).code == 0
    ((rows, last),) = seen
    assert rows == dict.fromkeys(("fullkv-full", "snapkv-32"), "2 of 4 0 partial, running")
    assert last == ["- tiny/needle: at work on fullkv-full, snapkv-32: run 0 (4 of 8 records)"]
    rows, last = told(kvgauge, tmp_path)
    assert rows == {"2": "cells 4 of 4 0 whole"} and last == ["everything is whole"]


def test_cells_that_wait_for_a_run_at_another_task_are_called_waiting(kvgauge: Command, tmp_path: Path) -> None:
    busy, other = write(tmp_path, "tiny", "one", CELLS[0]), write(tmp_path, "tiny", "two", CELLS[0])
    log = {
        "worker": "0", "command": "x", "host": "h", "pid": 1, "started": "2026-01-01T00:00:00+00:00",
        "cells": [CELLS[0].name], "examples": 4, "prompts": 4, "records_before": 0, "device": "cpu", "width": 1,
        "outcome": "done",
    }  # fmt: skip
    (busy.parent / "runs.0.jsonl").write_text(json.dumps(log) + "\n")
    (other / "records.0.jsonl").write_text("")
    (other / "scores.json").unlink()
    first, second = (WriteLock(busy, Worker(f"{index}of2", "of2-x")) for index in (0, 1))
    _, last = told(kvgauge, tmp_path)
    done = kvgauge("status", str(tmp_path)).out
    assert "tiny/one  fullkv-full    2 of 4       0  partial, running" in done
    assert "tiny/two  fullkv-full    0 of 0       0  no records, waiting" in done
    assert last == [
        "- tiny/one: at work on fullkv-full: shard 0 of 2, shard 1 of 2 (2 of 4 records)",
        "- tiny/two: fullkv-full may be waiting for the run that is at work on tiny/one",
    ]
    first.release()
    second.release()
    done = kvgauge("status", str(tmp_path)).out
    assert "tiny/one  fullkv-full    2 of 4       0  partial, stalled" in done
    assert "- tiny/two: nobody is at work on fullkv-full: the same command again goes on" in done


def test_runs_of_other_cells_in_one_folder_are_told_apart(kvgauge: Command, tmp_path: Path) -> None:
    killed, busy, done = (write(tmp_path, "tiny", "one", cell) for cell in CELLS)
    for folder, pid, records in ((killed, 11, 1), (busy, 22, 1), (done, 33, 2)):
        lines = (folder / "records.0.jsonl").read_text().splitlines(keepends=True)
        (folder / "records.0.jsonl").write_text("".join(lines[:records]))
        log = {
            "worker": "0", "command": "x", "host": "h", "pid": pid, "started": f"2026-01-01T00:00:{pid}+00:00",
            "cells": [folder.name], "examples": 2, "prompts": 2, "records_before": 0, "device": "cpu", "width": 1,
        }  # fmt: skip
        with (folder.parent / "runs.0.jsonl").open("a") as file:
            file.write(json.dumps(log) + "\n" + (json.dumps(log | {"outcome": "done"}) + "\n" if pid == 33 else ""))
        if records == 1:
            (folder / "scores.json").unlink()
    lock = WriteLock(busy, ALONE)
    rows, last = told(kvgauge, tmp_path)
    workers = [line.split()[3:5] for line in kvgauge("status", str(tmp_path)).out.split("\n\n")[1].splitlines()[1:]]
    lock.release()
    assert rows[killed.name] == "1 of 2 0 partial, stalled" and rows[busy.name] == "1 of 2 0 partial, running"
    assert rows[done.name] == "2 of 2 0 whole"
    assert workers == [["gone", "1"], ["running", "1"], ["done", "2"]]
    assert last == [
        "- tiny/one: at work on h2o-8: run 0 (1 of 2 records)",
        "- tiny/one: run 0 was killed (pid 11 on h): the same command again goes on from there",
    ]


def test_what_only_an_earlier_run_asked_for_is_missed_with_the_command_that_asked(
    kvgauge: Command, tmp_path: Path
) -> None:
    both, earlier = (write(tmp_path, "tiny", "one", cell) for cell in CELLS[:2])

    def ran(pid: int, command: str, outcome: str, asked: list[str], *folders: Path) -> None:
        log = {
            "worker": "0", "command": command, "host": "h", "pid": pid, "started": f"2026-01-01T00:00:{pid}+00:00",
            "cells": [folder.name for folder in folders], "examples": len(asked), "prompts": 1, "records_before": 0,
            "device": "cpu", "width": 1,
        }  # fmt: skip
        with (both.parent / "runs.0.jsonl").open("a") as file:
            file.write(json.dumps(log | {"asked": asked}) + "\n")
            file.write((json.dumps(log | {"outcome": outcome}) + "\n") * (outcome != "running"))

    ran(11, "run.py limit=3", "running", ["1", "3", "4"], both, earlier)  # killed; both cells have 1 and 2
    ran(12, "run.py limit=1", "done", ["1"], earlier)
    ran(13, "run.py limit=2", "done", ["1", "2"], both)
    rows, last = told(kvgauge, tmp_path)
    assert rows == dict.fromkeys((both.name, earlier.name), "2 of 4 0 partial, stalled")
    assert last == [
        "- tiny/one: an earlier command asked for more of fullkv-full, h2o-8, and again goes on: `run.py limit=3`"
    ]
    ran(14, "run.py limit=3", "running", ["1", "3", "4"], both, earlier)
    _, last = told(kvgauge, tmp_path)
    assert last == ["- tiny/one: run 0 was killed (pid 14 on h): the same command again goes on from there"]
    for folder in (both, earlier):
        records = (folder / "records.0.jsonl").read_text().splitlines(keepends=True)
        more = [records[0].replace('"example_id": "1"', f'"example_id": "{name}"') for name in "34"]
        (folder / "records.0.jsonl").write_text("".join([*records, *more]))
        (folder / "scores.json").unlink()
    rows, last = told(kvgauge, tmp_path)
    assert rows == dict.fromkeys((both.name, earlier.name), "4 of 4 0 no scores")
    assert len(last) == 1 and "without scores of all records" in last[0]


def test_lines_of_before_that_tell_a_number_and_no_examples_count_too(kvgauge: Command, tmp_path: Path) -> None:
    cell = write(tmp_path, "tiny", "one", CELLS[0])
    for pid, examples in ((11, 5), (12, 2)):
        log = {
            "worker": "0", "command": f"run.py {pid}", "host": "h", "pid": pid, "prompts": 1, "records_before": 0,
            "started": f"2026-01-01T00:00:{pid}+00:00", "cells": [cell.name], "examples": examples, "device": "cpu",
            "width": 1, "outcome": "done",
        }  # fmt: skip
        with (cell.parent / "runs.0.jsonl").open("a") as file:
            file.write(json.dumps(log) + "\n")
    rows, last = told(kvgauge, tmp_path)
    assert rows == {cell.name: "2 of 5 0 partial, stalled"}
    assert last == ["- tiny/one: an earlier command asked for more of fullkv-full, and again goes on: `run.py 11`"]


def test_another_model_at_work_is_nothing_to_wait_for(kvgauge: Command, tmp_path: Path) -> None:
    busy, other = write(tmp_path, "tiny", "one", CELLS[0]), write(tmp_path, "other", "one", CELLS[0])
    (other / "records.0.jsonl").write_text("")
    lock = WriteLock(busy, ALONE)
    assert "no records, stalled" in kvgauge("status", str(tmp_path)).out
    lock.release()
