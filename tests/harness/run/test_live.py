"""What a tracker shows while a run goes on, read back from offline runs of W&B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.errors import StoreError
from tests.conftest import Command
from tests.offline_runs import OFFLINE, check_grid, history, inspect, run_files


@pytest.mark.slow
def test_a_run_shows_how_far_it_is_and_what_its_cells_score_so_far(kvgauge: Command, tmp_path: Path) -> None:
    words = [*OFFLINE, f"results_dir={tmp_path}", "engine.width=2"]  # a prompt at a time
    assert kvgauge(*words, "limit=2").code == 0
    assert kvgauge(*words).code == 0
    first, second = (history(file) for file in run_files(tmp_path))
    steps = [step for step in second if "progress/prompts" in step]
    assert [step["progress/prompts"] for step in first if "progress/prompts" in step] == [1, 2]
    assert [step["progress/prompts"] for step in steps] == [3, 4, 5, 6]  # goes on where the first one ended
    assert steps[-1]["progress/percent"] == 100 and steps[-1]["progress/errors"] == 0
    for name in ("progress/prefilled_tokens", "progress/generated_tokens"):
        seen = [step[name] for step in steps]
        assert seen == sorted(set(seen)) and seen[0] > 0
    assert all(step[f"rate/{kind}_tokens_per_second"] > 0 for step in steps for kind in ("prefilled", "generated"))
    for row in pd.read_csv(tmp_path / "report/tiny/needle/table.csv", dtype={"budget": str}).to_dict("records"):
        assert steps[-1][f"running/{row['method']}-{row['budget']}"] == pytest.approx(row["score"])


@pytest.mark.slow
def test_of_several_shards_the_first_is_shown_and_the_last_sends_the_grid(kvgauge: Command, tmp_path: Path) -> None:
    words = [*OFFLINE, f"results_dir={tmp_path}", "shards=2"]
    assert kvgauge(*words, "shard=0").code == 0
    (live,) = run_files(tmp_path)
    assert [step["progress/prompts"] for step in history(live) if "progress/prompts" in step][-1] == 3
    assert kvgauge(*words, "shard=1").code == 0
    _, last = run_files(tmp_path)
    assert last.stem == live.stem
    check_grid(last, tmp_path)


class Refused(RuntimeError):
    """What W&B is built on may raise anything."""


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["init", "log"])
def test_a_tracker_that_fails_meanwhile_is_a_line_and_sends_at_the_end(
    broken: str, kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    owner, whole, calls = (wandb, wandb.init, []) if broken == "init" else (wandb.Run, wandb.Run.log, [])

    def fail_once(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise Refused("the socket is closed\nmore")
        return whole(*given, **named)

    monkeypatch.setattr(owner, broken, fail_once)
    done = kvgauge(*OFFLINE, f"results_dir={tmp_path}", "engine.width=2")
    assert (done.code, done.err) == (0, "")
    assert done.out.count("the socket is closed") == 1
    assert "the tracker shows nothing of this run until its end (Refused: the socket is closed)\n" in done.out
    check_grid(run_files(tmp_path)[-1], tmp_path)


@pytest.mark.slow
def test_a_run_that_fails_ends_its_run_too_and_the_records_repair_it(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.store.cells import CellWriter

    words, append, calls = [*OFFLINE, f"results_dir={tmp_path}", "engine.width=2"], CellWriter.append, []

    def full(writer: CellWriter, records: Any) -> None:
        calls.append(records)
        if len(calls) > 6:
            raise StoreError("no space left")
        append(writer, records)

    with monkeypatch.context() as patch:
        patch.setattr(CellWriter, "append", full)
        assert kvgauge(*words).code == 5
    state = inspect(run_files(tmp_path)[0])
    assert (state["exit_code"], state["summary"]["progress/prompts"]) == (1, 3)
    assert kvgauge(*words).code == 0
    first, last = run_files(tmp_path)
    assert first.stem == last.stem
    check_grid(last, tmp_path)
