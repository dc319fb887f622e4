"""The store under any interleaving of appending, crashing, reopening, other workers, folding and finishing."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from harness.errors import StoreError
from harness.results import Record
from harness.store import cells
from harness.store.cells import CellWriter, is_whole
from harness.store.records import read_records
from harness.store.shards import ALONE, Worker
from tests.harness.store.test_cells import MANIFEST, record

EXAMPLES = [str(place) for place in range(6)]
# Two ways of dealing the examples out, and one process alone.
WORKERS = [ALONE, *(Worker(f"{k}of{n}", f"of{n}-x") for n in (2, 3) for k in range(n))]


def mine(worker: Worker) -> list[str]:
    """The examples that a worker may write."""
    if worker == ALONE:
        return EXAMPLES
    index, count = map(int, worker.name.split("of"))
    return EXAMPLES[index::count]


class Store(RuleBasedStateMachine):
    """What was acknowledged is compared with what is on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.open: dict[Worker, CellWriter] = {}
        self.known: dict[str, Record] = {}

    def teardown(self) -> None:
        for writer in self.open.values():
            writer.close()
        shutil.rmtree(self.folder)

    @rule(worker=st.sampled_from(WORKERS))
    def start(self, worker: Worker) -> None:
        """Another process comes: let in beside shards of its split, and refused beside anything else."""
        may = worker not in self.open and all(worker.split and worker.split == other.split for other in self.open)
        try:
            self.open[worker] = (
                CellWriter(self.folder, MANIFEST, worker) if worker not in self.open else self.refused(worker)
            )
        except StoreError as error:
            assert not may and "is being written by another run" in str(error)
        else:
            assert may

    def refused(self, worker: Worker) -> CellWriter:
        return CellWriter(self.folder, MANIFEST, worker)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), failed=st.booleans())
    def append(self, data: st.DataObject, failed: bool) -> None:
        """What a run writes: examples without a result, as it finds them once it has the lock; errors are retried."""
        worker = data.draw(st.sampled_from(sorted(self.open, key=lambda w: w.name)))
        there = read_records(self.folder)
        todo = [name for name in mine(worker) if name not in there or there[name].error is not None]
        error, text = "e" if failed else None, f"{worker.name} {len(there)}"
        batch = [record(name, error=error, text=text) for name in todo[: data.draw(st.integers(1, 3))]]
        self.open[worker].append(batch)
        self.known |= {of.example_id: of for of in batch}

    @precondition(lambda self: ALONE in self.open and self.known)
    @rule(data=st.data())
    def score_again(self, data: st.DataObject) -> None:
        """Alone, a result may take the place of a result: whichever file the old one was in."""
        name = data.draw(st.sampled_from(sorted(self.known)))
        again = record(name, error=None, text="scored again")
        self.open[ALONE].append([again])
        self.known[name] = again

    @precondition(lambda self: self.open)
    @rule(data=st.data(), torn=st.binary(max_size=40))
    def crash(self, data: st.DataObject, torn: bytes) -> None:
        """A process ends at any moment, in the middle of a line too."""
        worker = data.draw(st.sampled_from(sorted(self.open, key=lambda w: w.name)))
        self.open.pop(worker).close()
        if torn:
            (self.folder / "scores.json").unlink(missing_ok=True)  # as every append does first
        with (self.folder / f"records.{worker.name}.jsonl").open("ab") as file:
            file.write(torn.replace(b"\n", b" "))

    @precondition(lambda self: not self.open)
    @rule(stop=st.integers(0, 3))
    def crash_while_folding(self, stop: int) -> None:
        """Killed after the one file of all is written and before all the others are gone."""
        left = [stop]

        def unlink(path: Path, missing_ok: bool = False) -> None:
            if path.name.startswith("records."):
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
            original(path, missing_ok)

        original = Path.unlink
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "unlink", unlink)
            try:
                writer = CellWriter(self.folder, MANIFEST)
            except KeyboardInterrupt:
                for path in self.folder.glob(".lock.0"):
                    original(path)  # as the system lets go of a dead process's locks
                return
        writer.close()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Whoever finds the cell whole writes its scores."""
        worker = data.draw(st.sampled_from(sorted(self.open, key=lambda w: w.name)))
        stamp, there = cells.stamp(self.folder), read_records(self.folder)
        if len(there) == len(EXAMPLES):
            errors = sum(of.error is not None for of in there.values())
            self.open[worker].finish({"n": len(there) - errors, "errors": errors}, stamp if worker.split else None)

    @invariant()
    def nothing_acknowledged_is_lost_or_changed(self) -> None:
        assert {name: of.to_json() for name, of in read_records(self.folder).items()} == {
            name: json.loads(json.dumps(of.to_json())) for name, of in self.known.items()
        }

    @invariant()
    def scores_are_beside_whole_records_only(self) -> None:
        if is_whole(self.folder):
            assert set(read_records(self.folder)) == set(EXAMPLES)
            assert cells.scores_lack(self.folder, read_records(self.folder)) == ""

    @invariant()
    def an_open_file_has_no_torn_line(self) -> None:
        for worker in self.open:
            data = (self.folder / f"records.{worker.name}.jsonl").read_bytes()
            assert data == b"" or data.endswith(b"\n")

    @invariant()
    def nothing_else_is_left_lying(self) -> None:
        assert not list(self.folder.glob("*.partial")) and not list(self.folder.glob(".*.partial"))


TestStore = Store.TestCase
# Not shrunk, which would take minutes: what fails is printed step by step as it is.
_PHASES = [Phase.explicit, Phase.generate]
TestStore.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True, phases=_PHASES)
