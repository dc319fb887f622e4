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

import pytest

from tests.conftest import ROOT, Command

GRID = (
    "method=[fullkv,snapkv]",
    "budget=32",
    "task.lengths=[300]",
    "task.depths=[0,20,40,60,80,100]",
)  # enough for intervals
OFFLINE = ("tracker=wandb", "tracker.mode=offline", *GRID)


def inspect(file: Path) -> dict[str, Any]:
    """The state, configuration and summary of an offline run, as W&B's own reader has them."""
    wandb = Path(sys.executable).parent / "wandb"
    done = subprocess.run(
        [str(wandb), "leet", "inspect", "--summary", "--json", str(file)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def newest(folder: Path) -> dict[str, str]:
    """What the last file of each run holds, by the run's name."""
    files = sorted((folder / ".wandb").rglob("run-*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    return {file.stem.removeprefix("run-").rsplit("-", 1)[0]: json.dumps(inspect(file)) for file in files}


def check_whole(text: str, method: str) -> None:
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


def test_one_offline_run_per_cell_holds_scores_table_images_and_settings(kvgauge: Command, tmp_path: Path) -> None:
    done = kvgauge(*OFFLINE, f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    found = newest(tmp_path)
    assert list(found) == ["fullkv-full", "snapkv-32"]
    for name, text in found.items():
        check_whole(text, name.split("-")[0])
    assert '"window"' in found["snapkv-32"] and "budget:32" in found["snapkv-32"]


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
    files = list((tmp_path / ".wandb").rglob("run-*.wandb"))
    assert len(files) == 1 and b"score_low" not in files[0].read_bytes()
    done = kvgauge("wandb", str(tmp_path), "--mode", "offline")
    assert done.code == 0, done.err
    assert "tiny/needle: 2 W&B runs" in done.out
    found = newest(tmp_path)
    assert sorted(found) == ["fullkv-full", "snapkv-32"]
    for name, text in found.items():
        check_whole(text, name.split("-")[0])


def test_a_part_of_the_results_goes_to_the_folder_of_all_of_them(kvgauge: Command, tmp_path: Path) -> None:
    assert kvgauge(*GRID, f"results_dir={tmp_path}").code == 0
    assert kvgauge("wandb", str(tmp_path / "tiny/needle/snapkv-32"), "--mode", "offline").code == 0
    assert list(newest(tmp_path)) == ["snapkv-32"]


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
    assert list(newest(tmp_path)) == ["fullkv-full", "snapkv-32"]
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
