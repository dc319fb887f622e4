"""The tokens and seconds that ``engine.reuse_prefix=true`` saves on the needle grid of 8 lengths and 11 depths.

    python benchmarks/prefix.py            the embedded model, lengths of 250 to 2000 tokens, all five methods
    python benchmarks/prefix.py --quick    two lengths and three depths, to see that it works

Each run is a process of its own; times are CPU time of one thread. Generated tokens must be the same in all cells.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from outputs import add_out, out_folder  # noqa: E402

from harness.bench.clock import machine  # noqa: E402
from harness.bench.write import table, write  # noqa: E402

LENGTHS, DEPTHS = list(range(250, 2001, 250)), list(range(0, 101, 10))
Records = dict[str, list[tuple[Any, ...]]]


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small grid")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    torch.set_num_threads(1)
    lengths, depths = (LENGTHS[1::4], DEPTHS[::5]) if options.quick else (LENGTHS, DEPTHS)
    words = ["method=published", "budget=[64,128]", f"task.lengths={lengths}", f"task.depths={depths}"]
    rows, records = [], []
    for reuse in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            prefilled, seconds, by_cell = run(
                [*words, f"engine.reuse_prefix={str(reuse).lower()}", f"results_dir={folder}"]
            )
        records.append(by_cell)
        prompt_tokens = sum(tokens for _, tokens, _, _ in next(iter(by_cell.values())))
        rows.append(
            {
                "engine.reuse_prefix": str(reuse).lower(),
                "prompts": len(lengths) * len(depths),
                "cells": len(by_cell),
                "prompt tokens": prompt_tokens,
                "prefilled tokens": prefilled or prompt_tokens,
                "share": (prefilled or prompt_tokens) / prompt_tokens,
                "s": seconds,
            }
        )
        print("\n".join(table([rows[-1]])), flush=True)
    pairs = [pair for cell, plain in records[0].items() for pair in zip(plain, records[1][cell], strict=True)]
    if any(one[:3] != other[:3] for one, other in pairs):
        raise SystemExit("generated tokens differ: report this as a bug")
    kept = sum(one[3] != other[3] for one, other in pairs)
    title = f"Prefix reuse on the needle grid: {len(lengths)} lengths x {len(depths)} depths, embedded model"
    notes = [
        f"All {len(pairs)} records have the same tokens in both runs; "
        f"in {kept} of them rounding moved the kept set at a near-tie.",
        "Seconds are CPU time of the whole process, loading included.",
    ]
    for path in write(
        out, "prefix", title, machine(), rows, {"lengths": lengths, "depths": depths, "rows": rows}, notes
    ):
        print(path)


def run(words: list[str]) -> tuple[int | None, float, Records]:
    """Run a grid by the command line.

    Args:
        words: Hydra overrides; the last one is ``results_dir``.

    Returns:
        The number of prefilled tokens (None if none were shared), CPU seconds, and parts of the records by cell.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    shared = re.search(r"prefilled tokens: ([\d,]+) of", done.stdout)
    folder = Path(words[-1].partition("=")[2])
    by_cell: Records = {}
    for file in sorted(folder.glob("tiny/needle/*/records.*.jsonl")):
        lines = map(json.loads, file.read_text("utf-8").splitlines())
        by_cell[file.parent.name] = sorted(
            (r["example_id"], r["prompt_tokens"], r["tokens"], r["kept_sha256"]) for r in lines
        )
    return int(shared[1].replace(",", "")) if shared else None, seconds, by_cell


if __name__ == "__main__":
    main()
