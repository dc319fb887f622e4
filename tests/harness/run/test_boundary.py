"""A run that compresses before the question: what it records and shows, and what it is never mixed with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from harness.errors import ConfigError, StoreError
from harness.report.compare.differences import unlike
from harness.report.compare.gist import gist
from harness.report.compare.paired import paired_documents
from harness.report.compare.published import tables
from harness.report.leaderboard import groups
from harness.results import Manifest
from harness.run.boundary import check_questions, check_suite
from harness.store.manifest import boundary, check_manifest, check_sibling, read_manifest, write_manifest
from harness.store.reader import read_results
from harness.task import Example
from tests.conftest import Command

RUN = (
    "method=[fullkv,snapkv]", "budget=48", "task.lengths=[300]", "task.depths=[50]", "task.max_new_tokens=6",
    "engine.audit=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boundary")


def manifest_of(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest


@pytest.mark.slow
def test_a_run_before_the_question_says_so_and_is_verified_and_kept_apart(kvgauge: Command, made: Path) -> None:
    words = ("selection.after=context", f"results_dir={made}")
    first = kvgauge(*RUN, *words)
    assert first.code == 0, first.err
    assert "needle on tiny, compressed after the context" in first.told
    again = kvgauge(*RUN, *words)
    assert again.code == 0 and "new records: 0" in again.told
    checked = kvgauge("verify", str(made / "tiny" / "needle"), "--sample", "1")
    assert checked.code == 0, checked.out + checked.err
    refused = kvgauge(*RUN, f"results_dir={made}")
    assert refused.code == 5 and refused.err.count("\n") == 1
    assert "selection.after=context" in refused.err and "task.name" in refused.err
    for label in ("fullkv-full", "snapkv-48"):
        folder = made / "tiny" / "needle" / label
        (line, *_) = (json.loads(line) for file in folder.glob("records*") for line in file.open())
        assert line["context_tokens"] < line["prompt_tokens"]
        assert line["audit"]["same"]
        share = line["kept"][0] / line["context_tokens"]
        assert line["retention"] == pytest.approx(share) and (share == 1) == (label == "fullkv-full")
        assert manifest_of(folder).settings["selection"]["after"] == "context"
    report = made / "report" / "tiny" / "needle"
    for file in ("table.md", "table.tex"):
        assert "compressed after the context" in (report / file).read_text()
    (grid,) = read_results(made / "tiny" / "needle").grids
    before = replace(grid, result=replace(grid.result, after="prompt", note=""))
    ((_, document),) = paired_documents([before], [grid], Path("a"), Path("b"))
    said = "A was compressed after the prompt, B after the context"
    assert said in " ".join(gist(document).split())
    assert f"Of B: {grid.result.note}" in document.notes
    ((_, document),) = paired_documents([grid], [grid], Path("a"), Path("b"))
    assert grid.result.note in document.notes and said not in " ".join(gist(document).split())


def test_a_manifest_that_names_no_boundary_is_of_the_end_of_the_prompt() -> None:
    assert boundary({"method": {}, "selection": {"granularity": "kv_head"}}) == "prompt" == boundary({"method": {}})
    assert boundary({"task": {}}) is None  # imported
    assert boundary({"selection": {"after": "context"}}) == "context"


@pytest.fixture
def folder(kvgauge: Command, made: Path) -> Path:
    prompts = made / "prompts.json"
    if not prompts.exists():
        prompts.write_text(json.dumps({"one": {"ids": [*range(2, 72)], "question_at": 60}}))
        words = ("method=[fullkv,snapkv]", "budget=48", "task=tokens", f"task.prompts={prompts}")
        done = kvgauge(*words, "task.max_new_tokens=2", "selection.after=context", f"results_dir={made}")
        assert done.code == 0, done.err
    return made / "tiny" / "tokens" / "snapkv-48"


def without(manifest: Manifest, label: str = "snapkv") -> Manifest:
    """The manifest of a cell that is made after the whole prompt."""
    selection = {name: value for name, value in manifest.settings["selection"].items() if name != "after"}
    cell = replace(manifest.cell, label=label)
    return structs.replace(manifest, cell=cell, settings={**manifest.settings, "selection": selection})


def test_a_cell_of_one_boundary_is_neither_continued_nor_joined_by_one_of_the_other(folder: Path) -> None:
    there = manifest_of(folder)
    with pytest.raises(StoreError, match="made with selection.after=context, now it is not set: use another task.name"):
        check_manifest(folder, there, without(there))
    with pytest.raises(StoreError, match="beside it has prompt.* use another task.name"):
        check_sibling(folder, there, without(there, "other"))


def test_no_average_goes_over_both_boundaries(folder: Path, tmp_path: Path) -> None:
    result = read_results(folder).grids[0].result
    assert result.after == "context"
    other = replace(result, after="prompt", task="other")
    with pytest.raises(StoreError, match="task tokens was made with selection.after=context, other with"):
        groups([result, other], [])
    there = manifest_of(folder)
    cell = tmp_path / "suite-a" / "snapkv-48"
    cell.mkdir(parents=True)
    (cell / "records.0.jsonl").write_text("x")
    write_manifest(cell, structs.replace(there, task_config={**there.task_config, "name": "suite"}))
    check_suite(tmp_path, "suite", "suite-b", "context")
    check_suite(tmp_path, "suite-b", "suite-b", "prompt")
    with pytest.raises(StoreError, match="made with selection.after=context, and no average of suite"):
        check_suite(tmp_path, "suite", "suite-b", "prompt")


def test_results_before_the_question_are_not_held_against_tables_after_the_prompt(folder: Path) -> None:
    grid = read_results(folder).grids[0]
    table = replace(tables()[0], metric="")
    assert "selection.after=context" in str(unlike([grid], table))
    assert unlike([replace(grid, result=replace(grid.result, after="prompt"))], table) is None


def test_a_cell_that_keeps_everything_is_not_said_to_select_otherwise(folder: Path) -> None:
    (grid,) = read_results(folder.parent).grids
    assert len(grid.manifests) == 2 and "differ in selection" not in grid.result.note


def test_a_task_without_scores_is_not_compared_and_its_message_says_why(folder: Path) -> None:
    (grid,) = read_results(folder.parent).grids
    with pytest.raises(StoreError, match=r"^what both folders have is not scored: tokens of tiny; give two folders"):
        list(paired_documents([grid], [grid], Path("a"), Path("b")))


def test_a_task_that_knows_no_question_is_refused_before_any_work_in_one_line(
    kvgauge: Command, prompts_file: Path, tmp_path: Path
) -> None:
    ran = kvgauge("task=tokens", f"task.prompts={prompts_file}", "selection.after=context", f"results_dir={tmp_path}/r")
    assert ran.code == 2 and ran.err.count("\n") == 1 and not (tmp_path / "r").exists()
    assert "task=tokens does not say it of 4 of 4 examples, such as 'p40'" in ran.err
    with pytest.raises(ConfigError, match="1 of 2 examples, such as 'b'"):
        check_questions("mine", [Example("a", (1, 2), question_at=1), Example("b", (1, 2))])
