"""The speed of products of few rows with a weight matrix, by the matrix's memory layout.

    python benchmarks/thin_products.py

A matrix lies output by output, as in checkpoints, or input by input. Results are GFLOP/s of one thread by CPU time, as
medians of alternating rounds, and whether both layouts give the same bits.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional

from harness.bench.clock import machine
from harness.bench.write import table, write

SHAPES = ((512, 512), (1408, 512), (512, 1408))  # outputs, inputs: those of the width-512 model


def seconds_of(rows: Tensor, weight: Tensor, times: int) -> float:
    """CPU seconds of one product."""
    start = time.process_time()
    for _ in range(times):
        functional.linear(rows, weight)
    return (time.process_time() - start) / times


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1, 17, 21, 64, 512, 4096], help="rows (default: 1 17 21 64 512 4096)"
    )
    parser.add_argument("--rounds", type=int, default=9, help="medians are over them (default: 9)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="where the files go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = []
    for count in options.rows:
        for outputs, inputs in SHAPES:
            rows, weight = torch.randn(count, inputs), torch.randn(outputs, inputs)
            transposed = weight.t().contiguous().t()
            times = 1 if options.quick else max(2, 6000 // count)
            pairs = [
                (seconds_of(rows, weight, times), seconds_of(rows, transposed, times)) for _ in range(options.rounds)
            ]
            work = 2 * count * outputs * inputs / 1e9
            lines.append(
                {
                    "rows": count,
                    "weight": f"{outputs} x {inputs}",
                    "output by output GFLOP/s": median(work / one for one, _ in pairs),
                    "input by input GFLOP/s": median(work / other for _, other in pairs),
                    "times faster": median(one / other for one, other in pairs),
                    "same bits": "yes"
                    if torch.equal(functional.linear(rows, weight), functional.linear(rows, transposed))
                    else "no",
                }
            )
    print("\n".join(table(lines)))
    for path in write(
        options.out, "thin_products", "Rows times a weight matrix, by how it lies in memory", machine(), lines, lines
    ):
        print(path)


if __name__ == "__main__":
    main()
