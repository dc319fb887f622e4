"""A projection of the hours that the paper's whole table would take on the card that was measured.

    python benchmarks/projection.py

The table has 5 methods x 7 budgets, 29 different cells, of 3,750 LongBench examples with Llama-3-8B's shape. Prompts
are taken to have 8,192 tokens, as in the measurements; the protocol cuts them to 7,500. With T new tokens per row:

    shared  = examples x (P + T d)                     P, d: seconds per prompt of the prefill and of a decoding step,
                                                       of all cells together
    apart   = examples x sum over cells (p + T t)      p, t: seconds of the cell's own prefill, and of its token at
                                                       batch 1
    stock   = examples x cells x g                     g: seconds of one ``generate`` of transformers with the full
                                                       cache and 64 new tokens

Everything is read from benchmarks/results/gpu/grid.json and gpu_8k/methods.json. In the latter each method is measured
at one budget, which stands for all of its budgets.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from outputs import RESULTS, add_out, out_folder

from harness.bench.write import table, write

EXAMPLES, BUDGETS, STEPS = 3750, 7, 63


def main() -> None:
    """Compute the projection, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="as without; it takes no time")
    parser.add_argument("--new", type=int, default=130, help="new tokens per row, on average (default: 130)")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    grid, methods = read("gpu/grid"), read("gpu_8k/methods")
    row = grid["table"][0]
    cells = [(each, 1 if each["cell"] == "fullkv-full" else BUDGETS) for each in methods["table"]]
    schemes = {
        "all cells from one prefill, decoded together": (row["prefill s"], options.new * row["decode s"] / STEPS),
        "one run per cell, batch 1": (
            sum(count * each["prefill s"] for each, count in cells),
            options.new * sum(count * each["decode ms per token"] / 1000 for each, count in cells),
        ),
        "as many stock generates of 64 new tokens": (None, row["cells"] * row["stock generate s"]),
    }
    rows = [
        {
            "scheme": name,
            "prefill s per example": one,
            "decode s per example": two,
            "hours": EXAMPLES * ((one or 0) + two) / 3600,
        }
        for name, (one, two) in schemes.items()
    ]
    print("\n".join(table(rows)))
    notes = [
        f"A PROJECTION by the formula in benchmarks/projection.py: {EXAMPLES:,} examples of {row['tokens']:,} tokens "
        f"with {options.new} new ones, {row['cells']} cells, kv heads. The last line has prefill and decoding in one.",
        "Not in it: loading, tokenising, scoring, rows that end before the last token, prompts that join.",
    ]
    for path in write(
        out,
        "projection",
        "Projection of the paper's whole table on one card",
        grid["machine"],
        rows,
        rows,
        notes,
    ):
        print(path)


def read(name: str) -> Mapping[str, Any]:
    """Read one of the measured tables."""
    measured: Mapping[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return measured


if __name__ == "__main__":
    main()
