"""What the paper's whole table would take on one card. A projection, not a measurement: ``python benchmarks/projection.py``.

5 methods x 7 budgets, 29 different cells, of 3,750 LongBench examples with Llama-3-8B. Per prompt of n tokens, T new tokens, R rows:

    prefill  = (2 p n + 2 L h n^2) / (FLOP/s)          p weights but embeddings, L layers, h hidden size; causal attention
    step(W)  = max(2 p W / (FLOP/s), (bytes of p + W k) / (bytes/s))          W rows together, k bytes of kept entries per row
    shared   = examples x (s x prefill + R T step(W) / W)          s, R: measured
    apart    = examples x 29 x (prefill + T step(1))

Measured, on a CPU (benchmarks/results/profile.json, grid.json): s, what a prefill for all cells takes over a plain one with SDPA, and the
share of cells that are rows of their own. Everything else is given below or on the command line; the card's rates are its data sheet's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from shapes import LLAMA_3_8B

from harness.bench.write import table, write

RESULTS = Path(__file__).parent / "results"
CELLS, EXAMPLES, PROMPT, NEW = 29, 3750, 7500, 130
BUDGETS = (64, 96, 128, 256, 512, 1024, 2048)


def main() -> None:
    """Compute, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="as without; it takes no time")
    parser.add_argument("--card", default="H100 SXM, data sheet", help="what the card is called")
    parser.add_argument("--tflops", type=float, default=989.0, help="dense bfloat16 TFLOP/s (default: 989)")
    parser.add_argument("--tbytes", type=float, default=3.35, help="TB/s of its memory (default: 3.35)")
    parser.add_argument("--used-flops", type=float, default=0.5, help="share of these that is reached, assumed (default: 0.5)")
    parser.add_argument("--used-bytes", type=float, default=0.6, help="likewise (default: 0.6)")
    parser.add_argument("--width", type=int, default=64, help="rows that decode together (default: 64)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    options = parser.parse_args()
    overhead, share = measured()
    flops, rate = options.tflops * 1e12 * options.used_flops, options.tbytes * 1e12 * options.used_bytes
    of = LLAMA_3_8B
    dim = of.hidden_size // of.num_attention_heads
    kv = of.num_key_value_heads * dim
    layer = of.hidden_size * (2 * of.hidden_size + 2 * kv + 3 * of.intermediate_size)
    weights = of.num_hidden_layers * layer + of.vocab_size * of.hidden_size
    entry = 2 * 2 * kv * of.num_hidden_layers  # bytes of a key and a value in all layers, kv heads, bfloat16
    kept = (4 * sum(BUDGETS) + PROMPT) / CELLS * entry

    def step(width: int, each: float) -> float:
        return max(2 * weights * width / flops, (2 * weights + width * each) / rate)

    prefill = (2 * weights * PROMPT + 2 * of.num_hidden_layers * of.hidden_size * PROMPT**2) / flops
    shared = (overhead * prefill, CELLS * share * NEW * step(options.width, kept) / options.width)
    apart = (CELLS * prefill, CELLS * NEW * step(1, kept))
    rows = [
        {"scheme": name, "prefill s per example": one, "decode s per example": two, "hours": EXAMPLES * (one + two) / 3600}
        for name, (one, two) in (("one prefill, wide decoding", shared), ("one run per cell, batch 1", apart))
    ]
    print("\n".join(table(rows)))
    given = {
        "card": options.card,
        "TFLOP/s": options.tflops,
        "of which used": options.used_flops,
        "TB/s": options.tbytes,
        "of which used ": options.used_bytes,
        "width": options.width,
    }
    notes = [
        f"A PROJECTION by the formula in benchmarks/projection.py: {EXAMPLES:,} examples of {PROMPT:,} tokens with {NEW} new ones, "
        f"{CELLS} cells, kv heads.",
        f"Measured on a CPU: all cells' prefill takes {overhead:.2f} times a plain SDPA one; {share:.0%} of cells are rows of their own.",
        "Not in it: loading, tokenising, scoring, launch overhead, ends before the last token. The second line is what the hardware "
        "allows, not what a program of today takes.",
    ]
    for path in write(options.out, "projection", "Projection of the paper's whole table on one card", given, rows, rows, notes):
        print(path)


def measured() -> tuple[float, float]:
    """The two ratios, at 4,096 tokens and kv heads."""
    profile = json.loads((RESULTS / "profile.json").read_text("utf-8"))["raw"]
    ours = sum(seconds for part, seconds in profile["4096 after s"].items() if part.startswith("prefill"))
    grid = json.loads((RESULTS / "grid.json").read_text("utf-8"))["table"]
    row = next(row for row in grid if row["tokens"] == 4096 and row["heads"] == "kv_head")
    return ours / profile["sdpa"]["4096"], row["rows"] / row["cells"]


if __name__ == "__main__":
    main()
