"""The store: nothing acknowledged is lost or doubled, nothing torn or foreign is read."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import time
import tracemalloc
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from harness.errors import StoreError
from harness.results import Cell, Manifest, Record
from harness.store.cells import CellWriter, is_whole
from harness.store.files import MAX_RECORD_BYTES, failed, write_atomically
from harness.store.locks import WriteLock
from harness.store.manifest import read_manifest
from harness.store.records import read_records
from harness.store.shards import Worker

MANIFEST = Manifest(
    cell=Cell("snapkv", "128"),
    place=0,
    model="m",
    task="t",
    settings={"method": {"window": 8, "kernel": 7}, "budget": "128"},
    metrics=(),
    heatmap_axes=None,
    note="",
    breakdown=None,
    task_config={"name": "t"},
    provenance={},
)


def record(name: str, **changes: object) -> Record:
    return structs.replace(
        Record(name, {"length": 10}, ["a"], {}, 3, "00", tokens=[1, 2], text="x", scores={"s": 0.5}, kept=[3]),
        **changes,
    )  # type: ignore[arg-type]


def write(folder: Path, *records: Record) -> None:
    writer = CellWriter(folder, MANIFEST)
    writer.append(records)
    writer.close()


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    hostile = record("e\n1", text='\x1b[31m"\u2028\ud800 終', error=None)
    write(tmp_path, record("0"), hostile)
    found = read_records(tmp_path)
    assert [r.to_json() for r in found.values()] == [
        json.loads(json.dumps(r.to_json())) for r in (record("0"), hostile)
    ]


def test_the_manifest_is_written_once_and_read_back(tmp_path: Path) -> None:
    write(tmp_path, record("9"))
    assert read_manifest(tmp_path) == MANIFEST
    before = (tmp_path / "manifest.json").stat().st_mtime_ns
    write(tmp_path, record("0"))
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == before


def test_a_folder_that_is_not_there_has_no_manifest_and_no_records(tmp_path: Path) -> None:
    assert read_manifest(tmp_path / "no") is None
    assert read_records(tmp_path / "no") == {}


@given(cut=st.integers(1, 400), later=st.booleans())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_torn_last_line_is_passed_over_and_cut_off_by_the_next_writer(
    tmp_path_factory: pytest.TempPathFactory, cut: int, later: bool
) -> None:
    folder = tmp_path_factory.mktemp("cell")
    write(folder, record("0"), record("1"))
    path = folder / "records.0.jsonl"
    whole = path.read_bytes()
    torn = whole[: max(len(whole) - cut, 0)]
    path.write_bytes(torn)
    survivors = [str(i) for i in range(torn.count(b"\n"))]
    assert list(read_records(folder)) == survivors
    if later:
        write(folder, record("2"))
        assert list(read_records(folder)) == [*survivors, "2"]
        assert path.read_bytes().count(b"\n") == len(survivors) + 1


@pytest.mark.parametrize(
    "line", [b'{"example_id": "0", "gro', b"{}", b"[]", b"\xff\xfe", b'{"example_id": 1, "unknown": 2}', b""]
)
def test_a_broken_line_before_the_end_is_reported_with_its_place(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, record("0"))
    path = tmp_path / "records.0.jsonl"
    path.write_bytes(line + b"\n" + path.read_bytes())
    with pytest.raises(StoreError, match=r"line 1 of .*records\.0\.jsonl is not a record"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"kept": [0]}, {"kept": [10**30]}, {"kept": ["x"]}, {"kept": [3, 3]}, {"retention": -1}, {"retention": 0},
        {"retention": 1.5},
        {"retention": "INFINITE"}, {"scores": {"s": "NAN"}}, {"scores": {"s": "INFINITE"}}, {"scores": {"s": "x"}},
        {"scores": {"s": 1e30}},
        {"scores": {"s": 10**30}}, {"scores": {"s": True}}, {"group": {"length": [1]}}, {"group": {"length": "NAN"}},
        {"references": [1]},
        {"prompt_ends": [1]}, {"tokens": ["a"]}, {"tokens": [-1]}, {"tokens": [1.5]}, {"tokens": [[1]]},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": 10**30}, {"kept_bytes": -1}, {"tied_heads": True}, {"details": {"x": "DEEP"}},
        {"details": {"x": "DEEPER"}},
        {"details": {"x": "NAN"}}, {"audit": {"same": False}}, {"audit": {}}, {"audit": {"same": False, "margin": "x"}},
    ],
)  # fmt: skip
def test_a_field_that_is_not_what_it_is_to_be_is_reported_with_its_place(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    write(tmp_path, record("0"))
    (name,) = changes
    line = json.dumps(record("1").to_json() | changes)
    for word, value in {
        "NAN": "NaN",
        "INFINITE": "1e999",
        "DEEPER": "[" * 100_000 + "]" * 100_000,
        "DEEP": "[" * 500 + "]" * 500,
    }.items():
        line = line.replace(f'"{word}"', value)
    with (tmp_path / "records.0.jsonl").open("a") as file:
        file.write(line + "\n")
    reason = rf"\((its {name}|the number NaN|RecursionError|.*- at `\$\.{name}\b.*|.*`{name}` .*)\)"
    with pytest.raises(StoreError, match=rf"line 2 of .*records\.0\.jsonl is not a record {reason}: delete that line"):
        read_records(tmp_path)


def test_scores_and_groups_may_be_numbers_of_numpy(tmp_path: Path) -> None:
    write(
        tmp_path, record("0", scores={"s": np.float64(0.5)}, group={"length": np.float64(10)}, details={"of": ("a", 1)})
    )
    (found,) = read_records(tmp_path).values()
    assert (found.scores, found.group, found.details) == ({"s": 0.5}, {"length": 10.0}, {"of": ["a", 1]})


def test_what_records_of_an_example_have_in_common_is_held_once(tmp_path: Path) -> None:
    write(tmp_path / "a", record("0", prompt_ends=("b", "e")), record("1"))
    write(tmp_path / "b", record("0", prompt_ends=("b", "e"), text="y"), record("1", references=["other"]), record("2"))
    first = read_records(tmp_path / "a")
    second = read_records(tmp_path / "b", first)
    assert {name: r.to_json() for name, r in second.items()} == {
        name: r.to_json() for name, r in read_records(tmp_path / "b").items()
    }
    assert second["0"].references is first["0"].references and second["0"].prompt_ends is first["0"].prompt_ends
    assert second["1"].references == ["other"]
    assert second["0"].kept is second["2"].kept


def test_a_line_that_no_record_fills_is_refused_in_little_memory(tmp_path: Path) -> None:
    write(tmp_path, record("0"))
    with (tmp_path / "records.0.jsonl").open("ab") as file:
        file.write(b'{"example_id": "' + b"x" * 50_000_000 + b'"}\n')
    tracemalloc.start()
    with pytest.raises(
        StoreError, match=rf"line 2 of .*records\.0\.jsonl is longer than the {MAX_RECORD_BYTES} bytes of a record"
    ):
        read_records(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 3 * MAX_RECORD_BYTES
    tracemalloc.stop()


def test_records_without_a_manifest_are_refused(tmp_path: Path) -> None:
    write(tmp_path, record("0"))
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"has records but no manifest\.json"):
        read_manifest(tmp_path)


def test_a_broken_manifest_is_refused(tmp_path: Path) -> None:
    write(tmp_path, record("0"))
    (tmp_path / "manifest.json").write_text('{"cell": ')
    with pytest.raises(StoreError, match="cannot be read"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("place", "x"), ("place", True), ("settings", []), ("settings.model", "x"), ("settings.method", None),
        ("settings.selection", "x"),
        ("metrics", None), ("metrics", [{"x": 1}]), ("metrics", [{"name": "s", "title": "S", "maximum": "1"}]),
        ("heatmap_axes", ["a"]),
        ("heatmap_axes", [1, 2]), ("note", 3), ("provenance", None), ("provenance.packages", None), ("breakdown", 1),
        ("published", "zz"),
        ("cell.budget", 128), ("cell.budget", "0128"), ("task_config", {}),
    ],
)  # fmt: skip
def test_a_part_of_a_manifest_that_is_not_what_it_is_to_be_is_named(tmp_path: Path, part: str, value: object) -> None:
    write(tmp_path, record("0"))
    path = tmp_path / "manifest.json"
    values = json.loads(path.read_text())
    above, _, last = part.rpartition(".")
    (values[above] if above else values)[last] = value
    path.write_text(json.dumps(values))
    with pytest.raises(StoreError, match=rf"manifest\.json cannot be read \(.*\b{re.escape(part)}.*\): restore it"):
        read_manifest(tmp_path)


def test_a_changed_setting_is_refused_by_its_name_and_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, record("0"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = structs.replace(MANIFEST, settings={"method": {"window": 16, "kernel": 7}, "budget": "128"})
    with pytest.raises(StoreError, match=r"with method\.window=8, now it is 16: give method\.\w+\.window=\[16\]"):
        CellWriter(tmp_path, other)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_setting_that_is_gone_or_new_is_named(tmp_path: Path) -> None:
    write(tmp_path, record("0"))
    with pytest.raises(StoreError, match=r"method\.kernel=7, now it is not set"):
        CellWriter(tmp_path, structs.replace(MANIFEST, settings={"method": {"window": 8}, "budget": "128"}))


def test_a_manifest_without_records_gives_way_to_other_settings(tmp_path: Path) -> None:
    """A run that ended before its first record, as with a dtype that does not fit, must not stand in the way of its
    own remedy."""
    write(tmp_path)
    other = structs.replace(MANIFEST, settings={"method": {"window": 16}, "budget": "128"})
    CellWriter(tmp_path, other).close()
    assert read_manifest(tmp_path) == other


def test_scores_are_gone_while_records_are_added(tmp_path: Path) -> None:
    writer = CellWriter(tmp_path, MANIFEST)
    writer.append([record("0")])
    writer.finish({"score": 1.0})
    assert is_whole(tmp_path)
    writer.append([record("1")])
    assert not is_whole(tmp_path)
    writer.close()


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "-x"])
def test_names_of_a_manifest_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path, record("0"))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"model": name}))
    with pytest.raises(StoreError, match="cannot be read"):
        read_manifest(tmp_path)


def test_two_writers_exclude_each_other(tmp_path: Path) -> None:
    first = CellWriter(tmp_path, MANIFEST)
    with pytest.raises(StoreError, match="is being written by another run"):
        CellWriter(tmp_path, MANIFEST)
    first.close()
    CellWriter(tmp_path, MANIFEST).close()


def test_a_second_shard_comes_when_the_first_ones_manifest_is_there(tmp_path: Path) -> None:
    came: list[str] = []

    def slowly(shared: bool) -> None:
        second.start()
        time.sleep(0.3)
        came.append("first")

    second = Thread(
        target=lambda: WriteLock(
            tmp_path, Worker("1of2", "of2-x"), lambda shared: came.append(f"second, shared={shared}")
        )
    )
    first = WriteLock(tmp_path, Worker("0of2", "of2-x"), slowly)
    second.join()
    assert came == ["first", "second, shared=True"]
    first.release()


def test_a_claim_is_let_go_of_where_its_manifest_is_refused(tmp_path: Path) -> None:
    write(tmp_path, record("0"))
    with pytest.raises(StoreError):
        CellWriter(tmp_path, structs.replace(MANIFEST, settings={"other": 1}))
    CellWriter(tmp_path, MANIFEST).close()


def test_several_workers_write_side_by_side_and_are_read_together(tmp_path: Path) -> None:
    writers = [CellWriter(tmp_path, MANIFEST, Worker(f"{i}of3", "of3-x")) for i in range(3)]
    for i, writer in enumerate(writers):
        writer.append([record(str(i))])
    assert sorted(read_records(tmp_path)) == ["0", "1", "2"]


def test_a_full_disk_stops_cleanly_and_leaves_no_torn_record(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:  # RLIMIT_FSIZE stays with the child
        code = 1
        try:
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            writer = CellWriter(tmp_path, MANIFEST)
            writer.append([record("0")])
            size = (tmp_path / "records.0.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, size + 50))
            try:
                writer.append([record("1"), record("2")])
            except StoreError as error:
                code = 0 if "cannot be written" in str(error) and "\n" not in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(read_records(tmp_path)) == ["0"]
    assert (tmp_path / "records.0.jsonl").read_bytes().endswith(b"\n")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file is a file, where a folder is to be"):
        CellWriter(tmp_path / "file" / "cell", MANIFEST)


def test_scores_are_replaced_as_a_whole(tmp_path: Path) -> None:
    writer = CellWriter(tmp_path, MANIFEST)
    for score in (1.0, 2.0):
        writer.finish({"score": score})
        assert json.loads((tmp_path / "scores.json").read_text()) == {"score": score}
    writer.close()


def test_a_partial_file_never_takes_the_place_of_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.json"
    write_atomically(path, "old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_where_there_is_no_room_the_line_says_how_much_there_is_and_what_is_safe(tmp_path: Path, number: int) -> None:
    write(tmp_path / "cell", record("0"), record("1"))
    said = str(failed(tmp_path / "cell" / "records.0.jsonl", "written", OSError(number, os.strerror(number))))
    assert re.fullmatch(
        rf"{tmp_path}/cell/records.0.jsonl cannot be written \({os.strerror(number)}\): make room in {tmp_path}/cell, "
        rf"where [\d,.]+ [MG]B are free on the disk; the 2 records in {tmp_path}/cell are safe, and the same command "
        r"goes on from there",
        said,
    )


def test_a_folder_that_cannot_be_written_for_another_reason_needs_no_room(tmp_path: Path) -> None:
    said = str(failed(tmp_path, "written", PermissionError(errno.EACCES, "Permission denied")))
    assert "room" not in said and said.endswith("make it writable or choose another folder; what is finished is kept")
