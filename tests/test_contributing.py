"""CONTRIBUTING's example method, as it stands there: in two files it runs, and the contract test covers it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.documents import ROOT, clone, files, session

EXAMPLE = files(ROOT / "CONTRIBUTING.md")
NAME = Path(next(iter(EXAMPLE))).stem


@dataclass(frozen=True)
class Copy:
    """A copy of the repository with the example's files, and what its tests and a run of it printed."""

    folder: Path
    tested: tuple[int, str]
    ran: tuple[int, str]


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    folder = clone(tmp_path_factory.mktemp("copy"))
    for name, block in EXAMPLE.items():
        assert not (ROOT / name).exists(), f"{name} of the example is a file of the project"
        (folder / name).write_text(block, encoding="utf-8")
    tests = f"python -m pytest -q -p no:cacheprovider -k {NAME} tests/methods/test_contract.py"
    run = f"python run.py method=[fullkv,{NAME}] budget=[32] task.lengths=[300] task.depths=[50]"
    tested, ran = session(folder, [tests, run])
    return Copy(folder, tested, ran)


def test_the_example_is_two_files() -> None:
    (module, configuration) = sorted(EXAMPLE, reverse=True)
    assert re.fullmatch(r"methods/\w+\.py", module)
    assert configuration == f"conf/method/{Path(module).stem}.yaml"


@pytest.mark.slow
def test_the_example_method_runs_from_two_files_alone(copy: Copy) -> None:
    code, printed = copy.ran
    assert code == 0, printed
    assert "prefills: 1; cells: 2; new records: 2" in printed
    assert [line.split()[1] for line in printed.splitlines() if line.startswith(f"{NAME} ")] == ["32"]
    (cell,) = (copy.folder / "results").glob(f"*/needle/{NAME}-32")
    records = [json.loads(line) for line in (cell / "records.0.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [set(record["kept"]) for record in records] == [{32}]
    assert records[0]["error"] is None
    assert json.loads((cell / "manifest.json").read_text(encoding="utf-8"))["settings"]["method"]["window"] == 8


@pytest.mark.slow
def test_the_contract_test_covers_the_example_unlisted(copy: Copy) -> None:
    code, printed = copy.tested
    assert code == 0, printed
    assert int(re.findall(r"(\d+) passed", printed)[0]) > 10
