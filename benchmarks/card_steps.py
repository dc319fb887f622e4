"""The steps of ``card.py``: each returns one line with what it found, and raises an error if that is wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from harness.api import Engine, read  # noqa: E402
from harness.cli.main import main as kvgauge  # noqa: E402
from harness.compression.grid import Plan  # noqa: E402
from harness.compression.selection import Selection  # noqa: E402
from harness.engine.memory import held_at_most, reset_peak  # noqa: E402
from harness.engine.rows import Limits  # noqa: E402
from harness.engine.running import Running, SharedRow  # noqa: E402

Key = tuple[str, str, str, str]


class Failed(Exception):
    """A step found something that should not be."""


@dataclass(frozen=True)
class Subject:
    """What all steps share.

    Attributes:
        device: the device under test.
        model: the words of the command line that choose the model.
        path: the model's folder or file.
        grid: the words that choose methods and budgets.
        needle: the words of the needle task.
        longbench: the words of LongBench.
        work: the folder of all results.
    """

    device: str
    model: tuple[str, ...]
    path: Path
    grid: tuple[str, ...]
    needle: tuple[str, ...]
    longbench: tuple[str, ...]
    work: Path

    def words(self, name: str, *more: str) -> list[str]:
        """The words of a needle run, or of one of LongBench if its name begins so, into the folder ``name``."""
        task = self.longbench if name.startswith("longbench") else self.needle
        chosen = {word.partition("=")[0]: word for word in (*self.model, *self.grid, *task, *self.defaults, *more)}
        return [*chosen.values(), f"results_dir={self.work / name}"]

    @property
    def defaults(self) -> tuple[str, ...]:
        """What holds unless a step says otherwise."""
        return (f"model.device={self.device}", "model.dtype=float32")


def run(words: Sequence[str]) -> str:
    """Run the command in this process, and return what it printed.

    Raises:
        Failed: its exit code is not 0.
    """
    told, errors, code = StringIO(), StringIO(), 0
    with patch.object(sys, "argv", ["run.py", *words]), redirect_stdout(told), redirect_stderr(errors):
        try:
            kvgauge()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    if code:
        last = [*told.getvalue().splitlines(), *errors.getvalue().splitlines()][-1:]
        raise Failed(f"exit code {code}: {' '.join(last)[:200]}")
    return told.getvalue()


def records(folder: Path) -> dict[Key, Mapping[str, Any]]:
    """The records of a results folder, by task, method, budget and example.

    Raises:
        Failed: one is an error.
    """
    found = {(r["task"], r["method"], str(r["budget"]), r["example_id"]): r for r in read(folder).records()}
    errors = [f"{' '.join(key)}: {record['error']}" for key, record in found.items() if record.get("error")]
    if errors:
        raise Failed(f"{len(errors)} of {len(found)} records are errors, such as {errors[0][:160]}")
    return found


def compared(one: Mapping[Key, Mapping[str, Any]], other: Mapping[Key, Mapping[str, Any]]) -> str:
    """How records of two ways differ: kept sets, those of them with ties, and tokens where the sets are equal.

    Raises:
        Failed: they are of other examples.
    """
    if one.keys() != other.keys():
        raise Failed(f"{len(one)} and {len(other)} records, of which {len(one.keys() & other.keys())} are of the same")
    same = [key for key in one if one[key]["kept_sha256"] == other[key]["kept_sha256"]]
    differ = one.keys() - set(same)
    tied = sum(bool(one[key]["tied_heads"] or other[key]["tied_heads"]) for key in differ)
    tokens = sum(one[key]["tokens"] == other[key]["tokens"] for key in same)
    where = sorted({f"{key[1]}-{key[2]}" for key in differ})
    named = f" ({', '.join(where[:6])}{', …' if len(where) > 6 else ''}; {tied} with ties)" if differ else ""
    return f"kept sets equal in {len(same)} of {len(one)}{named}, tokens in {tokens} of those {len(same)}"


def command(subject: Subject) -> str:
    """Start ``python run.py``, kill it when the first records are written, and start it again."""
    folder = subject.work / "needle"
    words = [
        sys.executable,
        str(ROOT / "run.py"),
        *subject.words("needle", "engine.width=8", "engine.unsaved_tokens=1"),
    ]
    with (subject.work / "needle.log").open("w") as log:
        begun = time.monotonic()
        killed = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        while killed.poll() is None and not written(folder):
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        ended = killed.wait() != -signal.SIGKILL
        before, after = written(folder), time.monotonic() - begun
        done = subprocess.run(words, stdout=log, stderr=log, check=False)
    if done.returncode:
        last = (subject.work / "needle.log").read_text().splitlines()[-1:]
        raise Failed(f"exit code {done.returncode} after the kill: {' '.join(last)[:200]}")
    found = records(folder)
    state = "it had ended before" if ended else f"killed after {after:.0f} s with {before}"
    if written(folder) != len(found):
        raise Failed(f"{written(folder)} lines for {len(found)} records")
    return f"{state} of {len(found)} records, which the second start completed"


def written(folder: Path) -> int:
    """Number of records that are in the files of a results folder."""
    return sum(file.read_bytes().count(b"\n") for file in folder.rglob("records.*.jsonl"))


def report(subject: Subject) -> str:
    """The files that a reader opens: tables, heatmaps, the page."""
    folder = subject.work / "needle"
    kinds = {kind: sorted(folder.rglob(f"*.{kind}")) for kind in ("html", "csv", "png")}
    if absent := [kind for kind, files in kinds.items() if not any(file.stat().st_size for file in files)]:
        raise Failed(f"no {', '.join(absent)} among the results")
    return ", ".join(
        f"{len(files)} {kind} of {sum(file.stat().st_size for file in files) / 1000:.0f} kB"
        for kind, files in kinds.items()
    )


def longbench(subject: Subject) -> str:
    """LongBench's fixtures on the device."""
    run(subject.words("longbench"))
    found = records(subject.work / "longbench")
    return f"{len(found)} records of {len({key[0] for key in found})} datasets"


