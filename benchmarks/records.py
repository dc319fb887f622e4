"""The cost of reading and reporting many records.

    python benchmarks/records.py [--examples 10000 100000] [--cells 10]

Made-up needle records, as long as those of a model with 32 layers, are written as a results folder. A process of its
own then does what ``kvgauge report`` does, and reports seconds and peak memory. Times are wall time and processor time,
with the files in the disk cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from msgspec import to_builtins  # noqa: E402

from harness.config.build import build, task_config  # noqa: E402
from harness.results import Cell, Manifest  # noqa: E402

LAYERS, PROMPT_TOKENS, NEW_TOKENS, GROUPS = 32, 8000, 30, 100
LIMIT_SECONDS, LIMIT_BYTES = 60.0, 4 * 2**30
PARTS = ("read", "tables and plots", "page")


def write(results: Path, examples: int, cells: int) -> None:
    """Write a results folder; texts and tokens of every record differ."""
    config = task_config("needle", "seed=42")
    task = build(config)
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 10))) for _ in range(5000)]
    ends = [[" ".join(draw.choices(words, k=45)), " ".join(draw.choices(words, k=45))] for _ in range(examples)]
    names = [Cell("fullkv", "full"), *(Cell(f"method{index % 4}", str(64 << index // 4)) for index in range(cells - 1))]
    for index, cell in enumerate(names):
        folder = results / "model/needle" / cell.name
        folder.mkdir(parents=True)
        manifest = Manifest(
            cell,
            index,
            "model",
            "needle",
            {},
            to_builtins(list(task.metrics)),
            task.heatmap_axes,
            "",
            config,
            {},
            None,
        )
        (folder / "manifest.json").write_text(json.dumps(to_builtins(manifest)))
        (folder / "scores.json").write_text("{}")
        kept = PROMPT_TOKENS if cell.budget == "full" else int(cell.budget)
        with (folder / "records.0.jsonl").open("w") as file:
            for number in range(examples):
                record = {
                    "example_id": f"{number % 10}-{number // 10 % 10}-{number}",
                    "group": {"length": 1000 * (number % 10 + 1), "depth": 10 * (number // 10 % 10)},
                    "references": ["eat a sandwich and sit in Dolores Park on a sunny day."],
                    "details": {},
                    "prompt_tokens": PROMPT_TOKENS,
                    "prompt_sha256": f"{number:064x}",
                    "tokens_before_truncation": None,
                    "prompt_ends": ends[number],
                    "tokens": [draw.randrange(32000) for _ in range(NEW_TOKENS)],
                    "text": " ".join(draw.choices(words, k=20)),
                    "scores": {metric.name: round(draw.random() * metric.maximum, 4) for metric in task.metrics},
                    "kept": [kept] * LAYERS,
                    "retention": kept / PROMPT_TOKENS,
                    "kept_bytes": kept * 131072,
                    "retention_bytes": kept / PROMPT_TOKENS,
                    "kept_sha256": f"{draw.getrandbits(256):064x}",
                    "tied_heads": number % 3,
                    "alias_of": None,
                    "error": None,
                }
                file.write(json.dumps(record) + "\n")


def report(results: Path) -> dict[str, float]:
    """Do what ``kvgauge report`` does, and measure its parts."""
    from harness.report.overview import write_overview
    from harness.report.task_tables import write_report
    from harness.store.reader import read_results, suites

    spent = [(time.perf_counter(), time.process_time())]
    grids = read_results(results).grids
    spent.append((time.perf_counter(), time.process_time()))
    for grid in grids:
        write_report(grid.result, results / "report" / grid.result.model / grid.result.task)
    spent.append((time.perf_counter(), time.process_time()))
    write_overview(grids, suites(grids), results / "report", {grid.result.model for grid in grids})
    spent.append((time.perf_counter(), time.process_time()))
    parts = {part: spent[index + 1][0] - spent[index][0] for index, part in enumerate(PARTS)}
    seconds, processor = (spent[-1][clock] - spent[0][clock] for clock in (0, 1))
    page = (results / "report/index.html").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**parts, "in all": seconds, "processor": processor, "peak": peak, "page_bytes": page}


def main(options: argparse.Namespace) -> None:
    """Run the benchmark and print its table."""
    shape = f"{options.cells} cells, Python {platform.python_version()}, {platform.machine()}, one core"
    rows = [f"`python benchmarks/records.py`: {shape}. Seconds of wall clock and, last, of the processor.", ""]
    rows.append(f"| records | on disk | {' | '.join(PARTS)} | in all | processor | peak memory | page |")
    rows.append("|--:|" + "--:|" * (len(PARTS) + 5))
    within = True
    for examples in options.examples:
        with tempfile.TemporaryDirectory() as temporary:
            results = Path(temporary)
            write(results, examples, options.cells)
            size = sum(path.stat().st_size for path in results.rglob("*.jsonl"))
            words = [sys.executable, __file__, "--report", temporary]
            measured = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        within &= measured["in all"] < LIMIT_SECONDS and measured["peak"] < LIMIT_BYTES
        seconds = " | ".join(f"{measured[part]:.1f} s" for part in (*PARTS, "in all", "processor"))
        sizes = f"{measured['peak'] / 2**30:.2f} GiB | {measured['page_bytes'] / 2**20:.1f} MiB"
        rows.append(f"| {examples * options.cells:,} | {size / 2**30:.2f} GiB | {seconds} | {sizes} |")
        print(rows[-1], flush=True)
    rows += ["", f"Load average while this ran: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores."]
    if options.to:
        options.to.write_text("\n".join(rows) + "\n", encoding="utf-8")
    if not within:
        raise SystemExit(f"more than {LIMIT_SECONDS:.0f} s or {LIMIT_BYTES / 2**30:.0f} GiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--cells", type=int, default=10)
    parser.add_argument("--to", type=Path, help="a Markdown file for the table")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report:
        print(json.dumps(report(options.report)))
    else:
        main(options)
