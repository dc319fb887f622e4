"""``kvgauge data``: what is there of a benchmark's files, and what is wrong with them."""

from __future__ import annotations

import re
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from omegaconf import MissingMandatoryValue

from harness.config.build import build, task_config
from harness.errors import ConfigError, DataError
from harness.task import DataSource
from tasks.longbench.data import RECORDS, RECORDS_E
from tests.conftest import Command

DATA = Path(__file__).parents[4] / "tests/fixtures/longbench"
REAL = Path(__file__).parents[5] / "shared/data/longbench"


@pytest.fixture
def three_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the tests' records were all that was published."""
    monkeypatch.setattr("tasks.longbench.suite.RECORDS", dict.fromkeys(RECORDS, 3))
    monkeypatch.setattr("tasks.longbench.suite.RECORDS_E", dict.fromkeys(RECORDS_E, 3))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in DATA.iterdir():
            archive.write(path, f"data/{path.name}")
    return tmp_path / "data.zip"


def rows(out: str) -> dict[str, list[str]]:
    return {
        words[0]: words[1:]
        for line in out.splitlines()
        if len(words := line.split()) == 3 and words[0].endswith(".jsonl")
    }


@pytest.mark.usefixtures("three_each")
def test_a_whole_copy_is_shown_file_by_file(kvgauge: Command, archive: Path) -> None:
    for path in (DATA, archive):
        done = kvgauge("data", "check", str(path))
        assert done.code == 0, done.err
        assert rows(done.out) == {f"{name}.jsonl": ["3", "3"] for name in (*RECORDS, *RECORDS_E)}
        assert done.out.endswith("34 of 34 files are there, as published\n")


@pytest.mark.usefixtures("three_each")
def test_a_part_is_no_mistake_of_a_copy_but_is_one_of_what_was_fetched(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "part"
    part.mkdir()
    for name in ("trec", "lcc_e"):
        shutil.copy(DATA / f"{name}.jsonl", part)
    done = kvgauge("data", "check", str(part))
    assert done.code == 0, done.err
    assert rows(done.out)["trec.jsonl"] == ["3", "3"]
    assert rows(done.out)["lcc.jsonl"] == ["–", "3"]
    assert "2 of 34 files are there, as published" in done.out
    monkeypatch.setattr("tasks.files.Hub.fetch", lambda _: part)
    fetched = kvgauge("data", "longbench")
    assert fetched.code == 3
    assert "0 of 34 files are wrong and 32 not there: " in fetched.err


@pytest.mark.usefixtures("three_each")
def test_data_that_is_fetched_is_verified(kvgauge: Command, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.files.Hub.fetch", lambda _: archive)
    done = kvgauge("data", "longbench")
    assert done.code == 0, done.err
    assert done.out.startswith(f"{archive}\n")
    assert "34 of 34 files are there" in done.out


def test_what_is_wrong_stands_below_the_table_line_by_line(kvgauge: Command, tmp_path: Path) -> None:
    data = Path(shutil.copytree(DATA, tmp_path / "data"))
    for path in data.iterdir():
        if path.stem not in ("trec", "lcc", "qasper"):
            path.unlink()
    (data / "lcc.jsonl").write_bytes((data / "lcc.jsonl").read_bytes()[:-30])
    (data / "qasper.jsonl").write_text("")
    done = kvgauge("data", "check", str(data))
    assert done.code == 3
    assert rows(done.out)["trec.jsonl"] == ["3", "200"]
    assert (rows(done.out)["lcc.jsonl"], rows(done.out)["qasper.jsonl"]) == (["–", "500"], ["–", "200"])
    below = done.out.replace("\n  ", " ").splitlines()[-3:]
    assert below[0].startswith("qasper.jsonl holds no record: ")
    assert below[1].startswith("trec.jsonl holds 3 records, not the 200 that were published: ")
    assert below[2].startswith("line 3 of lcc.jsonl is not JSON")
    assert done.err.count("\n") == 1
    assert "3 of 34 files are wrong: " in done.err


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared")
def test_real_files_are_as_published(kvgauge: Command) -> None:
    done = kvgauge("data", "check", str(REAL))
    assert done.code == 0, done.err
    assert "3 of 34 files are there, as published" in done.out


def test_the_tasks_that_the_error_names_have_data_and_no_other_kind_has(kvgauge: Command) -> None:
    named = re.findall(r"\w+", kvgauge("data", "check", str(DATA), "--task", "needle").err.rpartition(": use ")[2])
    presets = [path.stem for path in (DATA.parents[2] / "conf/task").glob("*.yaml")]
    kinds = set()
    for name in presets:
        with suppress(ConfigError, DataError, MissingMandatoryValue):  # a task of the user's data
            built = build(task_config(name))
            if isinstance(built, DataSource):
                kinds.add(type(built))
    assert {type(build(task_config(name))) for name in named if name != "or"} == kinds


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "the following arguments are required: TASK|check"),
        (["check"], 2, "got no path: give a folder or a zip"),
        (["check", "/nowhere"], 3, "/nowhere does not exist"),
        (["check", __file__], 3, "is no zip, or was cut"),
        (["check", str(DATA.parent)], 3, "holds none of the 34 files: "),
        (["check", str(DATA), "--task", "tokens"], 2, "task.prompts is not set"),
        (["check", str(DATA), "--task", "needle"], 2, "task=needle has no data files"),
        (["longbench", "x"], 2, "takes no path: "),
        (["longbanch"], 2, "task=longbanch is not there: did you mean longbench?"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(kvgauge: Command, words: list[str], code: int, message: str) -> None:
    failed = kvgauge("data", *words)
    assert failed.code == code, failed.err
    assert message in failed.err
    assert failed.err.startswith("kvgauge: ")
    assert failed.err.count("\n") == 1, failed.err