def beside_a_cpu(subject: Subject) -> str:
    """The same two grids on a CPU, in float32."""
    parts = []
    for name in ("needle", "longbench"):
        run(subject.words(f"{name}-cpu", "model.device=cpu"))
        parts.append(f"{name}: {compared(records(subject.work / name), records(subject.work / f'{name}-cpu'))}")
    return "; ".join(parts)


def generate(subject: Subject) -> str:
    """The full cache of the engine against ``generate`` of transformers, in float32 on the device."""
    engine = Engine.load(subject.path, dtype="float32", device=subject.device)
    selection = Selection(granularity="kv_head", group="mean", ties="stable", dtype="float32")
    generator, new_tokens = torch.Generator().manual_seed(0), 32
    prompts = [
        torch.randint(2, engine.model.config.vocab_size, (tokens,), generator=generator) for tokens in (60, 200, 700)
    ]
    limits = Limits(frozenset(), new_tokens)
    plans = [[Plan((len(ids),) * engine.layers, None)] for ids in prompts]
    ours = [
        engine.generate(ids.tolist(), plan, selection, limits)[0].tokens
        for ids, plan in zip(prompts, plans, strict=True)
    ]
    engine.model.set_attn_implementation("sdpa")
    same = 0
    for ids, tokens in zip(prompts, ours, strict=True):
        out = engine.model.generate(
            ids[None].to(engine.device),
            attention_mask=torch.ones_like(ids[None], device=engine.device),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
        )
        same += tuple(out[0, len(ids) :].tolist()) == tokens
    found = f"{same} of {len(prompts)} answers of {new_tokens} tokens equal, kernels {engine.kernels}"
    if same < len(prompts):
        raise Failed(found)
    return found


def auto_width(subject: Subject) -> str:
    """``engine.width=auto``."""
    told = run(subject.words("auto", "engine.width=auto", "engine.unsaved_tokens=auto"))
    (chosen,) = [line for line in told.splitlines() if line.startswith("engine.width=auto")]
    return f"{chosen.split(': ')[-1]}; {compared(records(subject.work / 'auto'), records(subject.work / 'needle'))}"


def out_of_memory(subject: Subject) -> str:
    """A run in which memory runs out: less and less of what it takes is allowed until it does."""
    words = ("engine.width=256", "engine.unsaved_tokens=auto")
    device = torch.device(subject.device)
    if device.type == "cuda":
        reset_peak(device)
        run(subject.words("memory", *words))
    peak = held_at_most(device)
    for percent in range(95, 45, -5):
        folder = f"memory-{percent}"
        with provoked(device, peak * percent // 100):
            told = run(subject.words(folder, *words))
        if lines := [line for line in told.splitlines() if "out of memory: going on with" in line]:
            how = f"{percent} % of {peak / 1e6:.0f} MB allowed" if device.type == "cuda" else "a stand-in raised"
            result = compared(records(subject.work / folder), records(subject.work / "needle"))
            return f"{how}: {lines[0].partition(': ')[2].partition(';')[0]}; {result}"
    raise Failed("memory never ran out")


@contextmanager
def provoked(device: torch.device, allowed: int) -> Iterator[None]:
    """Allow the allocator so many bytes; on a CPU, where it has no limit, let the first decoding step raise."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(device).total_memory)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    real, left = Running.advance, [1]

    def advance(running: Running, width: int) -> list[SharedRow]:
        if left:
            left.pop()
            raise torch.OutOfMemoryError("out of memory, as a stand-in")
        return real(running, width)

    with patch.object(Running, "advance", advance):
        yield


def half_precision(subject: Subject) -> str:
    """bfloat16 and float16."""
    parts = []
    for dtype in ("bfloat16", "float16"):
        run(subject.words(dtype, f"model.dtype={dtype}"))
        parts.append(f"{dtype}: {compared(records(subject.work / dtype), records(subject.work / 'needle'))}")
    return "; ".join(parts)


def device_map(subject: Subject) -> str:
    """A model placed by accelerate."""
    run(subject.words("map", "model.device_map=auto"))
    return compared(records(subject.work / "map"), records(subject.work / "needle"))


STEPS: tuple[Callable[[Subject], str], ...] = (
    command,
    report,
    longbench,
    generate,
    beside_a_cpu,
    auto_width,
    out_of_memory,
    half_precision,
    device_map,
)
