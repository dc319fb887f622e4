"""CONTRIBUTING's example method, as it stands there: in two files it runs, and the contract test covers it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("run.py", "harness", "methods", "tasks", "conf", "models", "results/published", "tests/methods/test_contract.py")


def example() -> dict[str, str]:
    """The code blocks that say in a comment which file they are, by that file's path."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:python|yaml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    named = [(re.search(r"^# (\w+/\S+\.(?:py|yaml))$", block, re.MULTILINE), block) for block in blocks]
    return {path[1]: block for path, block in named if path}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository with the example's files in it."""
    for name in COPIED:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for name, block in example().items():
        assert not (ROOT / name).exists(), f"{name} of the example is a file of the project"
        (tmp_path / name).write_text(block, encoding="utf-8")
    return tmp_path


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_example_is_two_files() -> None:
    (module, configuration) = sorted(example(), reverse=True)
    assert re.fullmatch(r"methods/\w+\.py", module)
    assert configuration == f"conf/method/{Path(module).stem}.yaml"


def test_the_example_method_runs_from_two_files_alone(copy: Path) -> None:
    name = Path(next(iter(example()))).stem
    done = python(copy, "run.py", f"method=[fullkv,{name}]", "budget=[32]", "task.lengths=[300]", "task.depths=[50]")
    assert done.returncode == 0, done.stderr
    assert "prefills: 1; cells: 2; new records: 2" in done.stdout
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith(f"{name} ")] == ["32"]
    cell = copy / f"results/tiny-random/needle/{name}-32"
    records = [json.loads(line) for line in (cell / "records.0.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [set(record["kept"]) for record in records] == [{32}]
    assert records[0]["error"] is None
    assert json.loads((cell / "manifest.json").read_text(encoding="utf-8"))["settings"]["method"]["window"] == 8


def test_the_contract_test_covers_the_example_unlisted(copy: Path) -> None:
    name = Path(next(iter(example()))).stem
    done = python(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", name, "tests/methods/test_contract.py")
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 10
