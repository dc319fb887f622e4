"""The cost of many questions on one context that is compressed before they are seen, against as many whole prompts.

    python benchmarks/questions.py            the embedded model, a context of 4096 tokens, 8 questions of 32 tokens
    python benchmarks/questions.py --quick    a short context and two questions, to see that it works

Five methods at five budgets (21 cells, as the full cache has one). Context and questions are random token ids.
Together, the context is prefilled once and its kept entries serve all questions; apart, each question is a prompt with
a context of its own. Rounds are paired in one process; times are CPU time of one thread. Both must generate the same
tokens. What the rows' copies of kept entries cost, which each takes when it joins, is timed by itself.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from harness.engine.cache import KVCache  # noqa: E402
from harness.engine.engine import Engine  # noqa: E402
from harness.engine.prompt import Prompt  # noqa: E402
from harness.engine.request import Request, by_context  # noqa: E402
from harness.engine.scheduler import Scheduler  # noqa: E402
from harness.engine.settings import EngineSettings  # noqa: E402
from harness.results import Cell  # noqa: E402
from harness.task import Example  # noqa: E402

GRID = ("method=published", "budget=[64,128,256,512,1024]", f"model.path={ROOT}/models/tiny")
SELECTION = ("selection.after=context", "selection.granularity=kv_head")
NEW_TOKENS = 16
Found = dict[tuple[str, Cell], tuple[int, ...]]


def main() -> None:
    """Run the benchmark, print its table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short context, two questions, one round")
    parser.add_argument("--tokens", type=int, default=4096, help="length of the context (default: 4096)")
    parser.add_argument("--questions", type=int, default=8, help="number of questions (default: 8)")
    parser.add_argument("--question-tokens", type=int, default=32, help="length of each question (default: 32)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over them (default: 3)")
    add_out(parser)
    options = parser.parse_args()
    out = out_folder(options)
    tokens, count, rounds = options.tokens, options.questions, options.rounds
    if options.quick:
        tokens, count, rounds = 1200, 2, 1
    torch.set_num_threads(1)
    subject = subject_of((*GRID, *SELECTION), NEW_TOKENS)
    engine, requests = subject.engine(), requests_of(subject, tokens, count, options.question_tokens)
    measured = [paired(subject, engine, requests) for _ in range(rounds)]
    row = {**measured[0], **{name: median(measured, name) for name in ("s copying", "s together", "s apart")}}
    row["times"] = statistics.median(one["s apart"] / one["s together"] for one in measured)
    notes = [
        "Prefilled: the tokens of contexts that went through the model once for all cells. Of questions: the tokens "
        "that ran through compressed caches, of all rows together. Copying: the part of s together in which the rows "
        "of all questions take a copy of what was kept.",
        f"Seconds are medians of {rounds} rounds of the whole of `Scheduler.run`, {NEW_TOKENS} new tokens per row "
        "included; times is the median of the rounds' own ratios.",
    ]
    title = (
        f"{count} questions of {options.question_tokens} tokens on one context of {tokens}: embedded model, "
        f"{len(subject.variants)} cells"
    )
    print("\n".join(table([row])))
    for path in write(out, "questions", title, machine(), [row], measured, notes):
        print(path)


def median(measured: Sequence[dict[str, Any]], name: str) -> float:
    """The median of a number over rounds."""
    return statistics.median(one[name] for one in measured)


def requests_of(subject: Subject, tokens: int, count: int, question_tokens: int) -> list[Request]:
    """Requests with one random context and random questions."""
    draw = np.random.default_rng(0)
    context = draw.integers(5, subject.config.vocab_size, tokens)
    requests = []
    for number in range(count):
        question = draw.integers(5, subject.config.vocab_size, question_tokens)
        ids = np.concatenate([context, question]).astype("<i4")
        requests.append(
            Request(Prompt(Example(id=str(number), prompt=()), ids, "", (), False, tokens), subject.variants, {})
        )
    return requests


def paired(subject: Subject, engine: Engine, requests: Sequence[Request]) -> dict[str, Any]:
    """Measure both ways, one after the other."""
    with copying() as copied:
        together, one, in_one = run(subject, engine, by_context(requests))
    apart, other, in_other = run(subject, engine, requests)
    if apart != together:
        raise SystemExit("generated tokens differ: report this as a bug")
    return {
        "questions": len(requests),
        "rows": one.decoded,
        "prefilled together": one.prefiller.prefilled_tokens,
        "prefilled apart": other.prefiller.prefilled_tokens,
        "of questions": one.asked,
        "s copying": copied[0],
        "s together": in_one,
        "s apart": in_other,
    }


@contextmanager
def copying() -> Iterator[list[float]]:
    """Seconds in which rows that join take their entries over, while the context is open."""
    taken, add = [0.0], KVCache.add

    def timed(cache: KVCache, *values: Any, **named: Any) -> None:
        start = seconds()
        add(cache, *values, **named)
        taken[0] += seconds() - start

    KVCache.add = timed  # type: ignore[method-assign]
    try:
        yield taken
    finally:
        KVCache.add = add  # type: ignore[method-assign]


def run(subject: Subject, engine: Engine, requests: Sequence[Request]) -> tuple[Found, Scheduler, float]:
    """Generated tokens by example and cell, what counted the work, and its seconds."""
    settings = EngineSettings(64, False, None, False, None, 0.0, "torch", "auto")
    limits, cells = subject.limits, [variant.cell for variant in subject.variants]
    scheduler = Scheduler(engine, limits, cells, subject.selection, settings, lambda _: None)
    start = seconds()
    finished = [one for prompts in scheduler.run(requests, lambda: True) for one in prompts]
    taken = seconds() - start
    tokens = {
        (request.prompt.example.id, cell): outcome.generated.tokens
        for request, outcomes in finished
        for cell, outcome in outcomes.items()
    }
    return tokens, scheduler, taken


if __name__ == "__main__":
    main()
