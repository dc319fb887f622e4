"""What a command does not need it does not import."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command

LOADED = """
import json, sys
from harness.cli.main import main
sys.argv = json.loads(sys.argv[1])
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*(name for name in json.loads(sys.stdin.read()) if name in sys.modules), sep=",")
"""


def loaded(words: list[str], names: list[str]) -> set[str]:
    """Those of some modules that a command has imported when it ends."""
    command = [sys.executable, "-c", LOADED, json.dumps(["kvgauge", *words])]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(names), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(filter(None, done.stdout.splitlines()[-1].split(",")))


@pytest.fixture
def results(kvgauge: Command, tmp_path: Path) -> Path:
    """A task with a heatmap, and two of a suite: of Chinese answers and of code."""
    folder = tmp_path / "results"
    grid = ["method=snapkv", "budget=32", "limit=1", f"results_dir={folder}"]
    suite = [
        "task=longbench",
        f"task.data={ROOT / 'tests/fixtures/longbench'}",
        "task.datasets=[multifieldqa_zh,lcc]",
        "task.max_prompt_tokens=100",
    ]
    for task in (["task.lengths=[300]", "task.depths=[50]"], suite):
        done = kvgauge(*grid, *task)
        assert done.code == 0, done.err
    return folder


@pytest.mark.parametrize("command", ["bench", "verify"])
def test_help_of_commands_that_compute_loads_no_model_library(command: str) -> None:
    assert not loaded([command, "--help"], ["torch", "transformers", "hydra"])


@pytest.mark.slow
def test_commands_that_read_results_load_no_model_library(results: Path) -> None:
    names = ["torch", "transformers", "datasets", "hydra", "omegaconf"]
    for words in (["status"], ["report"], ["score"], ["compare", str(results)]):
        assert not loaded([words[0], str(results), *words[1:]], names), words
    assert not loaded(["list"], [*names, "msgspec", "pandas"])


@pytest.mark.slow
def test_a_dry_run_loads_nothing_that_computes_or_draws() -> None:
    others = [
        "matplotlib",
        "pandas",
        "rouge_score",
        "nltk",
        "datasets",
        "transformers.modeling_utils",
        "harness.run.execute",
    ]
    assert loaded(["dry_run=true", "task.lengths=[300]", "task.depths=[50]"], ["transformers", *others]) == {
        "transformers"
    }


def test_garbage_is_collected_again_whatever_becomes_of_a_run(kvgauge: Command) -> None:
    assert kvgauge("dry_run=true", "task.lengths=[300]", "task.depths=[50]").code == 0 and gc.isenabled()
    assert kvgauge("budget=0").code == 2 and gc.isenabled()
