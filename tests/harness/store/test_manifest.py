"""Manifests: what earlier releases wrote is read, gone on with, scored and verified."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("task", [NEEDLE, pytest.param(LONGBENCH, marks=pytest.mark.slow)], ids=["task", "suite"])
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
