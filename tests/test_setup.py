"""What ``make setup`` installs fits every Python that the project promises."""

from __future__ import annotations

import shlex
import subprocess
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.documents import without_make

ROOT = Path(__file__).parents[1]


def test_every_pinned_version_runs_on_the_oldest_python() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.lower().replace("_", "-") for line in lines if not line.startswith("#")}
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = promised.removeprefix(">=") + ".0"
    installed = {
        f"{held.name}=={held.version}".lower().replace("_", "-"): held.metadata["Requires-Python"]
        for held in distributions()
    }
    known = pinned & installed.keys()
    if len(known) < 0.9 * len(pinned):
        pytest.skip(
            f"{len(known)} of {len(pinned)} are installed here in the pinned version, and what the others need is "
            f"not "
            f"known"
        )
    assert [name for name in known if not SpecifierSet(installed[name] or "").contains(oldest)] == []


def planned(*words: str) -> str:
    """What make would do."""
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, env=without_make())
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_settings_of_a_run_can_be_given_to_make() -> None:
    words = {"method=snapkv", "budget=[64,12%]", "task.lengths=[300]"}
    *_, line = planned("run", "MODEL=tiny", *words, "ARGS=limit=2").splitlines()
    assert set(shlex.split(line)[1:]) == {"run.py", "model=tiny", "limit=2"} | words
    *_, line = planned("needle", "MODEL=tiny", "LIMIT=2", "method=snapkv").splitlines()
    assert shlex.split(line)[1:] == ["run.py", "model=tiny", "limit=2", "experiment=needle_published", "method=snapkv"]


@pytest.mark.parametrize(
    ("target", "develops"), [("run", False), ("longbench", False), ("test", True), ("check", True), ("docs", True)]
)
def test_a_run_installs_what_runs_need_and_tests_what_development_needs(target: str, develops: bool) -> None:
    commands = planned("-B", target)
    assert "compileall" in commands
    assert ("-e .[dev]" in commands, "-e .[submitit]" in commands) == (develops, not develops)
