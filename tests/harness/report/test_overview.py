"""The report of a folder: read once, without a model's libraries."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.report.overview import rebuild
from harness.results import Cell, Manifest, Record
from harness.store import reader
from harness.store.cells import CellWriter, cell_folder
from harness.task import Metric
from tests.conftest import ROOT

METRIC = Metric("m", "match", 1.0)


def write(results: Path, task: str, cell: Cell, place: int) -> None:
    config = {"_target_": "tasks.needle.task.Needle", "name": task}
    manifest = Manifest(cell, place, "model", task, {}, [asdict(METRIC)], None, "", config, {}, None)
    with closing(CellWriter(cell_folder(results, "model", task, cell), manifest)) as writer:
        writer.append(
            [Record(str(i), {}, ("a",), {}, 10, None, text="x", scores={"m": 0.5}, kept=(10,)) for i in range(6)]
        )


def test_a_report_reads_every_cell_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for task in ("one", "two"):
        for place, cell in enumerate((Cell("fullkv", "full"), Cell("h2o", "8"))):
            write(tmp_path, task, cell, place)
    read, read_records = Counter[Path](), reader.read_records

    def counted(folder: Path, *others: Any) -> Any:
        read[folder] += 1
        return read_records(folder, *others)

    monkeypatch.setattr(reader, "read_records", counted)
    rebuild(tmp_path, tmp_path / "report", Console(quiet=True))
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
