"""Shards beside each other: by hand, by submitit and by Ray; killed at any moment, and one of them for good."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml

from harness.launchers import _tell_outcomes
from harness.launchers.work import Job, Outcome
from harness.run.signals import Relay
from tests.conftest import KILLS, ROOT, Command
from tests.harness.folders import outcome
from tests.harness.launchers.mortal import Mortal

# Before any test: it sets up logging when it is imported, which is to have the streams of the process and not those of
# one test.
pytest.importorskip("submitit")
from harness.launchers import local

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
LAUNCHERS = {
    "local": ("hydra/launcher=local", "hydra.launcher.at_once=3", "hydra.launcher.retries=1000"),
    "ray": (
        "hydra/launcher=ray",
        "hydra.launcher.num_gpus=0",
        "hydra.launcher.retries=-1",
        "+hydra.launcher.init.num_cpus=3",
    ),
}


def grid(folder: Path, prompts: int) -> tuple[str, ...]:
    """Three cells, one prompt in a batch."""
    ids = {f"p{i}": [0, *((7 * k * k + i) % 1000 + 2 for k in range(39 + i % 40))] for i in range(prompts)}
    (folder / "prompts.json").write_text(json.dumps(ids))
    words = ("method=[fullkv,snapkv,h2o]", "budget=32", "task=tokens", "task.max_new_tokens=8", "engine.width=1")
    return (*words, f"task.prompts={folder / 'prompts.json'}")


@contextmanager
def started(words: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A command in a session of its own, of which nothing is left afterwards."""
    with (folder / "printed.txt").open("a") as printed:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *words],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=printed,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    children: list[psutil.Process] = []
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
        for left in [*children, process]:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                left.kill()
        process.wait()


