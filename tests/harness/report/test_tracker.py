"""W&B offline: what a run sends can be read back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.report.wandb import _settings
from tests.conftest import ROOT, Command
from tests.offline_runs import GRID, OFFLINE, check_grid, history, inspect, logged_table, newest, run_files

LONGBENCH = (
    "method=[fullkv,snapkv]", "budget=32", "task=longbench", f"task.data={ROOT / 'tests/fixtures/longbench'}",
    "task.datasets=[trec,qasper]", "limit=1", "task.max_prompt_tokens=600",
)  # fmt: skip


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


@pytest.mark.usefixtures("pixels")
def test_a_grid_is_one_run_with_its_cells_as_rows_curves_images_and_settings(kvgauge: Command, tmp_path: Path) -> None:
    done = kvgauge(*OFFLINE, f"results_dir={tmp_path}")
    assert (done.code, done.err) == (0, "")
    (file,) = run_files(tmp_path)
    check_grid(file, tmp_path)


@pytest.mark.slow
def test_a_grid_goes_on_as_the_same_run_and_another_grid_is_another(kvgauge: Command, tmp_path: Path) -> None:
    words = [*OFFLINE, f"results_dir={tmp_path}"]
    assert kvgauge(*words, "limit=2").code == 0
    assert kvgauge(*words).code == 0
    assert kvgauge("wandb", str(tmp_path), "--mode", "offline").code == 0
    assert kvgauge(*words, "budget=[32,64]").code == 0
    *same, other = (file.stem for file in run_files(tmp_path))
    assert len(same) == 3 and len(set(same)) == 1 and other not in same


@pytest.mark.slow
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


@pytest.mark.slow
def test_one_run_per_cell_is_a_choice(kvgauge: Command, tmp_path: Path) -> None:
    done = kvgauge(*OFFLINE, "tracker.per=cell", f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    found = newest(tmp_path)
    assert list(found) == ["fullkv-full", "snapkv-32"]
    for name, text in found.items():
        check_cell(text, name.split("-")[0])
    assert '"window"' in found["snapkv-32"] and "budget:32" in found["snapkv-32"]


SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD")


@pytest.mark.usefixtures("pixels")
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
    where = f"offline, in {tmp_path}/.wandb/wandb: `wandb sync <folder>` sends"
    assert "tiny/needle: 1 W&B run\n" in done.out and where in " ".join(done.out.split())
    cut, whole = run_files(tmp_path)
    assert cut.stem == whole.stem
    check_grid(whole, tmp_path)


@pytest.mark.slow
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


class Refused(RuntimeError):
    """What W&B is built on may raise anything."""


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


@pytest.fixture
def fresh() -> None:
    """Of the environment W&B knows what it was when this process first used it, perhaps in another test."""
    import wandb

    wandb.teardown()


@pytest.mark.usefixtures("fresh")
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


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
def test_the_mode_of_the_environment_counts_where_no_other_is_set(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert kvgauge("tracker=wandb", *GRID, f"results_dir={tmp_path}").err == ""
    assert list(newest(tmp_path)) == ["tiny-needle"]
    monkeypatch.setenv("WANDB_MODE", "online")
    assert kvgauge(*OFFLINE, f"results_dir={tmp_path}").err == ""


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
def test_without_a_network_a_run_ends_within_a_minute(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    done = kvgauge("tracker=wandb", "tracker.mode=online", *GRID, f"results_dir={tmp_path}")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert max(_settings().init_timeout, _settings().finish_timeout) <= 60
    assert (tmp_path / "report/index.html").exists()
