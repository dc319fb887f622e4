"""``kvgauge leaderboard``: from a run's records to ranks, and what it cannot rank in one line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Command

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
    assert {"leaderboard.md", "leaderboard.csv", "leaderboard.tex", "leaderboard.png"} <= {
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
