"""``kvgauge leaderboard``: from a run's records to ranks, and what it cannot rank in one line."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from harness.errors import StoreError
from harness.report.leaderboard import groups, leaderboard
from harness.report.method_costs import read_costs
from harness.results import Cell, CellResult, Record, SuiteResult, TaskResult
from harness.task import Metric
from tests.conftest import ROOT, Command
from tests.documents import without_make

GRID = ("task.lengths=[300]", "task.depths=[0,25,50,75,100]", "task.max_new_tokens=4")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.mark.slow
def test_two_tasks_are_ranked_at_the_shares_that_both_have(kvgauge: Command, results: Path) -> None:
    methods = "method=[fullkv,streamingllm,h2o]"
    assert kvgauge(*GRID, methods, "budget=[20%,50%]", f"results_dir={results}").code == 0
    assert kvgauge(*GRID, methods, "budget=[50%,80%]", "task=needle_magic", f"results_dir={results}").code == 0
    done = kvgauge("leaderboard", str(results))
    assert done.code == 0, done.err
    assert "at 50 %" in done.out and "at 20 %" not in done.out
    assert "needle (5 examples), needle_magic (5 examples)" in done.out
    folder = results / "report" / "tiny"
    assert {f"leaderboard.{kind}" for kind in ("md", "csv", "tex", "png", "html")} <= {
        path.name for path in folder.iterdir()
    }
    raw = pd.read_csv(folder / "leaderboard.csv")
    assert set(raw["method"]) == {"streamingllm", "h2o"} and set(raw["retention"]) == {0.5}
    table = pd.read_csv(results / "report" / "tiny" / "needle" / "table.csv")
    (score,) = table[(table["method"] == "h2o") & (table["budget"] == "50%")]["score"]
    (again,) = raw[(raw["method"] == "h2o") & (raw["group"] == "needle")]["score"]
    assert again == score, "at a budget's own retention the score is the table's"
    first = {path: path.read_bytes() for path in folder.glob("leaderboard.*")}
    kvgauge("leaderboard", str(results))
    assert {path: path.read_bytes() for path in folder.glob("leaderboard.*")} == first
    held = kvgauge("leaderboard", str(results), "--against", "h2o")
    assert "to h2o" in held.out and {"gain", "gain_low", "gain_high"} <= set(pd.read_csv(folder / "leaderboard.csv"))
    beyond = kvgauge("leaderboard", str(results), "--at", "90%")
    told = "No rank, as none reaches 90 % in every task: streamingllm (reaches 49.8 %), h2o (reaches 49.8 %)."
    assert beyond.code == 0 and told in " ".join(beyond.out.split())
    alone = kvgauge("leaderboard", str(results), "--against", "dice")
    assert alone.code == 0 and "No method dice is here to hold the others against." in alone.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--at", "64"], "--at 64 is no share of the prompt below 100 %"),
        (["--at", "100%"], "--at 100% is no share"),
        (["--at", " , "], "names no retention"),
        (["--at", "ten"], "budget=ten is not a budget"),
    ],
)
def test_a_retention_that_is_none_is_one_line(kvgauge: Command, results: Path, words: list[str], message: str) -> None:
    failed = kvgauge("leaderboard", str(results), *words)
    assert failed.code == 2 and message in failed.err and failed.err.count("\n") == 1


def test_results_that_cannot_be_ranked_are_one_line(kvgauge: Command, tmp_path: Path) -> None:
    kvgauge(*GRID, "method=[streamingllm]", "budget=50%", f"results_dir={tmp_path}")
    failed = kvgauge("leaderboard", str(tmp_path))
    assert failed.code == 5 and "add method=fullkv to its grids" in failed.err and failed.err.count("\n") == 1
    kvgauge(*GRID, "method=[fullkv,streamingllm]", "budget=32", f"results_dir={tmp_path}")
    kvgauge(*GRID, "method=[fullkv]", "task=needle_magic", f"results_dir={tmp_path}")
    failed = kvgauge("leaderboard", str(tmp_path))
    assert failed.code == 5 and "name retentions, --at 10%,25%" in failed.err and failed.err.count("\n") == 1


def a_task(name: str, examples: int, note: str = "", score: float = 1.0) -> TaskResult:
    """A task of two cells."""
    cells = [
        CellResult(
            Cell(label, budget),
            examples,
            tuple(
                Record(str(n), {}, (), {}, 1000, None, text="x", scores={"f1": value}, retention=share)
                for n in range(examples)
            ),
        )
        for label, budget, share, value in (("fullkv", "full", 1.0, score), ("h2o", "50%", 0.5, score / 2))
    ]
    return TaskResult("m", name, (Metric("f1", "F1", 1.0),), None, note, tuple(cells), None)


def test_a_dataset_with_too_few_examples_takes_no_interval_from_its_suite() -> None:
    tasks = (a_task("s-a", 6), a_task("s-b", 4), a_task("t", 3))
    named, notes = groups(tasks, [SuiteResult("m", "s", tasks[:2], ())])
    assert {name: [task.task for task in members] for name, members in named.items()} == {"s": ["s-a"], "t": ["t"]}
    assert notes == ["Left out, with fewer than the 5 examples of an interval: s-b (4)."]
    assert notes[0] in leaderboard("m", named, [0.5], notes=notes).document.notes
    few = (a_task("s-a", 4), a_task("s-b", 2))
    assert groups(few, [SuiteResult("m", "s", few, ())]) == ({"s": list(few)}, [])


def test_a_note_is_given_once_and_says_of_which_tasks() -> None:
    tasks = [
        a_task("a", 6, "Little."),
        a_task("b", 6, "Little. Short answers."),
        a_task("c", 6, "Little. Short answers. Cut.", 0.0),
    ]
    notes = leaderboard("m", groups(tasks, [])[0], [0.5]).document.notes
    assert notes[-3:] == ["Little.", "b, c: Short answers.", "c: Cut."]
    assert any("the full cache scores next to nothing (0.00 in c)" in note for note in notes)
    alike = [a_task("a", 6, "Little."), a_task("b", 6, "Little.")]
    assert "Little." in leaderboard("m", groups(alike, [])[0], [0.5]).document.notes


def measured(folder: Path, **changes: object) -> Path:
    """A file of ``kvgauge bench``."""
    raw = [{"cell": f"h2o-{budget}", "tokens": tokens, "overhead": [0.3, 0.1, 0.2]} for budget, tokens in COSTS]
    path = folder / "bench/tiny/methods.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"device": "a core", "cores": 2, "clock": "CPU time"}
    path.write_text(json.dumps({"command": "kvgauge bench", "machine": machine, "raw": raw} | changes))
    return path


COSTS = (("64", 200), ("12%", 1000))


def test_a_methods_cost_is_the_one_that_was_measured_at_the_longest_prompt(tmp_path: Path) -> None:
    assert read_costs(tmp_path, "tiny") is None
    measured(tmp_path)
    costs = read_costs(tmp_path, "tiny")
    assert costs is not None and costs.tokens == 1000 and costs.rounds == 3
    assert costs.overhead == {"h2o": (0.2, 0.1, 0.3)}
    assert read_costs(tmp_path, "another") is None


@pytest.mark.parametrize("raw", [[], [{"cell": "h2o-64"}], "none", [{"cell": "a-1", "tokens": 1, "overhead": ["x"]}]])
def test_costs_that_cannot_be_read_are_one_line(tmp_path: Path, raw: object) -> None:
    path = measured(tmp_path, raw=raw)
    with pytest.raises(StoreError, match=f"{path} is not what kvgauge bench writes: delete it"):
        read_costs(tmp_path, "tiny")


def planned(*words: str) -> list[str]:
    """The commands that ``make leaderboard`` gives, behind those that set up."""
    done = subprocess.run(
        ["make", "-n", "leaderboard", *words], cwd=ROOT, capture_output=True, text=True, env=without_make(), check=True
    )
    text = done.stdout
    assert text.count(" run.py ") == text.count("experiment=leaderboard") - text.count("kvgauge bench ")
    return text[text.index(".venv/bin/python run.py") :].replace("\\\n", " ").splitlines()


def test_without_data_longbench_is_left_out_with_a_note() -> None:
    without, with_data = planned(), planned("DATA=LongBench")
    assert not any("longbench" in line for line in without)
    assert 'echo "leaderboard: without LongBench, which DATA=<its .jsonl files or data.zip> adds"' in without
    assert any("task=longbench 'task.data=\"LongBench\"'" in line for line in with_data)


def test_a_dry_run_of_the_leaderboard_measures_and_writes_nothing() -> None:
    assert not any("kvgauge" in line for line in planned("ARGS=dry_run=true", "DATA=LongBench"))


@pytest.mark.slow
@pytest.mark.long
def test_a_leaderboard_that_was_killed_twice_goes_on_and_loses_and_doubles_nothing(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What make would run, with the embedded model, and LongBench's fixtures in the place of its data."""
    lines = planned(
        "MODEL=tiny", f"BOARD={tmp_path}", "LIMIT=5", "LENGTHS=[800]", "AT=70%", "DATA=tests/fixtures/longbench",
        "DATASETS=[trec,qasper]", "TOKENS=800", "NEW_TOKENS=8", "method=[fullkv,streamingllm,snapkv]",
        "budget=[60%,80%]",
    )  # fmt: skip
    monkeypatch.chdir(ROOT)
    runs = [shlex.split(line)[2:] for line in lines if " run.py " in line]
    rest = [line.replace(".venv/bin/python", sys.executable) for line in lines if " run.py " not in line]
    assert len(runs) == 4 and len(rest) == 2 and lines[4:] == [line for line in lines if " run.py " not in line]
    environment = without_make() | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def killed(words: list[str]) -> None:
        """Begin a run, and kill it when it has written a record."""
        (task,) = (word.removeprefix("task=") for word in words if word.startswith("task="))
        work = subprocess.Popen(
            [sys.executable, "run.py", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while not any(path.stat().st_size for path in tmp_path.glob(f"tiny/{task}/*/records*.jsonl")):
            assert work.poll() is None, work.stderr and work.stderr.read()
            time.sleep(0.05)
        work.kill()
        work.communicate()

    for words in runs[:2]:
        killed(words)
    for words in runs:
        done = kvgauge(*words)
        assert done.code == 0, done.err
    subprocess.run(["bash", "-ec", rest[0]], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert kvgauge(*shlex.split(rest[1])[3:]).code == 0
    cells = list(tmp_path.glob("tiny/*/*/manifest.json"))
    assert len(cells) == 5 * 5
    for cell in cells:
        lines = [line for path in cell.parent.glob("records*.jsonl") for line in path.read_text().splitlines()]
        ids = {json.loads(line)["example_id"] for line in lines}
        assert len(ids) == len(lines) == (3 if "longbench" in str(cell) else 5)  # so many are the fixtures
    board = pd.read_csv(tmp_path / "report/tiny/leaderboard.csv")
    assert set(board["method"]) == {"streamingllm", "snapkv"} and board["score"].notna().all()
    assert "prefill %" in (tmp_path / "report/tiny/leaderboard.md").read_text()
    scored = kvgauge("score", str(tmp_path))
    assert scored.code == 0 and "0 changed" in scored.out
