"""The report of a folder: read once, without a model's libraries."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.report.overview import rebuild
from harness.results import Cell, Manifest, Record
from harness.store import reader
from harness.store.cells import CellWriter, cell_folder
from harness.task import Metric
from tests.conftest import ROOT, Command

METRIC = Metric("m", "match", 1.0)


def write(results: Path, task: str, cell: Cell, place: int, model: str = "model") -> None:
    config = {"_target_": "tasks.needle.task.Needle", "name": task}
    manifest = Manifest(cell, place, model, task, {}, (METRIC,), None, "", config, {}, None)
    with closing(CellWriter(cell_folder(results, model, task, cell), manifest)) as writer:
        writer.append(
            [Record(str(i), {}, ("a",), {}, 10, None, text="x", scores={"m": 0.5}, kept=(10,)) for i in range(6)]
        )


def test_a_report_reads_every_cell_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for task in ("one", "two"):
        for place, cell in enumerate((Cell("fullkv", "full"), Cell("h2o", "8"))):
            write(tmp_path, task, cell, place)
    read, read_records = Counter[Path](), reader.read_records

    def counted(folder: Path, *others: Any, **named: Any) -> Any:
        read[folder] += 1
        return read_records(folder, *others, **named)

    monkeypatch.setattr(reader, "read_records", counted)
    rebuild([tmp_path], None, Console(quiet=True))
    assert len(read) == 4 and set(read.values()) == {1}
    assert (tmp_path / "report/index.html").is_file()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("harness.report.page.write", ("torch", "transformers")),
        ("harness.report.wandb", ("torch", "transformers", "wandb")),
        ("harness.report.compare.match", ("torch", "transformers", "matplotlib", "jinja2")),
        ("harness.report.stats.summary", ("torch", "transformers", "matplotlib", "pandas")),
    ],
)
def test_what_a_report_does_not_need_is_not_loaded(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("part", ["model", "model/needle", "model/needle/h2o-8"])
def test_the_report_of_a_part_is_written_whole_into_the_results_folder(
    kvgauge: Command, tmp_path: Path, part: str
) -> None:
    results = tmp_path / "results"
    for model in ("model", "other"):
        for place, cell in enumerate((Cell("fullkv", "full"), Cell("h2o", "8"))):
            write(results, "needle", cell, place, model)
    assert kvgauge("report", str(results)).code == 0
    files = {name: (results / "report" / name).read_bytes() for name in ("index.html", "model/needle/table.md")}
    shutil.rmtree(results / "report")
    done = kvgauge("report", str(results / part))
    assert done.code == 0, done.err
    assert {name: (results / "report" / name).read_bytes() for name in files} == files
    assert [path for path in results.rglob("report")] == [results / "report"]
    assert not (results / "report/other").exists() and "needle on other" not in done.out


def test_a_report_that_is_written_elsewhere_has_the_part_that_was_asked_for(kvgauge: Command, tmp_path: Path) -> None:
    for model in ("model", "other"):
        write(tmp_path / "results", "needle", Cell("h2o", "8"), 0, model)
    assert kvgauge("report", str(tmp_path / "results/other"), "--to", str(tmp_path / "to")).code == 0
    page = (tmp_path / "to/index.html").read_text()
    assert 'id="other/needle"' in page and 'id="model/needle"' not in page
    assert not (tmp_path / "results/report").exists()


def test_what_is_broken_elsewhere_in_the_folder_does_not_end_the_report_of_a_part(
    kvgauge: Command, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    for model in ("model", "other", "third"):
        write(results, "needle", Cell("h2o", "8"), 0, model)
    broken = results / "other/needle/h2o-8/records.0.jsonl"
    broken.write_text("no record\n" + broken.read_text())
    (results / "third/needle/h2o-8/manifest.json").write_text("no manifest")
    write(results, "gone-trec", Cell("h2o", "8"), 0, "fourth")
    suite = results / "fourth/gone-trec/h2o-8/manifest.json"
    suite.write_text(suite.read_text().replace('"name": "gone-trec"', '"name": "gone"'))
    whole = kvgauge("report", str(results / "model"))
    assert whole.code == 0 and 'id="model/needle"' in (results / "report/index.html").read_text()
    assert f"left out: line 1 of {broken} is not a record" in whole.told
    assert f"left out: {results}/third/needle/h2o-8/manifest.json cannot be read" in whole.told
    assert 'id="fourth/gone-trec"' not in (results / "report/index.html").read_text()
    assert kvgauge("report", str(results / "other")).code == 5
