"""W&B offline: what a run sends can be read back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.errors import StoreError
from tests.conftest import ROOT, Command

GRID = (
    "method=[fullkv,snapkv]",
    "budget=32",
    "task.lengths=[300]",
    "task.depths=[0,20,40,60,80,100]",
)  # enough for intervals
OFFLINE = ("tracker=wandb", "tracker.mode=offline", *GRID)
LONGBENCH = (
    "method=[fullkv,snapkv]", "budget=32", "task=longbench", f"task.data={ROOT / 'tests/fixtures/longbench'}",
    "task.datasets=[trec,qasper]", "limit=1", "task.max_prompt_tokens=600",
)  # fmt: skip


def inspect(file: Path) -> dict[str, Any]:
    """The state, configuration and summary of an offline run, as W&B's own reader has them."""
    wandb = Path(sys.executable).parent / "wandb"
    done = subprocess.run(
        [str(wandb), "leet", "inspect", "--summary", "--json", str(file)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def history(file: Path) -> list[dict[str, Any]]:
    """The numbers of each step of an offline run."""
    wandb = Path(sys.executable).parent / "wandb"
    done = subprocess.run(
        [str(wandb), "leet", "inspect", "--json", str(file)], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line["history"]["item"] for line in lines if line["type"] == "history"]


def logged_table(file: Path, name: str) -> list[dict[str, Any]]:
    """The rows of the table of that name that an offline run has."""
    (path,) = file.parent.glob(f"files/media/table/{name}_[0-9]*.table.json")
    table = json.loads(path.read_text("utf-8"))
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def run_files(folder: Path) -> list[Path]:
    """All offline runs, the oldest first."""
    return sorted((folder / ".wandb").rglob("run-*.wandb"), key=lambda file: file.stat().st_mtime_ns)


def newest(folder: Path) -> dict[str, str]:
    """What the last file of each run holds, by the run's name."""
    return {file.stem.removeprefix("run-").rsplit("-", 1)[0]: json.dumps(inspect(file)) for file in run_files(folder)}


def check_grid(file: Path, folder: Path) -> None:
    """A run holds its grid: cells as in the table of the report, curves, images, examples and settings."""
    wanted = pd.read_csv(folder / "report/tiny/needle/table.csv", dtype={"budget": str})
    rows = pd.DataFrame(logged_table(file, "cells"))
    pd.testing.assert_frame_equal(rows[list(wanted)].astype(wanted.dtypes), wanted)
    assert (rows["peak_bytes"] > 0).all() and (rows["tokens_per_second"] > 0).all()
    for name in ("by_budget", "by_retention"):
        assert {point["lineKey"] for point in logged_table(file, f"score_{name}_table")} == {"fullkv", "snapkv"}
    examples = logged_table(file, "examples")
    assert [(row["example_id"], row["method"]) for row in examples[:3]] == [
        ("300-0", "fullkv"), ("300-0", "snapkv"), ("300-20", "fullkv"),
    ]  # fmt: skip
    assert len(examples) == 12 and examples[0]["text"]
    state = inspect(file)
    assert (state["state"], state["name"]) == ("finished", "tiny/needle")
    assert {"heatmap", "summary", "by_budget", "by_retention"} <= state["summary"].keys()
    assert state["summary"]["score/fullkv-full"] == wanted["score"][0]
    assert state["config"]["cells"]["snapkv-32"]["method"]["window"] == 8
    assert state["config"]["tasks"]["needle"]["stop_ids"] and state["config"]["provenance"]


def check_cell(text: str, method: str) -> None:
    parts = ["score_low", "score_high", "difference_low", "mean_word_overlap", "retention_bytes"]  # numbers
    parts += ["peak_bytes", "tokens_per_second"]  # what it took
    parts += [
        "heatmap",
        "summary",
        "by_budget",
        "by_retention",
        "image-file",
        "examples",
        "table-file",
    ]  # what is looked at
    parts += ['"stop_ids"', '"provenance"', f'"method": "{method}"', f"methods.{method}."]  # configuration
    for part in parts:
        assert part in text, part


def test_a_grid_is_one_run_with_its_cells_as_rows_curves_images_and_settings(kvgauge: Command, tmp_path: Path) -> None:
    done = kvgauge(*OFFLINE, f"results_dir={tmp_path}")
    assert (done.code, done.err) == (0, "")
    (file,) = run_files(tmp_path)
    check_grid(file, tmp_path)


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


def test_a_grid_goes_on_as_the_same_run_and_another_grid_is_another(kvgauge: Command, tmp_path: Path) -> None:
    words = [*OFFLINE, f"results_dir={tmp_path}"]
    assert kvgauge(*words, "limit=2").code == 0
    assert kvgauge(*words).code == 0
    assert kvgauge("wandb", str(tmp_path), "--mode", "offline").code == 0
    assert kvgauge(*words, "budget=[32,64]").code == 0
    *same, other = (file.stem for file in run_files(tmp_path))
    assert len(same) == 3 and len(set(same)) == 1 and other not in same


def test_a_suite_is_one_run_with_a_row_for_each_task_and_cell(kvgauge: Command, tmp_path: Path) -> None:
    done = kvgauge("tracker=wandb", "tracker.mode=offline", *LONGBENCH, f"results_dir={tmp_path}")
    assert (done.code, done.err) == (0, "")
    again = kvgauge("wandb", str(tmp_path / "tiny/longbench-trec"), "--mode", "offline")
    assert "tiny/longbench: 1 W&B run\n" in again.out  # a suite is sent whole, whatever part is named
    live, repaired = run_files(tmp_path)
    assert live.stem == repaired.stem
    for file in (live, repaired):
        rows = {(row["method"], row["column"]) for row in logged_table(file, "cells")}
        assert {(method, task) for method in ("fullkv", "snapkv") for task in ("trec", "qasper")} <= rows
        assert {row["task"] for row in logged_table(file, "examples")} == {"longbench-trec", "longbench-qasper"}
        assert inspect(file)["config"]["tasks"].keys() == {"longbench-trec", "longbench-qasper"}
    assert [step["progress/prompts"] for step in history(live) if "progress/prompts" in step] == [1, 2]


def test_of_several_shards_the_first_is_shown_and_the_last_sends_the_grid(kvgauge: Command, tmp_path: Path) -> None:
    words = [*OFFLINE, f"results_dir={tmp_path}", "shards=2"]
    assert kvgauge(*words, "shard=0").code == 0
    (live,) = run_files(tmp_path)
    assert [step["progress/prompts"] for step in history(live) if "progress/prompts" in step][-1] == 3
    assert kvgauge(*words, "shard=1").code == 0
    _, last = run_files(tmp_path)
    assert last.stem == live.stem
    check_grid(last, tmp_path)


def test_one_run_per_cell_is_a_choice(kvgauge: Command, tmp_path: Path) -> None:
    done = kvgauge(*OFFLINE, "tracker.per=cell", f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    found = newest(tmp_path)
    assert list(found) == ["fullkv-full", "snapkv-32"]
    for name, text in found.items():
        check_cell(text, name.split("-")[0])
    assert '"window"' in found["snapkv-32"] and "budget:32" in found["snapkv-32"]


class Refused(RuntimeError):
    """What W&B is built on may raise anything."""


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


SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD")


def test_no_secret_of_the_environment_is_in_what_is_written_or_said(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "canary" * 6 + "0000")
    said = [kvgauge(*OFFLINE, f"results_dir={tmp_path}"), kvgauge("wandb", str(tmp_path), "--mode", "offline")]
    assert [done.code for done in said] == [0, 0]
    assert not any("canarycanary" in done.out + done.err for done in said)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {".wandb", ".json", ".log", ".html"} <= {path.suffix for path in written}
    assert not any(b"canarycanary" in path.read_bytes() for path in written)


KILLED = """
import os, signal, sys
import wandb
wandb.Table = lambda **_: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["run.py", *{words!r}]
from harness.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.long
def test_runs_that_a_kill_cut_short_are_made_whole_from_the_records(kvgauge: Command, tmp_path: Path) -> None:
    words = [*OFFLINE, f"results_dir={tmp_path}"]
    # With a service of its own: that of this process would hold the run open.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.format(words=words)], cwd=ROOT, capture_output=True, env=environment
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(run_files(tmp_path)) == 1 and not list((tmp_path / ".wandb").rglob("cells_*.table.json"))
    done = kvgauge("wandb", str(tmp_path), "--mode", "offline")
    assert done.code == 0, done.err
    assert "tiny/needle: 1 W&B run\n" in done.out
    cut, whole = run_files(tmp_path)
    assert cut.stem == whole.stem
    check_grid(whole, tmp_path)


def test_a_part_of_the_results_goes_to_the_folder_of_all_of_them(kvgauge: Command, tmp_path: Path) -> None:
    assert kvgauge(*GRID, f"results_dir={tmp_path}").code == 0
    part = str(tmp_path / "tiny/needle/snapkv-32")
    assert kvgauge("wandb", part, "--mode", "offline", "--per", "cell").code == 0
    assert list(newest(tmp_path)) == ["snapkv-32"]
    assert kvgauge("wandb", part, "--mode", "offline").code == 0
    check_grid(run_files(tmp_path)[-1], tmp_path)  # a grid is sent whole


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--mode", "later"], 2, "tracker.mode=later is unknown"),
        (["--dir", "/proc/x", "--mode", "offline"], 5, "choose another folder with --dir"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(
    words: list[str], code: int, says: str, kvgauge: Command, tmp_path: Path
) -> None:
    assert kvgauge(*GRID, f"results_dir={tmp_path}").code == 0
    done = kvgauge("wandb", str(tmp_path), *words)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert says in done.err


@pytest.mark.parametrize("error", [Refused("no route to host\nmore"), OSError(101, "no route to host")])
def test_a_failing_tracker_is_a_warning_after_everything_else(
    error: Exception, kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def refuse(**_: Any) -> Any:
        raise error

    monkeypatch.setattr(wandb, "init", refuse)
    done = kvgauge(*OFFLINE, f"results_dir={tmp_path}")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert "no route to host" in done.err and "the records are whole; kvgauge wandb sends them" in done.err
    assert str(tmp_path / "report/index.html") in done.out
    assert (tmp_path / "report/index.html").exists()
    alone = kvgauge("wandb", str(tmp_path), "--mode", "offline")
    assert (alone.code, alone.err.count("\n")) == (7, 1)


def test_without_a_key_a_run_ends_as_ever_and_asks_for_nothing(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    done = kvgauge("tracker=wandb", *GRID, f"results_dir={tmp_path / 'results'}")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert "no key: give one with wandb login or WANDB_API_KEY" in done.err
    assert (tmp_path / "results/report/index.html").exists()


def test_the_mode_of_the_environment_counts_where_no_other_is_set(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert kvgauge("tracker=wandb", *GRID, f"results_dir={tmp_path}").err == ""
    assert list(newest(tmp_path)) == ["tiny-needle"]
    monkeypatch.setenv("WANDB_MODE", "online")
    assert kvgauge(*OFFLINE, f"results_dir={tmp_path}").err == ""


@pytest.mark.slow
def test_without_a_network_a_run_ends_within_a_minute(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    before = time.monotonic()
    done = kvgauge("tracker=wandb", "tracker.mode=online", *GRID, f"results_dir={tmp_path}")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert time.monotonic() - before < 60
    assert (tmp_path / "report/index.html").exists()
