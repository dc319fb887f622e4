"""CONTRIBUTING's example method, as it stands there: in two files it runs, and the contract test covers it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.documents import ROOT, clone, files, python

EXAMPLE = files(ROOT / "CONTRIBUTING.md")
NAME = Path(next(iter(EXAMPLE))).stem


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository with the example's files in it."""
    clone(tmp_path)
    for name, block in EXAMPLE.items():
        assert not (ROOT / name).exists(), f"{name} of the example is a file of the project"
        (tmp_path / name).write_text(block, encoding="utf-8")
    return tmp_path


def test_the_example_is_two_files() -> None:
    (module, configuration) = sorted(EXAMPLE, reverse=True)
    assert re.fullmatch(r"methods/\w+\.py", module)
    assert configuration == f"conf/method/{Path(module).stem}.yaml"


def test_the_example_method_runs_from_two_files_alone(copy: Path) -> None:
    done = python(copy, "run.py", f"method=[fullkv,{NAME}]", "budget=[32]", "task.lengths=[300]", "task.depths=[50]")
    assert done.returncode == 0, done.stderr
    assert "prefills: 1; cells: 2; new records: 2" in done.stdout
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith(f"{NAME} ")] == ["32"]
    (cell,) = (copy / "results").glob(f"*/needle/{NAME}-32")
    records = [json.loads(line) for line in (cell / "records.0.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [set(record["kept"]) for record in records] == [{32}]
    assert records[0]["error"] is None
    assert json.loads((cell / "manifest.json").read_text(encoding="utf-8"))["settings"]["method"]["window"] == 8


def test_the_contract_test_covers_the_example_unlisted(copy: Path) -> None:
    done = python(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", NAME, "tests/methods/test_contract.py")
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 10
