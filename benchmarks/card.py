"""The whole command on a card, step by step: what ``make bench-gpu`` does not do, which measures the loop alone.

    python benchmarks/card.py --model model.gguf           a model's folder or GGUF file
    python benchmarks/card.py --model part.1 part.2        a GGUF file in pieces, which are joined first
    python benchmarks/card.py --quick                      the embedded model on the CPU, to see that it works

A needle grid is started by ``python run.py``, killed with signal 9 and started again; LongBench's fixtures follow. Both
are run on a CPU, too, and records are compared. The full cache is held against ``generate``. The grid is run again with
``engine.width=auto``, where memory runs out, in half precision and with a device map. Every step prints one line with
what was found, and a step that fails does not end the others. ``--work`` keeps the folders, so that the same command
goes on where one ended.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from card_steps import ROOT, STEPS, Failed, Subject
from outputs import add_out, out_folder

from harness.bench.clock import machine
from harness.bench.write import write


def joined(pieces: Sequence[Path], folder: Path) -> Path:
    """A model's folder or file, or its pieces as one GGUF file in a folder."""
    if len(pieces) == 1:
        return pieces[0].resolve()
    whole = folder / "joined.gguf"
    with whole.open("wb") as file:
        for piece in pieces:
            file.write(piece.read_bytes())
    return whole


def subject_of(quick: bool, device: str, pieces: Sequence[Path], work: Path) -> Subject:
    """What the steps work on; quick is as small as it can be."""
    path = joined(pieces, work) if pieces else ROOT / "models/tiny"
    needle = ("task=needle", "task.depths=[0,50,100]", f"task.lengths=[{400 if quick else 1000}]")
    return Subject(
        device,
        ("model=hf", f"model.path={path}", "model.name=subject", "model.max_prompt_tokens=1000"),
        path,
        ("method=[fullkv,h2o,snapkv]", "budget=[48]") if quick else ("method=all", "budget=[64,128]"),
        (*needle, f"task.max_new_tokens={4 if quick else 16}"),
        (
            "task=longbench",
            f"task.data={ROOT}/tests/fixtures/longbench",
            f"task.datasets={'[trec]' if quick else '[hotpotqa,trec,lcc]'}",
            f"limit={1 if quick else 2}",
            f"task.max_new_tokens={4 if quick else 16}",
        ),
        work,
    )


def main() -> None:
    """Take the steps, print a line for each and write the files; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the embedded model on the CPU, small sizes")
    parser.add_argument("--device", help="cpu, cuda or cuda:1 (default: cuda, quick: cpu)")
    parser.add_argument(
        "--model", type=Path, nargs="+", default=[], help="a folder, a GGUF file or its pieces in order"
    )
    names = [step.__name__ for step in STEPS]
    parser.add_argument("--steps", nargs="+", choices=names, default=names, help="only these (default: all)")
    parser.add_argument("--work", type=Path, help="a folder for the results of all runs (default: one that is deleted)")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    device = options.device or ("cpu" if options.quick else "cuda")
    if options.quick:
        torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        subject = subject_of(options.quick, device, options.model, work.resolve())
        for step in STEPS:
            if step.__name__ not in options.steps:
                continue
            begun = time.monotonic()
            try:
                state, found = "ok", step(subject)
            except Exception as error:  # the next step may still find something
                lines = str(error).splitlines() or [""]
                kind = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
                state, found = "FAILED", f"{kind}{lines[0]}"
            rows.append({"step": step.__name__, "state": state, "found": found, "s": time.monotonic() - begun})
            print(f"{step.__name__}: {state}: {found} ({rows[-1]['s']:.0f} s)", flush=True)
            write(out, "card", f"The whole command on {device}", machine(), rows, rows)
    if any(row["state"] != "ok" for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
