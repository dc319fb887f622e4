"""File systems without locks, and locks that a process of another machine left on one."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness.errors import StoreError
from harness.lock_files import HeldError, is_held, take, waited_for
from harness.store.cells import CellWriter
from harness.store.locks import WriteLock, at_work
from harness.store.shards import ALONE, Worker
from tests.conftest import Command
from tests.harness.folders import cells
from tests.harness.store.test_cells import MANIFEST, record

FOREIGN = "4242\ngpu-seven\n99887766\n"
"""What a process of another machine writes into the file that stands for its lock."""


@pytest.fixture(params=["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def lockless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file system without locks."""

    def flock(*_: object) -> None:
        number = getattr(errno, request.param)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    yield


def freed(said: str) -> None:
    """Run the command that ends a message."""
    subprocess.run(said.split("`")[-2], shell=True, check=True)


@pytest.mark.usefixtures("lockless")
def test_two_writers_exclude_each_other_without_locks_too(tmp_path: Path) -> None:
    with closing(CellWriter(tmp_path, MANIFEST)) as writer:
        writer.append([record("0")])
        with pytest.raises(StoreError, match=rf"written by another run: wait .* held by process {os.getpid()} on "):
            CellWriter(tmp_path, MANIFEST)
        assert at_work(tmp_path) == {"0"}
    assert at_work(tmp_path) == set()
    CellWriter(tmp_path, MANIFEST).close()


@pytest.mark.usefixtures("lockless")
def test_shards_write_beside_each_other_without_locks_too(tmp_path: Path) -> None:
    first, second = (WriteLock(tmp_path, Worker(f"{index}of2", "of2-x")) for index in (0, 1))
    assert at_work(tmp_path) == {"0of2", "1of2"}
    with pytest.raises(StoreError, match="shard 0 of 2"):
        WriteLock(tmp_path, ALONE)
    first.release()
    second.release()
    WriteLock(tmp_path, ALONE).release()


@pytest.mark.usefixtures("lockless")
def test_what_a_killed_process_of_this_machine_left_is_no_lock(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        kept = take(tmp_path / ".lock.0")
        os._exit(int(not kept.is_locked))
    os.waitpid(child, 0)
    assert (tmp_path / ".soft.lock.0").exists()
    CellWriter(tmp_path, MANIFEST).close()


@pytest.mark.usefixtures("lockless")
def test_lock_files_of_a_folder_that_was_copied_from_a_file_system_with_locks_hold_nobody_up(tmp_path: Path) -> None:
    for name in (".lock", ".lock.0"):
        (tmp_path / name).touch()
    CellWriter(tmp_path, MANIFEST).close()


@pytest.mark.usefixtures("lockless")
@pytest.mark.parametrize("lockless", ["ENOLCK"], indirect=True)
def test_a_lock_left_on_another_machine_names_its_holder_and_the_command_that_frees_all_it_held(
    kvgauge: Command, prompts_file: Path, tmp_path: Path
) -> None:
    results = tmp_path / "my results"
    words = (
        "method=[fullkv,snapkv]", "budget=32", "task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=2",
        f"results_dir='{results}'",
    )  # fmt: skip
    assert kvgauge(*words).code == 0
    folders = list(cells(results).values())
    for folder in folders:
        (folder / ".soft.lock.0").write_text(FOREIGN)
    other = folders[0] / ".soft.lock.1of2-x"
    other.write_text(FOREIGN.replace("99887766", "11"))  # of another process there, with the same id
    refused = kvgauge(*words)
    assert refused.code == 5 and refused.err.count("\n") == 1
    assert re.search(
        r"held by process 4242 on gpu-seven since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, and this file system has no "
        r"locks that end with a process: if `ps -p 4242` on gpu-seven finds no such process, free what it held with "
        r"`find ",
        refused.err,
    )
    status = kvgauge("status", str(results)).out
    assert status.count("locked by process 4242 on gpu-seven since") == 2  # once for both cells, and the other one
    freed(refused.err)
    assert sorted(results.rglob(".soft*")) == [folder / ".soft.lock.0" for folder in folders]
    freed(kvgauge(*words).err)
    assert not list(results.rglob(".soft*"))
    assert kvgauge(*words).code == 0 and all((folder / "records.0.jsonl").stat().st_size for folder in folders)


@pytest.mark.usefixtures("lockless")
def test_a_lock_that_is_waited_for_names_its_holder_when_the_wait_is_over(tmp_path: Path) -> None:
    (tmp_path / ".soft.lock").write_text(FOREIGN)
    words = r"lock is held for more than 0 s; held by process 4242 on gpu-seven"
    with pytest.raises(StoreError, match=words) as held, waited_for(tmp_path / ".lock", 0.01):
        pass
    freed(str(held.value))
    with waited_for(tmp_path / ".lock", 0.01):
        assert is_held(tmp_path / ".lock")


@pytest.mark.usefixtures("lockless")
def test_a_lock_without_a_name_in_it_is_freed_by_its_path(tmp_path: Path) -> None:
    (tmp_path / ".soft.lock.0").touch()
    with pytest.raises(HeldError) as held:
        take(tmp_path / ".lock.0")
    assert "held by a process without a name since" in held.value.remedy
    freed(held.value.remedy)
    take(tmp_path / ".lock.0").release()


def test_another_error_of_a_lock_is_no_missing_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match=r"cannot be written \(Input/output error\): make it writable"):
        CellWriter(tmp_path, MANIFEST)
