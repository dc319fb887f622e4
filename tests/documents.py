"""What a document says is run, and the files it shows are used, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
_CLONE = (
    "run.py",
    "kvgauge",
    "harness",
    "methods",
    "tasks",
    "conf",
    "models",
    "results/published",
    "tests/harness/counts.py",
    "tests/methods/test_contract.py",
)
_OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS", "MODEL", "LIMIT", "DATA")
_OF_A_LARGE_MODEL = ("model=", "model.path=", "task.haystack=<")
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": ""}
# Importing takes longer than any of the commands.
_SESSION = """
import json, shlex, sys
import pytest
from harness.cli import main

for line in json.load(sys.stdin):
    words = shlex.split(line)
    print("$", line)
    if words[:3] == ["python", "-m", "pytest"]:
        code = pytest.main(words[3:])
    else:
        sys.argv = words[1:] if words[0] == "python" else words
        try:
            code = main.main() or 0
        except SystemExit as end:
            code = end.code or 0
    print("exit", int(code))
"""


def blocks(document: Path, *languages: str) -> list[str]:
    """The fenced code blocks in these languages, in order."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(document: Path) -> list[str]:
    """The commands of its shell blocks, in order; one that goes on in the next line is one."""
    return [line for block in blocks(document, "sh") for line in block.replace("\\\n", "").splitlines() if line]


def files(document: Path) -> dict[str, str]:
    """The code blocks that say in a comment which file they are, by that file's path."""
    named = [
        (re.search(r"^# (\w+/\S+\.(?:py|yaml))$", block, re.MULTILINE), block)
        for block in blocks(document, "python", "yaml")
    ]
    return {path[1]: block for path, block in named if path}


def own_task() -> dict[str, str]:
    """The files of the task that docs/extending.md puts outside the clone, by their paths beside it."""
    shown = blocks(ROOT / "docs/extending.md", "python", "yaml")
    named = [(re.match(r"# \.\./(my-tasks/\S+)\n", block), block) for block in shown]
    return {path[1]: block for path, block in named if path}


def clone(to: Path) -> Path:
    """A copy of all that a run and a method's tests need."""
    for name in _CLONE:
        source, target = ROOT / name, to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return to


def python(folder: Path, *words: str, path: Path | str = "") -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, offline; ``path`` is where it finds the project, if not in that folder."""
    environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": str(path)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


def session(folder: Path, lines: Sequence[str]) -> list[tuple[int, str]]:
    """Give commands one after the other in a folder, and return exit codes and what was printed."""
    environment = {**os.environ, **_ENVIRONMENT}
    words = [sys.executable, "-u", "-c", _SESSION]
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        input=json.dumps(lines),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return [
        (int(code), text)
        for text, code in re.findall(r"^\$ .*?\n(.*?)^exit (\d+)$", done.stdout, re.MULTILINE | re.DOTALL)
    ]


def embedded(words: Sequence[str]) -> list[str]:
    """A run of a model that is not here becomes the plan of the same run on the embedded one; any other stays as it
    is. A GGUF file is here: a little one."""
    if not any(word.startswith("model=") for word in words) or any(word.endswith(".gguf") for word in words):
        return list(words)
    return [word for word in words if not word.startswith(_OF_A_LARGE_MODEL)] + ["model.name=planned", "dry_run=true"]


def made(line: str, **variables: str) -> list[str]:
    """What follows ``run.py`` in the last command that make would run, with other values of its variables."""
    words = [word for word in shlex.split(line) if word.partition("=")[0] not in variables]
    words += [f"{name}={value}" for name, value in variables.items()] + ["--dry-run", "--no-print-directory"]
    done = subprocess.run(words, cwd=ROOT, env=without_make(), capture_output=True, text=True, check=True)
    printed = done.stdout.splitlines()
    return shlex.split(printed[-1])[2:]


def without_make() -> dict[str, str]:
    """The environment without the variables of a make that started the tests."""
    return {name: value for name, value in os.environ.items() if name not in _OF_MAKE}


def targets() -> set[str]:
    """Of the Makefile."""
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
