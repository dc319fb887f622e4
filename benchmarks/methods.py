"""The cost of each method by itself, for users of a single method.

    python benchmarks/methods.py            prompts of 1k, 4k and 16k tokens
    python benchmarks/methods.py --quick    small sizes, to see that it works

It takes the model of ``grid.py``, budget 128 and one prompt at batch 1, and measures the prefill and what selection
adds to it, the time per new token, and peak memory. Times are CPU time of one thread; the full cache and all methods
take turns within a round.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import torch
from outputs import add_out, out_folder
from shapes import WIDTH_512, make_subject

from harness.bench.clock import machine
from harness.bench.methods import method_costs
from harness.bench.write import table, write


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over them (default: 3)")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[1024, 4096, 16384], help="lengths (default: 1024 4096 16384)"
    )
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    torch.set_num_threads(1)
    subject = make_subject("width-512", WIDTH_512, "cpu", "kv_head", [128], 4 if options.quick else 32)
    engine = subject.engine()
    costs = []
    for tokens in [160] if options.quick else options.tokens:
        costs += method_costs(subject, engine, tokens, 1 if options.quick else options.rounds)
        print("\n".join(table([cost.row() for cost in costs if cost.tokens == tokens])), flush=True)
    title = "Each method by itself, batch 1: 8 layers of width 512, float32, kv heads, budget 128"
    for path in write(
        out, "methods", title, machine(), [cost.row() for cost in costs], [asdict(cost) for cost in costs]
    ):
        print(path)


if __name__ == "__main__":
    main()
