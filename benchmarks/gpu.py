"""All benchmarks of a CUDA device in one command, ``make bench-gpu``.

    python benchmarks/gpu.py            Llama-3-8B's shape, random bfloat16 weights, prompts of 8k and 32k tokens
    python benchmarks/gpu.py --tokens 8192 --prompts 8 --parts grid    232 rows, of the bandwidth that decoding reaches
    python benchmarks/gpu.py --quick    a small shape on the CPU, to see that it works

They are: the grid against a stock ``generate``; each method by itself; peak memory; rows in reverse order and alone,
and attention against exact rows; H2O's column sums by torch and by the Triton kernel (not on a CPU).
``docs/performance.md`` has the numbers of one card.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from outputs import add_out, out_folder
from shapes import LLAMA_3_8B, WIDTH_512, make_subject

from harness.bench import PARTS
from harness.bench.parts import measure

BUDGETS = [64, 96, 128, 256, 512, 1024, 2048]


def main() -> None:
    """Run the benchmarks and write their files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small shape on the CPU")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 32768], help="lengths (default: 8192 32768)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--prompts", type=int, default=2, help="prompts decoded together (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over them (default: 3)")
    parser.add_argument("--alone", action="store_true", help="in the grid, also every cell by itself")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options, "gpu")
    if options.quick:
        torch.set_num_threads(1)
        subject = make_subject("width-512", WIDTH_512, "cpu", "kv_head", BUDGETS[:1], 3)
        two = tuple(variant for variant in subject.variants if variant.cell.label in ("fullkv", "h2o"))
        measure(replace(subject, variants=two), options.parts, [80], 2, 1, out, print, options.alone)
    elif torch.cuda.is_available():
        subject = make_subject("llama-3-8b-shape", LLAMA_3_8B, "cuda", "kv_head", BUDGETS, 64)
        measure(
            replace(subject, kernels="triton"),
            options.parts,
            options.tokens,
            options.prompts,
            options.rounds,
            out,
            print,
            options.alone,
        )
    else:
        raise SystemExit("no CUDA device is here: --quick shows on the CPU that it works")


if __name__ == "__main__":
    main()
