"""The log of each process at work on a task, ``runs.<worker>.jsonl`` beside the cells; no result depends on it."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field, structs

from harness.errors import Stopped
from harness.store.costs import Costs
from harness.store.files import MAX_RECORD_BYTES, append_line, failed
from harness.store.shards import Worker
from harness.values import LARGEST, Count


class RunLine(Struct, frozen=True):
    """A line about a process at work on a task; it writes one when it begins and another when it ends.

    Reading checks a line against the types and ranges of these fields.

    Attributes:
        worker: name of the worker, as in its records files.
        command: the command line.
        host: name of the machine.
        pid: id of the process.
        started: time of the start, ISO 8601 in UTC.
        cells: names of the cells.
        examples: number of examples asked for, in all shards.
        asked: ids of these examples. They stand in the first line alone, and ``read_runs`` takes them over; empty in
            lines of before.
        prompts: number of prompts that this process had yet to compute.
        contexts: number of their different contexts, where questions run through compressed caches; else 0.
        records_before: number of records in its files at the start.
        device: name of the device that the model runs on.
        width: largest number of rows that decode together.
        kernels: what computed; see ``EngineSettings``.
        outcome: ``running`` in the first line; in the second ``done``, ``stopped`` or ``failed``.
        seconds: duration. This and the numbers below are 0 in the first line.
        prefills: number of prompts or contexts prefilled.
        prefilled_tokens: number of tokens prefilled.
        question_tokens: number of tokens of questions that ran through compressed caches, of all rows together.
        rows: number of rows decoded.
        generated_tokens: number of tokens generated.
        records: number of records written.
        peak_bytes: largest amount of memory in use at one time.
        peak_of: what ``peak_bytes`` measures: ``cuda``, memory allocated by torch on the GPU, or ``process``, the
            resident memory of the process.
        costs: what its prefills and steps cost, from which the next dry run estimates; empty in lines of before.

    Raises:
        ValueError, OverflowError: ``started`` is not a time.
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
    contexts: Count = 0
    kernels: str = "torch"
    outcome: Literal["running", "done", "stopped", "failed"] = "running"
    seconds: Annotated[float, Meta(ge=0, le=LARGEST)] = 0.0
    prefills: Count = 0
    prefilled_tokens: Count = 0
    question_tokens: Count = 0
    rows: Count = 0
    generated_tokens: Count = 0
    records: Count = 0
    peak_bytes: Count = 0
    peak_of: Literal["cuda", "process"] = "process"
    costs: Costs = field(default_factory=Costs)
    asked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _ = self.start_seconds

    @property
    def start_seconds(self) -> float:
        """Time of the start, in seconds since 1970."""
        return datetime.fromisoformat(self.started).timestamp()

    @property
    def tokens_per_second(self) -> float:
        """Prefilled and generated tokens per second; 0 if the process has not ended."""
        return (self.prefilled_tokens + self.generated_tokens) / self.seconds if self.seconds else 0.0


@contextmanager
def logged(
    folder: Path, worker: Worker, asked: Sequence[str], now: Callable[[], Mapping[str, Any]], **known: Any
) -> Iterator[None]:
    """Write a line to the log before and after the ``with`` block.

    If the second line cannot be written, nothing is lost but the outcome.

    Args:
        folder: the task's folder.
        worker: the worker that the lines are about.
        asked: ids of the examples asked for, in all shards.
        now: called at the end for the remaining fields of the second line.
        known: fields of both lines that are known at the start.

    Raises:
        StoreError: the first line cannot be written.
    """
    path, begun = folder / f"runs.{worker.name}.jsonl", time.monotonic()
    common = {
        "worker": worker.name,
        "command": shlex.join(sys.argv),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "examples": len(asked),
        **known,
    }
    try:
        _append(path, common | {"outcome": "running", "asked": asked})
    except OSError as error:
        raise failed(path, "written", error) from error
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
    """The last line of each process that worked on a task, with what it asked for, in the order of their starts.

    Lines that cannot be read are skipped.

    Args:
        folder: the task's folder.
    """
    runs: dict[tuple[str, str, int, str], RunLine] = {}
    for path in sorted(folder.glob("runs.*.jsonl")):
        with suppress(OSError), path.open("rb") as file:
            for line in iter(partial(file.readline, MAX_RECORD_BYTES), b""):
                with suppress(ValueError, OverflowError, RecursionError):
                    # Unlike msgspec, json accepts lone surrogates, which a command line can contain.
                    run = msgspec.convert(json.loads(line.decode("utf-8", "replace")), RunLine)
                    key = run.worker, run.host, run.pid, run.started
                    runs[key] = structs.replace(run, asked=run.asked or (runs[key].asked if key in runs else ()))
    return sorted(runs.values(), key=lambda run: run.started)


def _append(path: Path, values: Mapping[str, Any]) -> None:
    append_line(path, json.dumps(values).encode())
