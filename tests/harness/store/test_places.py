"""Where cells lie: folders that were moved or copied are named, and never stand for the cells that they were."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from harness.api import read
from harness.errors import StoreError
from harness.results import Cell, Manifest, Record
from harness.store.cells import CellWriter, cell_folder
from harness.store.places import find_cells
from harness.store.reader import read_results
from harness.task import Metric
from tests.conftest import Command

CELLS = (Cell("fullkv", "full"), Cell("h2o", "8"), Cell("h2o", "12.5%"))


def write(results: Path, model: str, task: str, cell: Cell, score: float = 0.5) -> Path:
    folder = cell_folder(results, model, task, cell)
    config = {"_target_": "tasks.needle.task.Needle", "name": task}
    metrics = (Metric("m", "match", 1.0),)
    manifest = Manifest(cell, CELLS.index(cell), model, task, {}, metrics, None, "", config, {}, None)
    with closing(CellWriter(folder, manifest)) as writer:
        records = [Record(str(i), {}, ("a",), {}, 10, None, text="x", scores={"m": score}, kept=(10,)) for i in (1, 2)]
        writer.append(records)
        writer.finish({"n": 2, "errors": 0, "expected": 2})
    return folder


def fill(results: Path) -> Path:
    for model in ("tiny", "other"):
        for task in ("one", "two"):
            for cell in CELLS:
                write(results, model, task, cell)
    return results


def scores(path: Path) -> dict[str, float]:
    return {
        f"{grid.result.model}/{grid.result.task}/{cell.cell.name}": sum(r.scores["m"] for r in cell.records)
        for grid in read_results(path).grids
        for cell in grid.result.cells
    }


@pytest.mark.parametrize("below", ["", "tiny", "tiny/one", "tiny/one/h2o-12.5%"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_results_folder_can_be_moved_and_read_from_any_of_its_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, inside: bool
) -> None:
    fill(tmp_path / "results").rename(tmp_path / "moved")
    path = tmp_path / "moved" / below
    if inside:
        monkeypatch.chdir(path)
    places = find_cells(Path("." if inside else path))
    assert places.root.resolve() == tmp_path / "moved" and not places.left_out
    assert len(places.manifests) == {0: 12, 1: 6, 2: 3, 3: 1}[len(Path(below).parts)]


def test_a_results_folder_can_be_read_through_a_link_and_through_its_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "results")
    (tmp_path / "link").symlink_to(tmp_path / "results/tiny")
    assert len(find_cells(tmp_path / "link").manifests) == 6
    monkeypatch.chdir(tmp_path / "results/tiny/one")
    assert len(find_cells(Path("../../other")).manifests) == 6


def move(source: str, target: str) -> Callable[[Path], object]:
    return lambda results: shutil.move(results / source, results / target)


def copy(source: str, target: str) -> Callable[[Path], object]:
    return lambda results: shutil.copytree(results / source, results / target)


@pytest.mark.parametrize(
    ("change", "left_out"),
    [
        (copy("tiny/one/h2o-8", "tiny/one/h2o-8_copy"), {"tiny/one/h2o-8_copy": "tiny/one/h2o-8"}),
        (move("tiny/one/h2o-8", "tiny/one/h2o-8_old"), {"tiny/one/h2o-8_old": "tiny/one/h2o-8"}),
        (copy("tiny/one/h2o-8", "tiny/one/h2o-16"), {"tiny/one/h2o-16": "tiny/one/h2o-8"}),
        (move("tiny/one", "tiny/three"), {"tiny/three": "tiny/one"}),
        (move("tiny", "tiny-old"), {"tiny-old": "tiny"}),
        (copy("tiny", "backup/tiny"), {"backup": "backup"}),
        (copy("tiny/one", "one"), {"one": "tiny/one"}),
        (copy("tiny/one/h2o-8", "other/one/h2o-16"), {"other/one/h2o-16": "tiny/one/h2o-8"}),
        (
            lambda results: [shutil.copytree(results / f"{m}/one", results / f"mixed/{m}") for m in ("tiny", "other")],
            {"mixed/tiny": "tiny/one", "mixed/other": "other/one"},
        ),
    ],
    ids=["copied", "renamed", "named as another", "task", "model", "backup", "too high", "other model", "mixed"],
)
def test_what_does_not_lie_where_it_was_written_is_named_with_both_places_and_left_out(
    tmp_path: Path, change: Callable[[Path], object], left_out: dict[str, str]
) -> None:
    results = fill(tmp_path / "results")
    before = scores(results)
    change(results)
    found = find_cells(results)
    assert {one.path: one for one in found.left_out}.keys() == {results / path for path in left_out}
    for one in found.left_out:
        place = results / left_out[str(one.path.relative_to(results))]
        assert one.reason.startswith(str(one.path)) and str(place) in one.reason and one.reason.count("\n") == 0
        assert "delete" not in one.reason
        assert ("move it back" in one.reason) == (not place.exists())
    after = scores(results)
    assert set(after.items()) <= set(before.items())
    assert {folder.relative_to(results).as_posix() for folder in found.manifests} == after.keys()


def test_a_copy_with_other_records_changes_no_number_and_the_table_and_the_page_name_it(
    kvgauge: Command, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    for cell in CELLS:
        write(results, "tiny", "one", cell)
    assert kvgauge("report", str(results)).code == 0
    table = (results / "report/tiny/one/table.csv").read_bytes()
    stray = results / "tiny/one/h2o-8_old"
    write(tmp_path / "altered", "tiny", "one", Cell("h2o", "8"), score=1.0).rename(stray)
    again = kvgauge("report", str(results))
    assert again.code == 0 and (results / "report/tiny/one/table.csv").read_bytes() == table
    line = next(line for line in again.out.replace("\n  ", " ").splitlines() if line.startswith("left out: "))
    assert str(stray) in line and f"written as {results}/tiny/one/h2o-8," in line
    note = "tiny/one/h2o-8_old, which was written as tiny/one/h2o-8"
    assert note in (results / "report/index.html").read_text()
    assert note in (results / "report/tiny/one/table.md").read_text().replace("\\", "")


def test_a_moved_folder_that_is_asked_for_is_refused(kvgauge: Command, tmp_path: Path) -> None:
    results = fill(tmp_path / "results")
    stray = shutil.copytree(results / "tiny/one/h2o-8", results / "tiny/one/h2o-8_old")
    for command in ("report", "score", "verify", "status", "compare", "wandb"):
        refused = kvgauge(command, str(stray))
        assert refused.code == 5 and refused.err.count("\n") == 1, refused
        assert str(stray) in refused.err and f"written as {results}/tiny/one/h2o-8," in refused.err


def test_a_folder_of_several_results_folders_is_refused_with_both(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fill(tmp_path / "all" / name)
    with pytest.raises(StoreError, match=r"holds several results folders, such as .*/all/a and .*/all/b: give one"):
        find_cells(tmp_path / "all")
    assert len(find_cells(tmp_path / "all/a").manifests) == 12


def test_a_copy_does_not_hold_and_no_run_goes_on_with_it(kvgauge: Command, tmp_path: Path) -> None:
    words = ("method=[snapkv]", "budget=32", "task=needle", "task.lengths=[300]", "task.depths=[50]")
    results = tmp_path / "results"
    ran = kvgauge(*words, f"results_dir={results}")
    assert ran.code == 0, ran.err
    cell = results / "tiny/needle/snapkv-32"
    cell.rename(results / "tiny/needle/mine-32")
    refused = kvgauge(*words, "method.snapkv.label=mine", f"results_dir={results}")
    assert refused.code == 5 and "mine-32 was written as tiny/needle/snapkv-32" in refused.err, refused
    again = kvgauge(*words, "method.snapkv.window=16", f"results_dir={results}")
    assert again.code == 0 and f"left out: {results}/tiny/needle/mine-32 was written as {cell}" in again.told, again
    assert "has more" not in again.out
    verified = kvgauge("verify", str(results))
    assert verified.code == 1 and f"WRONG: {results}/tiny/needle/mine-32" in verified.told
    assert "1 cells hold, but" in verified.err and "mine-32 is none of them" in verified.err
    scored = kvgauge("score", str(results))
    assert scored.code == 0 and "scored 1 records again: 0 changed" in scored.out
    status = kvgauge("status", str(results))
    assert f"left out: {results}/tiny/needle/mine-32" in status.told and "everything is whole" not in status.out


def test_from_python_a_folder_that_was_moved_is_a_warning(tmp_path: Path) -> None:
    results = fill(tmp_path / "results")
    stray = (results / "tiny/one/h2o-8").rename(results / "tiny/one/h2o-8_old")
    with pytest.warns(UserWarning, match=rf"{stray} was written as {results}/tiny/one/h2o-8, .*: move it back to "):
        frame = read(results).table()
    assert len(frame) == 11


@pytest.mark.parametrize("linked", [".", "tiny", "tiny/one", "tiny/one/h2o-8"])
def test_cells_behind_links_are_read_each_once(kvgauge: Command, tmp_path: Path, linked: str) -> None:
    results, elsewhere = fill(tmp_path / "results"), tmp_path / "scratch" / "moved"
    plain = scores(results)
    elsewhere.parent.mkdir()
    (results / linked).rename(elsewhere)
    (results / linked).symlink_to(elsewhere)
    (results / "other" / "loop").symlink_to(results)
    (results / "latest").symlink_to(results / "other" / "one")
    (results / "gone").symlink_to(tmp_path / "nowhere")
    (results / "wide").symlink_to(tmp_path)
    assert scores(results) == plain
    status = kvgauge("status", str(results))
    assert status.code == 0 and status.told.count("3 cells") == 4 and "left out" not in status.told
