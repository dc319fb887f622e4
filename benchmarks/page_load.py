"""Load time of a large report page.

    python benchmarks/page_load.py [--examples 2000] [--cells 13] [--methods 4] [--words 60]
    python benchmarks/page_load.py --examples 500 --cells 150 --methods 30

A made-up grid is written as a page, and its file is opened in headless Chromium several times. A page counts as loaded
when its list of examples is shown; then the last example is searched for and opened. Times are wall time, with the file
in the disk cache.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from msgspec import to_builtins
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from harness.report.page.write import write_page  # noqa: E402
from harness.results import Cell, CellResult, Manifest, Record, TaskResult  # noqa: E402
from harness.store.reader import Grid  # noqa: E402
from harness.task import Metric  # noqa: E402

METRIC = Metric("f1", "F1", 1.0)
LAYERS = 32
PROMPT_TOKENS = 8000
ROUNDS = 5
LIMIT_SECONDS = 3.0


def grid(examples: int, cells: int, methods: int, words: int) -> Grid:
    """A grid of random texts; those of one example resemble each other, as the texts of methods do."""
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 10))) for _ in range(5000)]
    texts = [draw.choices(vocabulary, k=words) for _ in range(examples)]

    def record(number: int, budget: int) -> Record:
        answer = [draw.choice(vocabulary) if draw.random() < 0.2 else word for word in texts[number]]
        return Record(
            example_id=f"example-{number:04}",
            group={"length": PROMPT_TOKENS},
            references=(" ".join(texts[number][:8]),),
            details={},
            prompt_tokens=PROMPT_TOKENS,
            prompt_sha256=None,
            prompt_ends=(" ".join(draw.choices(vocabulary, k=50)), " ".join(texts[number][:50])),
            text=" ".join(answer),
            scores={"f1": round(draw.random(), 4)},
            kept=(budget,) * LAYERS,
            retention=budget / PROMPT_TOKENS,
        )

    names = [Cell(f"method{index % methods}", str(64 << index // methods)) for index in range(cells)]
    results = tuple(
        CellResult(cell, examples, tuple(record(number, int(cell.budget)) for number in range(examples)))
        for cell in names
    )
    result = TaskResult("model", "task", (METRIC,), None, "", results, None)
    manifests = {
        cell: Manifest(
            cell,
            index,
            "model",
            "task",
            {"budget": cell.budget},
            [to_builtins(METRIC)],
            None,
            "",
            {"name": "task"},
            {},
            None,
        )
        for index, cell in enumerate(names)
    }
    return Grid(result, manifests, {cell: Path(cell.name) for cell in names})


def main(options: argparse.Namespace, folder: Path) -> None:
    """Run the benchmark and print the times.

    Args:
        options: of the command line.
        folder: where the page goes if ``--to`` is not given.
    """
    made = grid(options.examples, options.cells, options.methods, options.words)
    begin = time.perf_counter()
    path = write_page([made], [], [], options.to or folder / "index.html").resolve()
    print(
        f"{options.examples} examples x {options.cells} cells of {options.methods} methods, {options.words} words "
        f"each, Python {platform.python_version()}"
    )
    print(f"written in {time.perf_counter() - begin:.2f} s, {path.stat().st_size / 2**20:.1f} MiB")
    loads, opens = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        print(f"Chromium {browser.version}, median of {ROUNDS} loads")
        for _ in range(ROUNDS):
            page = browser.new_page()
            begin = time.perf_counter()
            page.goto(path.as_uri())
            page.locator(".examples .row").first.wait_for()
            loads.append(time.perf_counter() - begin)
            last = f"example-{options.examples - 1:04}"
            begin = time.perf_counter()
            page.locator(".examples input").fill(last)
            page.locator(".examples .row", has_text=last).click()
            page.locator("dialog .card").last.wait_for()
            opens.append(time.perf_counter() - begin)
            page.close()
        browser.close()
    print(f"loaded in {median(loads):.2f} s (slowest {max(loads):.2f})")
    print(f"last example found and opened in {median(opens):.2f} s (slowest {max(opens):.2f})")
    if max(loads) >= LIMIT_SECONDS:
        raise SystemExit(f"slower than {LIMIT_SECONDS} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--cells", type=int, default=13)
    parser.add_argument("--methods", type=int, default=4)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--to", type=Path)
    with tempfile.TemporaryDirectory() as temporary:
        main(parser.parse_args(), Path(temporary))
