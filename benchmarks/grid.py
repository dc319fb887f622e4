"""The cost of a grid of 21 cells, against one run per cell and against one stock ``generate``.

    python benchmarks/grid.py            1k, 2k and 4k tokens, both granularities, four prompts together at 1k
    python benchmarks/grid.py --quick    a few seconds, to see that it works

The grid has five budgets of the five published methods or, with ``--methods all``, of every method that needs no file.
The model has eight layers of width 512 with random weights; 64 new tokens are generated. Times are CPU time of one
thread, and a round runs in one process.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import torch
from outputs import add_out, out_folder
from shapes import WIDTH_512, make_subject

from harness.bench.clock import machine
from harness.bench.grid import grid_cost
from harness.bench.write import table, write

# (tokens, prompts decoded together); one run per cell is measured if there is one prompt.
POINTS = ((1024, 1), (1024, 4), (2048, 1), (4096, 1))
QUICK = ((96, 1), (96, 2))
BUDGETS = [64, 128, 256, 512, 1024]


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over them (default: 3)")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[1024, 2048, 4096], help="lengths (default: 1024 2048 4096)"
    )
    parser.add_argument("--heads", nargs="+", default=["kv_head", "query_head"], help="granularities (default: both)")
    parser.add_argument(
        "--grid-only", action="store_true", help="leave out the runs of one cell each, which take most of the time"
    )
    parser.add_argument("--methods", default="published", help="published, all, or names in brackets")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    torch.set_num_threads(1)
    costs = []
    for granularity in options.heads:
        subject = make_subject(
            "width-512",
            WIDTH_512,
            "cpu",
            granularity,
            BUDGETS[:2] if options.quick else BUDGETS,
            8 if options.quick else 64,
            options.methods,
        )
        engine = subject.engine()
        for tokens, prompts in QUICK if options.quick else [point for point in POINTS if point[0] in options.tokens]:
            alone = prompts == 1 and not options.grid_only
            costs.append(grid_cost(subject, engine, tokens, prompts, 1 if options.quick else options.rounds, alone))
            print("\n".join(table([costs[-1].row()])), flush=True)
    title = "A grid from shared prefills and wide decoding: 8 layers of width 512, float32"
    for path in write(
        out,
        "grid" if options.methods == "published" else "grid_methods",
        title,
        machine(),
        [cost.row() for cost in costs],
        [asdict(cost) for cost in costs],
    ):
        print(path)


if __name__ == "__main__":
    main()
