"""The cost of decoding steps that evict, against steps that do not, and whether it grows with the answer.

    taskset -c 0 python benchmarks/evicting.py

Rows of one prompt decode together on the width-512 model. First, each method that evicts while decoding beside H2O's
cut of the prompt alone, at the same budget, in alternating rounds. Then one long answer of a few rows: CPU time per
step just before so many new tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

import torch
from outputs import add_out, out_folder
from shapes import ON_CPU, WIDTH_512, load

from harness.bench.clock import machine, seconds
from harness.bench.setup import grid_of
from harness.bench.subject import Subject, prefilled
from harness.bench.write import table, write
from harness.engine.decode import Decoding
from harness.engine.engine import Engine
from harness.engine.rows import Limits, Row

METHODS = ("h2o_decode", "tova_decode", "streaming_llm_decode", "scissorhands_decode", "r_kv", "decoding")


def rows_of(subject: Subject, engine: Engine, prompt: Sequence[int]) -> dict[str, Row]:
    """What each method keeps of the prompt."""
    return {cell.label: row for cell, row in prefilled(subject, engine, prompt, subject.variants).items()}


def begun(engine: Engine, row: Row, rows: int, new_tokens: int) -> Decoding:
    """Copies of a row that have joined."""
    decoding = engine.decoding(Limits(frozenset(), new_tokens))
    decoding.add([Row(row.prompt_tokens, row.logits, list(row.layers)) for _ in range(rows)])
    return decoding


def step_seconds(make: Callable[[], Decoding], steps: int) -> float:
    """Seconds of a step, after two others."""
    decoding = make()
    for _ in range(2):
        decoding.step()
    start = seconds()
    for _ in range(steps):
        decoding.step()
    return (seconds() - start) / steps


def measured_steps(
    engine: Engine, kept: Mapping[str, Row], rows: int, steps: int, rounds: int
) -> tuple[list[dict[str, object]], dict[str, list[tuple[float, float]]]]:
    """Lines of a table, and the seconds behind it, of each method beside H2O's cut of the prompt."""
    make = {name: partial(begun, engine, row, rows, steps + 4) for name, row in kept.items()}
    lines: list[dict[str, object]] = []
    raw = {}
    for name in METHODS:
        pairs = [(step_seconds(make["h2o"], steps), step_seconds(make[name], steps)) for _ in range(rounds)]
        raw[name] = pairs
        lines.append(
            {
                "method": name,
                "step without eviction, ms": 1000 * median(one for one, _ in pairs),
                "step with it, ms": 1000 * median(other for _, other in pairs),
                "times": median(other / one for one, other in pairs),
            }
        )
    return lines, raw


def long_answer(decoding: Decoding, ends: Sequence[int], measured: int) -> list[float]:
    """Seconds of a step, as the median over the last ones before each number of new tokens."""
    found, times = [], []
    for step in range(1, ends[-1] + 1):
        start = seconds()
        decoding.step()
        times.append(seconds() - start)
        if step in ends:
            found.append(median(times[-measured:]))
    return found


def main() -> None:
    """Run the benchmark, print its tables and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps")
    parser.add_argument("--rows", type=int, default=21, help="rows that decode together (default: 21)")
    parser.add_argument("--budget", type=int, default=256, help="entries per head (default: 256)")
    parser.add_argument("--tokens", type=int, default=512, help="length of the prompt (default: 512)")
    parser.add_argument("--rounds", type=int, default=5, help="medians are over them (default: 5)")
    parser.add_argument("--granularity", default="query_head", help="selection.granularity (default: query_head)")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=["steps", "long"],
        default=["steps", "long"],
        help="what to measure",
    )
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    torch.set_num_threads(1)
    steps, ends = (4, (8, 16)) if options.quick else (32, (256, 1024, 4096))
    names = ["h2o", *METHODS]
    overrides = [
        f"method=[{','.join(names)}]",
        f"budget={options.budget}",
        f"selection.granularity={options.granularity}",
        # So that steps that evict are among those measured.
        "method.decoding.evict_every=16",
        "method.r_kv.evict_every=16",
        "method.decoding.prompt_share=0.5",
    ]
    variants, selection = grid_of(overrides)
    on_cpu = partial(load, WIDTH_512, "cpu")
    subject = Subject("width-512", on_cpu, WIDTH_512, variants, selection, ends[-1] + 2, ON_CPU)
    engine = subject.engine()
    kept = rows_of(subject, engine, subject.prompt(options.tokens))
    if "steps" in options.parts:
        lines, raw = measured_steps(engine, kept, options.rows, steps, options.rounds)
        print("\n".join(table(lines)))
        title = f"Steps that evict: {options.rows} rows, {options.budget} entries per head, {options.granularity}"
        write(out, f"evicting_{options.granularity}", title, machine(), lines, raw)
    if "long" in options.parts:
        answers = []
        for name in ("h2o", "h2o_decode", "tova_decode", "streaming_llm_decode"):
            found = long_answer(begun(engine, kept[name], 2, ends[-1] + 2), ends, min(64, ends[0]))
            answers.append(
                {"method": name if name != "h2o" else "h2o, no eviction"}
                | {f"ms at {end} new tokens": 1000 * one for end, one in zip(ends, found, strict=True)}
                | {"last / first": found[-1] / found[0]}
            )
        print("\n".join(table(answers)))
        title = f"Steps of one long answer: 2 rows, {options.budget} entries per head, {options.granularity}"
        write(out, f"evicting_long_{options.granularity}", title, machine(), answers, answers)


if __name__ == "__main__":
    main()
