"""The cost of each thing that a grid can do beyond the plain path, as a ratio to the plain path.

    taskset -c 0 python benchmarks/features.py
    python benchmarks/features.py --quick    a few seconds, to see that it works

Every feature is an entry of ``FEATURES``: the words of a run with it, and those of the plain run that it is held
against. Both have as many cells and run in turn on the width-512 model, kv heads, through the scheduler: one prompt,
its prefill and all rows together. Times are CPU time of one thread; ratios are within a round.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from outputs import add_out, out_folder
from questions import requests_of, run
from shapes import ON_CPU, WIDTH_512, load

from harness.bench.clock import machine
from harness.bench.setup import grid_of
from harness.bench.subject import Subject
from harness.bench.write import table, write
from harness.engine.engine import Engine

BUDGETS = "budget=[64,128,256,512]"
SNAPKV = ("method=snapkv",)
QUESTION_TOKENS = 32


@dataclass(frozen=True)
class Feature:
    """What a run can do, and the plain run beside it.

    Attributes:
        name: what it is.
        words: of a run with it.
        plain: of the run without it.
    """

    name: str
    words: tuple[str, ...]
    plain: tuple[str, ...] = SNAPKV


FEATURES = (
    Feature("heads that keep different numbers: AdaKV", ("method=adakv",)),
    Feature("an allocation that sees all layers: CAKE", ("method=cake",)),
    Feature("questions that come after compression", (*SNAPKV, "selection.after=context")),
    Feature("eviction while decoding: TOVA", ("method=tova_decode",), ("method=tova",)),
    Feature("entries of 4 bits: KIVI", (*SNAPKV, "storage=kivi4")),
)


def cost(feature: Feature, engine: Engine, tokens: int, new_tokens: int, rounds: int) -> dict[str, Any]:
    """Measure a feature and its plain run in alternating rounds: a line of the table, with all times."""
    times: dict[str, list[float]] = {"plain": [], "with": []}
    for _ in range(rounds):
        for name, words in (("plain", feature.plain), ("with", feature.words)):
            grid = grid_of([*words, BUDGETS, "selection.granularity=kv_head"])
            subject = Subject("width-512", partial(load, WIDTH_512, "cpu"), WIDTH_512, *grid, new_tokens, ON_CPU)
            requests = requests_of(subject, tokens - QUESTION_TOKENS, 1, QUESTION_TOKENS)
            times[name].append(run(subject, engine, requests)[2])
    ratios = [one / plain for one, plain in zip(times["with"], times["plain"], strict=True)]
    return {
        "feature": feature.name,
        "words": " ".join(feature.words),
        "plain": " ".join(feature.plain),
        "plain s": median(times["plain"]),
        "s": median(times["with"]),
        "times plain": median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short prompt, one round")
    parser.add_argument("--tokens", type=int, default=2048, help="length of the prompt (default: 2048)")
    parser.add_argument("--new-tokens", type=int, default=64, help="of each row (default: 64)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over them (default: 3)")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    if options.quick:
        options.tokens, options.new_tokens, options.rounds = 200, 3, 1
    torch.set_num_threads(1)
    engine = Engine(load(WIDTH_512, "cpu", ON_CPU), "width-512", ON_CPU)
    rows = []
    for feature in FEATURES:
        rows.append(cost(feature, engine, options.tokens, options.new_tokens, options.rounds))
        print("\n".join(table(rows[-1:])), flush=True)
    title = f"Features against the plain path: 8 layers of width 512, {options.tokens} tokens, {options.new_tokens} new"
    for path in write(out, "features", title, machine(), rows, rows):
        print(path)


if __name__ == "__main__":
    main()
