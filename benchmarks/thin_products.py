"""The speed of products of few rows with a weight matrix, by the matrix's memory layout.

    python benchmarks/thin_products.py

A matrix lies output by output, as in checkpoints, or in blocks of outputs, each input by input, as the engine lays it,
or as MKL and oneDNN pack it beforehand for so many rows, where torch was built with them. Torch multiplies the first
two, and oneDNN the blocks of another column. Every product reads another
matrix, as in a model, so that none is in the processor's cache. Results are GFLOP/s of one thread by CPU time, as
medians of alternating rounds, and whether the first two layouts give the same bits.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from outputs import add_out, out_folder
from torch import Tensor, nn

from harness.bench.clock import machine
from harness.bench.write import table, write
from harness.engine.blocked_linear import BlockedLinear
from harness.kernels.products import why_not_onednn

# Outputs, inputs: of the width-512 model, of SmolLM2-135M, and of a model of width 2048.
SHAPES = ((512, 512), (1408, 512), (1536, 576), (576, 1536), (8192, 2048), (2048, 8192))
_MATRICES_MB = 256
_Product = Callable[[Tensor], Tensor]


def packed_by_mkl(count: int, layer: nn.Linear) -> _Product:
    """The product of ``count`` rows with a weight that MKL packed."""
    weight = torch.ops.mkl._mkl_reorder_linear_weight(layer.weight, count)
    return lambda rows: torch.ops.mkl._mkl_linear(rows, weight, layer.weight, None, count)


def packed_by_onednn(count: int, layer: nn.Linear) -> _Product:
    """The product of ``count`` rows with a weight that oneDNN packed."""
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight, count)
    return lambda rows: torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")


def layouts(count: int) -> dict[str, Callable[[nn.Linear], _Product]]:
    """How a layer computes its product with ``count`` rows, by the name of its layout."""
    made: dict[str, Callable[[nn.Linear], _Product]] = {
        "output by output": lambda layer: layer,
        "in blocks": partial(BlockedLinear, kernels="torch"),
    }
    if why_not_onednn(torch.device("cpu")) is None:
        made["in blocks by oneDNN"] = partial(BlockedLinear, kernels="onednn")
    if torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        made["packed by MKL"] = partial(packed_by_mkl, count)
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        made["packed by oneDNN"] = partial(packed_by_onednn, count)
    return made


def seconds_of(rows: Tensor, layers: Sequence[_Product]) -> float:
    """CPU seconds of one product, when all layers have their turn."""
    start = time.process_time()
    for layer in layers:
        layer(rows)
    return (time.process_time() - start) / len(layers)


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1, 17, 42, 150, 2048], help="rows (default: 1 17 42 150 2048)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="medians are over them (default: 5)")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    lines = []
    for count in options.rows:
        for outputs, inputs in SHAPES:
            rows = torch.randn(count, inputs)
            layers = 2 if options.quick else max(2, _MATRICES_MB * 2**18 // (inputs * outputs))
            plain = [nn.Linear(inputs, outputs, bias=False) for _ in range(layers)]
            made = {name: [make(layer) for layer in plain] for name, make in layouts(count).items()}
            rounds = [
                {name: seconds_of(rows, products) for name, products in made.items()} for _ in range(options.rounds)
            ]
            work = 2 * count * outputs * inputs / 1e9
            first, second = (made[name][0](rows) for name in ("output by output", "in blocks"))
            lines.append(
                {
                    "rows": count,
                    "weight": f"{outputs} x {inputs}",
                    **{f"{name} GFLOP/s": median(work / taken[name] for taken in rounds) for name in made},
                    "blocks, times faster": median(taken["output by output"] / taken["in blocks"] for taken in rounds),
                    "same bits": "yes" if torch.equal(first, second) else "no",
                }
            )
    print("\n".join(table(lines)))
    for path in write(
        out, "thin_products", "Rows times a weight matrix, by how it lies in memory", machine(), lines, lines
    ):
        print(path)


if __name__ == "__main__":
    main()
