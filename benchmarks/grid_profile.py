"""Where the time of the grid goes, with and without sharing, and its lower bound.

    python benchmarks/grid_profile.py            prompts of 1k and 4k tokens
    python benchmarks/grid_profile.py --quick    small sizes, to see that it works

It takes the model and the 21 cells of ``grid.py``, and one prompt. The columns "before" are without sharing and wide
decoding: every cell has its own prefill and decodes at batch 1. There, one budget per method is measured and counted as
often as the grid has budgets. Times are CPU time of one thread.
"""

from __future__ import annotations

import argparse
from collections import Counter

import torch
from outputs import add_out, out_folder
from shapes import WIDTH_512, make_subject

from harness.bench.clock import machine
from harness.bench.profile import decode_floor, grid_profile, sdpa_seconds
from harness.bench.subject import bytes_read, prefilled
from harness.bench.write import table, write

BUDGETS = [64, 128, 256, 512, 1024]


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096], help="lengths (default: 1024 4096)")
    parser.add_argument("--heads", default="kv_head", help="granularity (default: kv_head)")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    torch.set_num_threads(1)
    subject = make_subject(
        "width-512",
        WIDTH_512,
        "cpu",
        options.heads,
        BUDGETS[:2] if options.quick else BUDGETS,
        8 if options.quick else 64,
    )
    engine = subject.engine()
    lengths = [160] if options.quick else options.tokens
    grid_profile(subject, engine, 64, subject.variants[:1])  # first calls are slower
    columns: dict[str, dict[str, float]] = {}
    notes, plain = [], {}
    for tokens in lengths:
        columns[f"{tokens} after s"] = grid_profile(subject, engine, tokens, subject.variants)
        before: Counter[str] = Counter()
        for label in dict.fromkeys(variant.cell.label for variant in subject.variants):
            cells = [variant for variant in subject.variants if variant.cell.label == label]
            for part, seconds in grid_profile(subject, engine, tokens, [cells[len(cells) // 2]]).items():
                before[part] += len(cells) * seconds
        columns[f"{tokens} before s"] = dict(before)
        rows = list(
            {
                id(row): row for row in prefilled(subject, engine, subject.prompt(tokens), subject.variants).values()
            }.values()
        )
        floor = decode_floor(subject, engine, bytes_read(rows), len(rows))
        stock = plain[str(tokens)] = sdpa_seconds(subject, engine, tokens)
        whole = sum(columns[f"{tokens} after s"].values())
        bound = stock + max(floor.values())
        notes.append(
            f"{tokens} tokens: floor {bound:.3g} s, of which {stock:.3g} s is a plain SDPA prefill "
            f"and decoding {len(rows)} rows takes {floor['products']:.3g} s for products or "
            f"{floor['reading']:.3g} s for reading; the grid takes {whole:.3g} s, "
            f"{whole / bound:.2f} times the floor."
        )
        print(notes[-1], flush=True)
    parts = sorted({part for column in columns.values() for part in column}, reverse=True)
    table_rows = [{"part": part, **{name: column.get(part, 0.0) for name, column in columns.items()}} for part in parts]
    table_rows.append({"part": "all", **{name: sum(column.values()) for name, column in columns.items()}})
    print("\n".join(table(table_rows)))
    title = "Where the time of a grid of 21 cells goes: 8 layers of width 512, float32"
    for path in write(out, "profile", title, machine(), table_rows, {**columns, "sdpa": plain}, notes):
        print(path)


if __name__ == "__main__":
    main()
