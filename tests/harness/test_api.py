"""kvgauge from Python: the same numbers as the command line, in memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, AutoTokenizer

import kvgauge
from harness.compression.scorers import FirstTokens
from tests.conftest import ROOT, Command
from tests.documents import blocks

GRID = {"task.lengths": [300], "task.depths": [0, 100]}


@dataclass(frozen=True)
class Earliest(kvgauge.Method):
    """A method of a user's own: the first tokens win."""

    window: int = 8

    @property
    def scorer(self) -> FirstTokens:
        return FirstTokens(self.window)


@pytest.fixture
def command(request: pytest.FixtureRequest) -> Command:
    """The command line; under another name, as this file has the package's."""
    run: Command = request.getfixturevalue("kvgauge")
    return run


@pytest.fixture(scope="module")
def result() -> kvgauge.Result:
    return kvgauge.run("tiny", "needle", ["fullkv", "snapkv"], [32], settings=GRID)


def test_a_run_in_memory_gives_the_records_of_the_command_and_writes_nothing(
    result: kvgauge.Result, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("method=[fullkv,snapkv]", "budget=32", "task.lengths=[300]", "task.depths=[0,100]")
    assert command(*words, f"results_dir={tmp_path / 'results'}").code == 0
    on_disk = kvgauge.read(tmp_path / "results")
    assert result.records() == on_disk.records() and len(result.records()) == 4
    assert result.table().equals(on_disk.table())
    monkeypatch.chdir(tmp_path)
    kvgauge.run("tiny", "needle", "snapkv", 32, limit=1, settings=GRID)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_run_on_a_folder_goes_on_from_what_is_there(result: kvgauge.Result, tmp_path: Path) -> None:
    first = kvgauge.run(
        "tiny", "needle", ["fullkv", "snapkv"], [32], limit=1, results=tmp_path / "results", settings=GRID
    )
    assert len(first.records()) == 2
    whole = kvgauge.run("tiny", "needle", ["fullkv", "snapkv"], [32], results=tmp_path / "results", settings=GRID)
    assert whole.records() == result.records()
    (file,) = (tmp_path / "results/tiny/needle/snapkv-32").glob("records.*.jsonl")
    assert len(file.read_text().splitlines()) == 2, "the first example was not computed again"


def test_an_engine_that_is_loaded_once_serves_many_runs(result: kvgauge.Result) -> None:
    engine = kvgauge.Engine.load(ROOT / "models/tiny", dtype="float32")
    for _ in range(2):
        again = kvgauge.run(engine, "needle", ["fullkv", "snapkv"], [32], settings=GRID)
        assert [record["tokens"] for record in again.records()] == [record["tokens"] for record in result.records()]


def test_a_transformers_model_in_memory_is_an_engine_too(result: kvgauge.Result) -> None:
    model = AutoModelForCausalLM.from_pretrained(ROOT / "models/tiny", dtype="float32")
    engine = kvgauge.Engine.wrap(model, AutoTokenizer.from_pretrained(ROOT / "models/tiny"), name="mine")
    again = kvgauge.run(engine, "needle", ["fullkv", "snapkv"], [32], settings=GRID)
    assert [record["tokens"] for record in again.records()] == [record["tokens"] for record in result.records()]
    assert {record["model"] for record in again.records()} == {"mine"}


def test_methods_of_ones_own_stand_beside_the_named_ones() -> None:
    made = kvgauge.run("tiny", "needle", ["snapkv", Earliest("earliest")], [32], limit=1, settings=GRID)
    assert made.table()["method"].tolist() == ["snapkv", "earliest"]
    assert {entries for record in made.records() for entries in record["kept"]} == {32}


def test_storages_are_an_axis_beside_methods_and_budgets() -> None:
    wanted = {**GRID, "storage.int4.residual": 8}
    made = kvgauge.run(methods="snapkv", budgets=32, storages=["exact", "int4"], limit=1, settings=wanted)
    exact, packed = made.records()
    assert made.table()["method"].tolist() == ["snapkv", "snapkv+int4"]
    assert (packed["kept"], packed["bits"]) == (exact["kept"], (24 * 6 + 8 * 32) / 32)
    with pytest.raises(kvgauge.KvgaugeError, match="storage=int3 is not there: did you mean int"):
        kvgauge.run(storages="int3")


def test_a_method_of_ones_own_needs_no_named_one_beside_it() -> None:
    made = kvgauge.run(methods=[Earliest("earliest")], budgets=32, limit=1, settings=GRID)
    assert made.table()["method"].tolist() == ["earliest"]


def test_a_table_a_heatmap_and_a_page_are_made_from_memory(result: kvgauge.Result, tmp_path: Path) -> None:
    table = result.table()
    assert table[["model", "task", "method", "budget", "n"]].to_numpy().tolist() == [
        ["tiny", "needle", "fullkv", "full", 2],
        ["tiny", "needle", "snapkv", "32", 2],
    ]
    figure = result.heatmap()
    assert isinstance(figure, Figure) and len(figure.axes) == 3, "two panels and a scale"
    page = result.page(tmp_path / "deep/page.html").read_text()
    assert "snapkv" in page and "http-equiv" in page


def test_a_suite_gives_a_row_for_each_of_its_tasks() -> None:
    settings = {"task.data": str(ROOT / "tests/fixtures/longbench"), "task.datasets": ["trec", "qasper"]}
    made = kvgauge.run("tiny", "longbench", "snapkv", 64, limit=1, settings=settings)
    assert made.table()["task"].tolist() == ["longbench-trec", "longbench-qasper"]
    assert [suite.suite for suite in made.suites] == ["longbench"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"methods": ["snapvk"]}, "method=snapvk is not there: did you mean snapkv?"),
        ({"task": "neddle"}, "task=neddle is not there: did you mean needle?"),
        ({"model": "no/such/folder"}, "is not a folder: give an existing folder or a hub id"),
        ({"settings": {"task.length": 3}}, "task.length is not a setting of this run"),
        ({"budgets": [0]}, "budget=0 is below 1 entry"),
        ({"methods": [Earliest("snapkv"), "snapkv"]}, "label=snapkv stands for two methods"),
        ({"limit": 0}, "limit=0 is not a whole number of 1 or more"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(words: dict[str, object], message: str) -> None:
    with pytest.raises(kvgauge.KvgaugeError) as caught:
        kvgauge.run(**{"methods": ["snapkv"], "budgets": [32], **words})  # type: ignore[arg-type]
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_reading_a_folder_without_results_says_so(tmp_path: Path) -> None:
    with pytest.raises(kvgauge.KvgaugeError, match="holds no cell"):
        kvgauge.read(tmp_path)


@pytest.mark.parametrize("page", ["README.md", pytest.param("docs/api.md", marks=pytest.mark.slow)])
def test_the_python_of_a_page_runs_as_it_stands_there(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    exec("\n".join(blocks(ROOT / page, "python")), {})
    assert "score" in capsys.readouterr().out
    if page == "docs/api.md":
        assert (tmp_path / "needle.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "needle.html").exists() and (tmp_path / "results/tiny/needle/snapkv-32/scores.json").exists()
