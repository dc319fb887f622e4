"""The seconds that are saved when prompts join while others still decode, against one batch after the other.

    python benchmarks/refill.py            the embedded model, 48 prompts whose answers have 1 to 48 tokens, five cells
    python benchmarks/refill.py --quick    a few prompts, to see that it works

Prompts are random token ids, and every sixteenth id ends an answer, so that answers end at random. Rounds are paired in
one process; times are CPU time of one thread. Both ways must generate the same tokens.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from outputs import add_out, out_folder  # noqa: E402

from harness.bench.clock import machine, seconds  # noqa: E402
from harness.bench.setup import subject_of  # noqa: E402
from harness.bench.subject import Subject  # noqa: E402
from harness.bench.write import table, write  # noqa: E402
from harness.engine import engine as engine_module  # noqa: E402
from harness.engine.decode import Decoding  # noqa: E402
from harness.engine.engine import Engine  # noqa: E402
from harness.engine.prompt import Prompt  # noqa: E402
from harness.engine.request import Request  # noqa: E402
from harness.engine.rows import Limits  # noqa: E402
from harness.engine.scheduler import Finished, Scheduler  # noqa: E402
from harness.engine.settings import EngineSettings  # noqa: E402
from harness.results import Cell  # noqa: E402
from harness.task import Example  # noqa: E402

GRID = ("method=[fullkv,h2o,snapkv]", "budget=[32,64]", f"model.path={ROOT}/models/tiny")
NEW_TOKENS, STOPS = 48, tuple(range(5, 1000, 16))


@dataclass
class Steps:
    """Seconds, decoding steps, and rows summed over these steps."""

    seconds: float = 0.0
    taken: int = 0
    rows: int = 0


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few prompts, one width, one round")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over them (default: 3)")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    torch.set_num_threads(1)
    subject = subject_of(GRID, NEW_TOKENS)
    engine, requests = subject.engine(), requests_of(subject, 12 if options.quick else 48)
    rows, raw = [], []
    for width in (16,) if options.quick else (64, 16):
        rounds = [paired(subject, engine, requests, width) for _ in range(1 if options.quick else options.rounds)]
        rows.append(row(width, len(requests), rounds))
        raw.append({"width": width, "rounds": [[vars(steps) for steps in pair] for pair in rounds]})
        print("\n".join(table([rows[-1]])), flush=True)
    notes = [
        "Seconds are medians of the whole of `Scheduler.run`, prefills included; "
        "the ratio is the median of the rounds' own.",
        "Without: `Scheduler.run` on as many prompts as have `width` rows together, "
        "and on the next ones when all of these have ended.",
    ]
    title = (
        f"Prompts taken while others decode: embedded model, {len(subject.variants)} cells, "
        f"answers of 1 to {NEW_TOKENS} tokens"
    )
    for path in write(out, "refill", title, machine(), rows, raw, notes):
        print(path)


def row(width: int, prompts: int, rounds: Sequence[tuple[Steps, Steps]]) -> dict[str, Any]:
    """A line of the table: without refilling, with it, and how many times faster it is."""
    (without, refilled) = rounds[0]
    return {
        "engine.width": width,
        "prompts": prompts,
        "steps without": without.taken,
        "with": refilled.taken,
        "rows per step without": without.rows / without.taken,
        "rows with": refilled.rows / refilled.taken,
        "s without": statistics.median(pair[0].seconds for pair in rounds),
        "s with": statistics.median(pair[1].seconds for pair in rounds),
        "times": statistics.median(pair[0].seconds / pair[1].seconds for pair in rounds),
    }


def requests_of(subject: Subject, count: int) -> list[Request]:
    """Requests with random prompts of 96 to 191 tokens."""
    requests = []
    for number in range(count):
        ids = np.array(subject.prompt(96 + number * 53 % 96, number), dtype="<i4")
        requests.append(
            Request(Prompt(Example(id=str(number), prompt=()), ids, "", (), False, len(ids)), subject.variants, {})
        )
    return requests


def paired(subject: Subject, engine: Engine, requests: Sequence[Request], width: int) -> tuple[Steps, Steps]:
    """Measure both ways, one after the other."""
    each = max(1, width // len(subject.variants))
    batches = [requests[start : start + each] for start in range(0, len(requests), each)]

    def without(scheduler: Scheduler) -> Iterator[list[Finished]]:
        for batch in batches:
            yield from scheduler.run(batch, lambda: True)

    apart, one = measured(subject, engine, width, without)
    together, other = measured(subject, engine, width, lambda scheduler: scheduler.run(requests, lambda: True))
    if apart != together:
        raise SystemExit("generated tokens differ: report this as a bug")
    return one, other


def measured(
    subject: Subject, engine: Engine, width: int, way: Callable[[Scheduler], Iterator[list[Finished]]]
) -> tuple[dict[tuple[str, Cell], tuple[int, ...]], Steps]:
    """Generated tokens by example and cell, and what they took."""
    steps = Steps()

    class Counted(Decoding):
        def step(self) -> None:
            steps.taken += 1
            steps.rows += self.alive
            super().step()

    settings = EngineSettings(width, False, None, False, None, 0.0, "torch", "auto")
    limits, cells = Limits(frozenset(STOPS), NEW_TOKENS), [variant.cell for variant in subject.variants]
    scheduler = Scheduler(engine, limits, cells, subject.selection, settings, lambda _: None)
    before, engine_module.Decoding = engine_module.Decoding, Counted  # type: ignore[misc]
    start = seconds()
    try:
        finished = [one for prompts in way(scheduler) for one in prompts]
    finally:
        engine_module.Decoding = before  # type: ignore[misc]
    steps.seconds = seconds() - start
    return {
        (request.prompt.example.id, cell): outcome.generated.tokens
        for request, outcomes in finished
        for cell, outcome in outcomes.items()
    }, steps


if __name__ == "__main__":
    main()
