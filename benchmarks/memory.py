"""Peak memory by prompt length, for FullKV alone and for a grid of five budgets, as 21 cells of the published methods.

    python benchmarks/memory.py            prompts of 4k to 32k tokens
    python benchmarks/memory.py --quick    one length, to see that it works
    python benchmarks/memory.py --tokens 16384 --heads kv_head --methods [fullkv,cake]

It takes the model of ``grid.py``. Every point is measured in a process of its own, as the growth of its resident set.
"""

from __future__ import annotations

import argparse

import torch
from outputs import add_out, out_folder
from shapes import WIDTH_512, make_subject

from harness.bench.clock import machine
from harness.bench.memory import peak_of_a_process
from harness.bench.write import table, write

BUDGETS = [64, 128, 256, 512, 1024]
NEW_TOKENS = 4


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument(
        "--tokens",
        type=int,
        nargs="+",
        default=[4096, 8192, 16384, 32768],
        help="lengths (default: 4096 8192 16384 32768)",
    )
    parser.add_argument("--heads", nargs="+", default=["kv_head", "query_head"], help="granularities (default: both)")
    parser.add_argument("--methods", default="published", help="all, or names in brackets, fullkv among them")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    torch.set_num_threads(1)
    rows = []
    subjects = {
        heads: make_subject(
            "width-512",
            WIDTH_512,
            "cpu",
            heads,
            BUDGETS[:2] if options.quick else BUDGETS,
            NEW_TOKENS,
            options.methods,
        )
        for heads in options.heads
    }
    for tokens in [512] if options.quick else options.tokens:
        alone = [variant for variant in next(iter(subjects.values())).variants if variant.method.scorer is None]
        full = peak_of_a_process(next(iter(subjects.values())), alone, tokens)
        for heads, grid in subjects.items():
            together = peak_of_a_process(grid, grid.variants, tokens)
            ratio = together / full if full else None
            rows.append(
                {
                    "tokens": tokens,
                    "heads": heads,
                    "FullKV MB": full / 1e6,
                    "grid MB": together / 1e6,
                    "grid / FullKV": ratio,
                }
            )
            print("\n".join(table([rows[-1]])), flush=True)
    title = "Peak memory beyond the model, FullKV alone and a grid together: 8 layers of width 512, float32"
    name = "memory" if options.methods == "published" else "memory_methods"
    for path in write(out, name, title, machine(), rows, rows):
        print(path)


if __name__ == "__main__":
    main()
