"""Rows of one prompt that share its keys and values, beside rows with entries of their own: a step's attention.

    python benchmarks/shared_rows.py                the heads of SmolLM2-135M, 2,048 tokens
    python benchmarks/shared_rows.py --heads 32 8   other query and kv heads
    python benchmarks/shared_rows.py --quick        one line, to see that it works

All rows keep the same share of the prompt, for each kv head. Every layer has tensors of its own, as in a model, so that
entries of rows are in no cache of the processor. Times are CPU milliseconds of one thread for a layer, as medians of
alternating rounds. "Times faster" is the median of the ratios, by torch's own products and, where torch has it, by
those of oneDNN.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from outputs import add_out, out_folder
from torch import Tensor

from harness.bench.clock import machine
from harness.bench.write import table, write
from harness.engine.buckets import Bucket, Joining
from harness.engine.chosen import ChosenKV, SharedBucket
from harness.kernels import Kernels
from harness.kernels.products import why_not_onednn

DIM = 64
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
_LAYERS_MB = 256
_STEPS = 63


def seconds_of(buckets: Sequence[Bucket], new: Sequence[Tensor]) -> float:
    """CPU seconds of one step of a layer, when all layers have their turn."""
    start = time.process_time()
    for bucket in buckets:
        bucket.attend(new[0], new[1], new[2], DIM**-0.5, 0)
    return (time.process_time() - start) / len(buckets)


def line(rows: int, share: float, heads: tuple[int, int], tokens: int, rounds: int) -> dict[str, object]:
    """One line of the table, for so many query and kv heads."""
    query_heads, kv_heads = heads
    kept = max(1, int(share * tokens))
    layers = max(2, _LAYERS_MB * 2**20 // (8 * rows * kv_heads * kept * DIM))
    libraries: tuple[Kernels, ...] = ("torch",) if why_not_onednn(torch.device("cpu")) else ("torch", "onednn")
    joining, own, shared = Joining(0, _STEPS), list[Bucket](), {library: list[Bucket]() for library in libraries}
    for _ in range(layers):
        keys, values = torch.randn(kv_heads, tokens, DIM), torch.randn(kv_heads, tokens, DIM)
        picked = [torch.stack([torch.randperm(tokens)[:kept].sort().values for _ in keys]).int() for _ in range(rows)]
        chosen = [ChosenKV(keys, values, None, indices) for indices in picked]
        for library, buckets in shared.items():
            buckets.append(SharedBucket.of([replace(each, kernels=library) for each in chosen], joining))
        gathered = [each.gathered() for each in chosen]
        own += gathered[0].buckets(gathered, joining)
    new = [torch.randn(rows, count, 1, DIM) for count in (query_heads, kv_heads, kv_heads)]
    taken, found = list[float](), {library: list[float]() for library in libraries}
    for _ in range(rounds):
        taken.append(seconds_of(own, new))
        for library, buckets in shared.items():
            found[library].append(seconds_of(buckets, new))
    row: dict[str, object] = {"rows": rows, "share kept": f"1/{round(1 / share)}"}
    row["own ms"] = median(taken) * 1e3
    for library, seconds in found.items():
        row[f"shared by {library} ms"] = median(seconds) * 1e3
        row[f"{library}: times faster"] = median(a / b for a, b in zip(taken, seconds, strict=True))
    return row


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one line, few repetitions")
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 17, 42, 85], help="rows (default: 4 17 42 85)")
    parser.add_argument("--heads", type=int, nargs=2, default=[9, 3], help="query and kv heads (default: 9 3)")
    parser.add_argument("--tokens", type=int, default=2048, help="length of the prompt (default: 2048)")
    parser.add_argument("--rounds", type=int, default=5, help="medians are over them (default: 5)")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    points = [(rows, share) for rows in options.rows for share in SHARES]
    if options.quick:
        points, options.tokens, options.rounds = [(4, 1 / 4)], 256, 1
    heads = options.heads[0], options.heads[1]
    lines = [line(rows, share, heads, options.tokens, options.rounds) for rows, share in points]
    print("\n".join(table(lines)))
    title = f"A step's attention of rows that share a prompt of {options.tokens} tokens, per layer"
    for path in write(out, "shared_rows", title, machine(), lines, lines):
        print(path)


if __name__ == "__main__":
    main()
