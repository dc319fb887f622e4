"""Every command of the README, as it is written there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import Command

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]
RUNS = [line for line in LINES if line.startswith("python run.py")]


@pytest.mark.parametrize("line", RUNS)
def test_the_command_runs(line: str, kvgauge: Command, tmp_path: Path) -> None:
    """A command on a model of the hub is composed and planned on the embedded one, the others run as they are, on short prompts."""
    words = shlex.split(line)[2:]
    if "model=hf" in words:
        words = [word for word in words if not word.startswith(("model=", "model.path=", "task.haystack="))] + ["dry_run=true"]
    if not any(word.startswith("task.lengths") for word in words):
        words.append("task.lengths=[400]")
    done = kvgauge(*words, f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    assert "prefills: " in done.out


def test_every_other_command_is_a_target_of_the_makefile() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    others = [line for line in LINES if line not in RUNS]
    assert others == ["make run", "source .venv/bin/activate", "make check", "make test"]
    assert {line.split()[1] for line in others if line.startswith("make")} <= set(targets)


def test_the_table_of_axes_is_what_there_is() -> None:
    text = (ROOT / "README.md").read_text()
    for group in ("method", "task", "model", "experiment", "tracker"):
        (row,) = re.findall(rf"^\| `{group}` \| (.*) \|$", text, re.MULTILINE)
        names = set(re.findall(r"`(\w+)`", row))
        assert {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} <= names, group
