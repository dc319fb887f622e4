"""Manifests: what earlier releases wrote is read, gone on with, scored and verified."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.config.build import build
from harness.store.manifest import _MOVED, read_manifest
from tests.conftest import ROOT, Command

NEEDLE = ("task=needle", "task.lengths=[300]", "task.depths=[0,50]")
LONGBENCH = (
    "task=longbench", f"task.data={ROOT}/tests/fixtures/longbench", "task.datasets=[trec,qasper]",
    "task.max_prompt_tokens=400", "limit=1",
)  # fmt: skip


def age(results: Path) -> dict[Path, str]:
    """Give manifests the names that classes had before they moved, and return what else the manifests hold."""
    before = {new: old for old, new in _MOVED.items()}
    rest = {}
    for path in results.rglob("manifest.json"):
        manifest = json.loads(path.read_text())
        manifest["task_config"]["_target_"] = before[manifest["task_config"]["_target_"]]
        path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        rest[path] = path.read_text()
    return rest


@pytest.mark.slow
@pytest.mark.parametrize("task", [NEEDLE, LONGBENCH], ids=["task", "suite"])
def test_a_results_folder_whose_classes_have_moved_is_gone_on_with_scored_and_verified(
    kvgauge: Command, tmp_path: Path, task: tuple[str, ...]
) -> None:
    results = tmp_path / "results"
    words = ("method=[fullkv,snapkv]", "budget=32", *task, f"results_dir={results}")
    first = kvgauge(*words)
    assert first.code == 0, first.err
    aged = age(results)
    again = kvgauge(*words)
    assert again.code == 0 and "prefills: 0;" in again.out and "new records: 0," in again.out, again
    beside = kvgauge(*words, "method=[fullkv,snapkv,h2o]")
    assert beside.code == 0 and "new records: 2," in beside.out, beside
    for path, text in aged.items():
        assert path.read_text() == text
    assert kvgauge("report", str(results)).code == 0
    scored = kvgauge("score", str(results))
    assert scored.code == 0 and "0 changed" in scored.out, scored
    verified = kvgauge("verify", str(results), "--sample", "1")
    assert verified.code == 0 and "cells hold" in verified.out and "not told" not in verified.out, verified


def test_the_classes_that_have_moved_are_where_the_table_says() -> None:
    for target in _MOVED.values():
        with pytest.raises(Exception, match="missing"):
            build({"_target_": target})


def test_a_class_that_has_not_moved_keeps_its_name(tmp_path: Path) -> None:
    manifest = {
        "cell": {"label": "snapkv", "budget": "32"}, "place": 0, "model": "tiny", "task": "own", "settings": {},
        "metrics": [],
        "heatmap_axes": None, "note": "", "task_config": {"name": "own", "_target_": "tasks.own.Own"}, "provenance": {},
        "breakdown": None,
    }  # fmt: skip
    for target in ("tasks.own.Own", None, ["tasks.needle.Needle"]):
        (tmp_path / "manifest.json").write_text(
            json.dumps(manifest | {"task_config": {"name": "own", "_target_": target}})
        )
        found = read_manifest(tmp_path)
        assert found is not None and found.task_config["_target_"] == target


def of_another_version(cell: Path, /, **changes: object) -> None:
    """Make a cell one that kvgauge 9.1 began, with a field in its records that this version does not know."""
    manifest = json.loads((cell / "manifest.json").read_text())
    manifest["provenance"]["packages"]["kvgauge"] = "9.1"
    (cell / "manifest.json").write_text(json.dumps(manifest | changes))
    file = cell / "records.0.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(record | {"seed": 7}) + "\n" for record in records))


@pytest.fixture
def two_cells(kvgauge: Command, tmp_path: Path) -> tuple[Path, list[str]]:
    results = tmp_path / "results"
    words = ["method=[fullkv,snapkv]", "budget=32", "task=needle", "task.lengths=[300]", "task.depths=[50]"]
    words.append(f"results_dir={results}")
    assert kvgauge(*words).code == 0
    return results, words


@pytest.mark.slow
def test_what_this_version_knows_of_another_ones_cell_is_read_and_nothing_of_it_is_changed(
    kvgauge: Command, two_cells: tuple[Path, list[str]]
) -> None:
    results, words = two_cells
    cell, table = results / "tiny/needle/snapkv-32", results / "report/tiny/needle"
    before = (table / "table.csv").read_bytes()
    of_another_version(cell, seed=7)
    there = {path: path.read_bytes() for path in (results / "tiny").rglob("*.json*")}
    report = kvgauge("report", str(results))
    assert report.code == 0 and (table / "table.csv").read_bytes() == before
    assert "another version of kvgauge, and read in part: snapkv-32 (9.1)." in (table / "table.md").read_text()
    status = kvgauge("status", str(results))
    assert f"- readable in part: {cell} was written by kvgauge 9.1, and this is " in status.told, status
    assert kvgauge("verify", str(results)).code == 0
    for command in (words, [*words, "task.depths=[50,100]"], ["score", str(results)]):
        refused = kvgauge(*command)
        assert refused.code == 5 and refused.err.count("\n") == 1, refused
        assert f"{cell} was written by kvgauge 9.1" in refused.err and "delete" not in refused.err
        assert {path: path.read_bytes() for path in (results / "tiny").rglob("*.json*")} == there
    beside = kvgauge(*words, "method=h2o")
    assert beside.code == 0 and "new records: 1," in beside.out, beside
    cell.rename(cell.with_name("snapkv-32_old"))
    again = kvgauge(*words)
    assert again.code == 0 and "new records: 1," in again.out, again


def test_a_cell_of_another_version_that_cannot_be_read_is_named_and_the_others_are_reported(
    kvgauge: Command, two_cells: tuple[Path, list[str]]
) -> None:
    results, _ = two_cells
    of_another_version(results / "tiny/needle/snapkv-32", cell="snapkv at 32")
    done = kvgauge("report", str(results))
    assert done.code == 0 and f"left out: {results}/tiny/needle/snapkv-32 was written by kvgauge 9.1" in done.told
    assert (results / "report/tiny/needle/table.csv").read_text().splitlines()[1].startswith("fullkv,full,")
    refused = kvgauge("report", str(results / "tiny/needle/snapkv-32"))
    assert refused.code == 5 and "was written by kvgauge 9.1" in refused.err


def test_records_of_another_version_beside_our_manifest_are_not_to_be_deleted(
    kvgauge: Command, two_cells: tuple[Path, list[str]]
) -> None:
    """As after a newer version went on with a cell."""
    results, words = two_cells
    cell = results / "tiny/needle/snapkv-32"
    manifest = (cell / "manifest.json").read_bytes()
    of_another_version(cell)
    (cell / "manifest.json").write_bytes(manifest)
    for command in (words, ["report", str(results)]):
        refused = kvgauge(*command)
        assert refused.code == 5 and "which does not know 'seed': use the version that wrote it" in refused.err
        assert "delete" not in refused.err


def test_no_message_advises_to_delete_a_folder_of_results() -> None:
    for path in (ROOT / "harness").rglob("*.py"):
        assert not re.search(r"delete\s+(that|the|their|its)\s+(cell'?s? )?folder", path.read_text()), path
