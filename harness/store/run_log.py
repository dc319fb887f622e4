"""What each process did for a task, when and how fast: ``runs.<worker>.jsonl`` beside the cells. Told to readers; no number needs it."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from harness.errors import Stopped, StoreError
from harness.store.files import MAX_RECORD_BYTES
from harness.store.shards import Worker
from harness.values import LARGEST, Count


class RunLine(Struct, frozen=True):
    """A process at work on a task: one line as it begins and another as it ends.

    Reading checks a line against the types and ranges of these fields.

    Attributes:
        worker: whose records file it writes.
        command: how it was started.
        host: where.
        pid: its number there.
        started: when, ISO 8601 in UTC.
        cells: names of the cells.
        examples: asked for, of all shards.
        prompts: of those, the ones this process had still to compute.
        records_before: that its files held.
        device: what computes.
        width: rows that decode together at most.
        kernels: what computed; see ``EngineSettings``.
        outcome: ``running`` until it ends.
        seconds: that it took. This and what follows is 0 in the first line.
        prefills: prompts prefilled.
        prefilled_tokens: of those.
        rows: decoded.
        generated_tokens: of those.
        records: written.
        peak_bytes: most memory that was in use at one time.
        peak_of: ``cuda``: allocated by torch on the card; ``process``: all of the process, resident.

    Raises:
        ValueError, OverflowError: ``started`` is no time.
    """

    worker: Annotated[str, Meta(pattern=r"^[0-9]+(of[0-9]+)?\Z")]
    command: str
    host: str
    pid: Count
    started: str
    cells: tuple[str, ...]
    examples: Count
    prompts: Count
    records_before: Count
    device: str
    width: Count
    kernels: str = "torch"
    outcome: Literal["running", "done", "stopped", "failed"] = "running"
    seconds: Annotated[float, Meta(ge=0, le=LARGEST)] = 0.0
    prefills: Count = 0
    prefilled_tokens: Count = 0
    rows: Count = 0
    generated_tokens: Count = 0
    records: Count = 0
    peak_bytes: Count = 0
    peak_of: Literal["cuda", "process"] = "process"

    def __post_init__(self) -> None:
        _ = self.start_seconds

    @property
    def start_seconds(self) -> float:
        """When it began, in seconds since 1970."""
        return datetime.fromisoformat(self.started).timestamp()

    @property
    def tokens_per_second(self) -> float:
        """Prefilled and generated tokens; 0 where it is not known yet."""
        return (self.prefilled_tokens + self.generated_tokens) / self.seconds if self.seconds else 0.0


@contextmanager
def logged(folder: Path, worker: Worker, now: Callable[[], Mapping[str, Any]], **known: Any) -> Iterator[None]:
    """Write a line before and a line after what is done within.

    Args:
        folder: the task's.
        worker: who does it.
        now: what of the second line is known at the end.
        known: what of both lines is known at the start.

    Raises:
        StoreError: the first cannot be written. Without the second the outcome is not known, and nothing else is lost.
    """
    path, begun = folder / f"runs.{worker.name}.jsonl", time.monotonic()
    common = {
        "worker": worker.name,
        "command": shlex.join(sys.argv),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **known,
    }
    try:
        _append(path, common | {"outcome": "running"})
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror}): make room or choose another results_dir"
        ) from error
    outcome = "failed"
    try:
        yield
        outcome = "done"
    except (Stopped, KeyboardInterrupt, SystemExit):
        outcome = "stopped"
        raise
    finally:
        with suppress(OSError):
            _append(path, common | dict(now()) | {"outcome": outcome, "seconds": round(time.monotonic() - begun, 3)})


def read_runs(folder: Path) -> list[RunLine]:
    """What processes did for a task, in the order of their starts; of each its last line. What cannot be read is left out.

    Args:
        folder: the task's.
    """
    runs: dict[tuple[str, str, int, str], RunLine] = {}
    for path in sorted(folder.glob("runs.*.jsonl")):
        with suppress(OSError), path.open("rb") as file:
            for line in iter(partial(file.readline, MAX_RECORD_BYTES), b""):
                with suppress(ValueError, OverflowError, RecursionError):
                    # json knows lone surrogates, as a command line can hold them; msgspec does not.
                    run = msgspec.convert(json.loads(line.decode("utf-8", "replace")), RunLine)
                    runs[run.worker, run.host, run.pid, run.started] = run
    return sorted(runs.values(), key=lambda run: run.started)


def _append(path: Path, values: Mapping[str, Any]) -> None:
    line = json.dumps(values) + "\n"
    with path.open("a+b") as file:
        if file.tell() and path.read_bytes()[-1:] != b"\n":
            line = "\n" + line  # after a torn one
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