def workers(launcher: int) -> list[int]:
    """The processes below a launcher that run a shard."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(launcher).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                words = " ".join(child.cmdline())
                if "submitit.core._submit" in words or words.startswith("ray::shard"):
                    found.append(child.pid)
    return found


def at_work(results: Path) -> set[int]:
    """The processes that have begun to compute and not ended."""
    texts = (path.read_text() for path in results.glob("tiny/tokens/runs.*.jsonl"))
    lines = [json.loads(line) for text in texts for line in text.splitlines() if line.endswith("}")]
    return {line["pid"] for line in lines} - {line["pid"] for line in lines if line["outcome"] != "running"}


def whole_lines(results: Path) -> dict[str, list[bytes]]:
    return {
        str(path): path.read_bytes().split(b"\n")[:-1] for path in sorted(results.glob("tiny/tokens/*/records.*.jsonl"))
    }


@pytest.mark.slow
def test_a_job_that_is_killed_starts_again_as_often_as_is_said(tmp_path: Path) -> None:
    jobs = [Mortal((), f"killed {kills} times", str(tmp_path), kills) for kills in range(4)]
    told: list[str] = []
    outcomes = local.run(jobs, local.Settings(at_once=2, retries=2, timeout_min=5), tmp_path, Relay(), told.append)
    assert [outcome.code for outcome in outcomes] == [0, 0, 0, 137]
    assert [len((tmp_path / f"{job.name}.starts").read_text()) for job in jobs] == [1, 2, 3, 3]
    assert outcomes[3].text == "its process was killed 3 times, and is not started again"
    again = [line for line in told if "was killed" in line]
    assert sorted(again) == sorted(
        f"killed {kills} times was killed: start {start}" for kills, start in [(1, 2), (2, 2), (2, 3), (3, 2), (3, 3)]
    )


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_workers_killed_at_random_moments_lose_and_double_nothing(
    launcher: str, kvgauge: Command, tmp_path: Path
) -> None:
    """Three shards; most kills come when the worker computes, some at any moment of its life."""
    if launcher == "ray":
        pytest.importorskip("ray")
    words, results = grid(tmp_path, 9 + 9 * KILLS), tmp_path / "disturbed"
    assert kvgauge(*words, f"results_dir={tmp_path / 'undisturbed'}").code == 0
    draw, while_computing = random.Random(7), 0
    killed: set[int] = set()  # on a busy machine a killed process takes a while to go
    seen: dict[str, list[bytes]] = {}
    begun = time.monotonic()
    with started([*LAUNCHERS[launcher], "shards=3", *words, f"results_dir={results}"], tmp_path) as process:
        any_moment = False
        while len(killed) < KILLS and process.poll() is None:
            alive = [pid for pid in workers(process.pid) if pid not in killed]
            busy = [pid for pid in alive if pid in at_work(results)]
            victims = alive if any_moment else busy
            if not victims:
                time.sleep(0.1)
                continue
            victim = draw.choice(victims)
            time.sleep(draw.uniform(0, 0.6))
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
                while_computing += not any_moment
            any_moment = draw.random() < 0.2
            for path, lines in whole_lines(results).items():
                assert lines[: len(seen.get(path, []))] == seen.get(path, []), (
                    "an acknowledged record is gone or changed"
                )
                seen[path] = lines
        code = process.wait(1800)
    print(
        f"{launcher}: {len(killed)} kills, {while_computing} of them while it computed, in "
        f"{time.monotonic() - begun:.0f} s"
    )
    assert len(killed) == KILLS, "the grid is too small for so many kills"
    assert code == 0, (tmp_path / "printed.txt").read_text()
    assert outcome(results) == outcome(tmp_path / "undisturbed")
    assert all(len(cell["records"]) == len(set(cell["records"])) == 9 + 9 * KILLS for cell in outcome(results).values())


@pytest.mark.slow
def test_a_launch_ends_with_its_jobs_the_table_and_the_page_in_15_lines_of_100_columns(
    kvgauge: Command, prompts_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ("method=published", "budget=[32,48,64]", "task=tokens", f"task.prompts={prompts_file.name}")
    done = kvgauge(
        "-m", "hydra/launcher=local", "shards=2", "shard=0,1", *words, "task.max_new_tokens=2", "results_dir=r"
    )
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    end = lines[next(place for place, line in enumerate(lines) if line.endswith("jobs are done")) :]
    assert end[0] == "2 of 2 jobs are done" and len(end) <= 15 and max(map(len, end)) <= 100
    assert any(line.split()[:1] == ["pyramidkv"] for line in end), "the table"
    assert any(line.startswith(("bytes % above 100", "no interval: fewer than 5 examples")) for line in end), "a note"
    assert end[-2:] == ["tables and plots: r/report/tiny/tokens", "page: r/report/index.html"]


def test_of_many_jobs_that_failed_the_first_ones_are_told_of() -> None:
    jobs = [Job((), f"shard {k} of 30", "") for k in range(30)]
    told: list[str] = []
    _tell_outcomes(jobs, [Outcome(int(k % 2), "its end") for k in range(30)], told.append)
    assert told[:2] == ["shard 1 of 30: its end", "shard 3 of 30: its end"]
    assert told[10:] == ["and 5 more, whose logs say how they ended", "15 of 30 jobs are done"]


SBATCH = """#!/bin/sh
cp "$1" {folder}/script.sh
echo "Submitted batch job 4711"
"""


def test_slurm_gets_one_array_that_is_queued_again_and_told_before_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Slurm is here: an sbatch that keeps the script shows what a cluster would get."""
    from harness.launchers.slurm import Settings, queued

    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH.format(folder=tmp_path)), ("srun", "#!/bin/sh\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    preset = yaml.safe_load((ROOT / "conf/hydra/launcher/slurm.yaml").read_text())
    settings = {name: value for name, value in preset.items() if name not in ("_target_", "backend")}
    jobs = [Job((f"shard={k}",), f"shard {k} of 3", str(tmp_path)) for k in range(3)]
    submitted = queued(
        jobs, Settings(**settings | {"at_once": 2, "partition": "gpu", "sbatch": {"account": "me"}}), tmp_path / "logs"
    )
    assert [job.job_id for job in submitted] == ["4711_0", "4711_1", "4711_2"]
    script = (tmp_path / "script.sh").read_text()
    for line in (
        "--array=0-2%2",
        "--requeue",
        "--signal=USR2@120",
        "--time=240",
        "--partition=gpu",
        "--gpus-per-node=1",
        "--account=me",
    ):
        assert f"#SBATCH {line}\n" in script, line
    assert "submitit.core._submit" in script
    with submitted[1].paths.submitted_pickle.open("rb") as file:
        assert pickle.load(file).function == jobs[1]
    assert jobs[1].checkpoint().function == jobs[1]


def test_a_machine_without_slurm_is_one_line(kvgauge: Command, tmp_path: Path) -> None:
    failed = kvgauge("hydra/launcher=slurm", "shards=2", f"results_dir={tmp_path}")
    assert failed.code == 2 and failed.err.count("\n") == 1
    assert 'Slurm takes no jobs from here (Could not detect "srun"' in failed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dry_run=true"], "dry_run=true plans a run"),
        (["hydra.launcher.retries=x"], "retries=x"),
        (["hydra.launcher.at_once=0"], "hydra.launcher.at_once=0 is not a whole number of 1 or more"),
        (["+hydra.launcher.foo=1"], "hydra.launcher.foo is not a setting: use at_once"),
        (["hydra.launcher.backend=work"], "hydra.launcher.backend=work is unknown: use hydra/launcher=local"),
        (["hydra.sweep.dir=/dev/null/x"], "hydra.sweep.dir=/dev/null/x cannot be written"),
    ],
)
def test_a_launch_that_cannot_be_is_one_line(kvgauge: Command, tmp_path: Path, words: list[str], message: str) -> None:
    failed = kvgauge("hydra/launcher=local", *words, f"results_dir={tmp_path}")
    assert failed.code == 2 and failed.err.count("\n") == 1 and message in failed.err
