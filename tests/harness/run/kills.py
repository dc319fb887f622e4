"""What kills at random moments cost: ``python -m tests.harness.run.kills [KILLS [TOKENS]]`` prints it as a table."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, partialmethod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.run.meter import Meter
from tests.harness.folders import cells, records
from tests.harness.run.test_faults import in_child

NEEDLE = ("method=published", "budget=[32,64]", "task.lengths=[300,450,600]", "task.depths=[0,25,50,75,100]")

_EVENTS = ("prefilled", "decoded", "advance")
"""What a run tells of its work, after a prefill, a step and a write."""
_STEPS = 120
"""The most of these before a kill, so that most runs are killed in one of their first batches, and some later."""


@dataclass(frozen=True)
class Kill:
    """A run that was killed.

    Attributes:
        begun: number of prompts that it had prefilled.
        lost: tokens of each of these that it had not written, so that the next run prefills them again.
    """

    begun: int
    lost: tuple[int, ...]


def kill(words: Sequence[str], results: Path, times: int) -> list[Kill]:
    """Start a needle run again and again, and kill it after some random step; one that ends begins anew.

    Args:
        words: words of the command line, without ``results_dir=``.
        results: the results folder, emptied whenever the run has ended.
        times: how many times.
    """
    draw, kills, begun = random.Random(19), list[Kill](), results.with_name("begun")
    while len(kills) < times:
        begun.write_text("")

        def prepare() -> None:
            steps, real = iter(range(draw.randint(1, _STEPS))), {name: getattr(Meter, name) for name in _EVENTS}

            def counted(name: str, self: Meter, *what: Any) -> None:
                if name == "prefilled":
                    with begun.open("a") as file:
                        file.write(f"{what[0].prompt.example.id} {len(what[0].prompt.ids)}\n")
                if next(steps, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                real[name](self, *what)

            for name in _EVENTS:
                setattr(Meter, name, partialmethod(partial(counted, name)))

        code, _ = in_child(prepare, [*words, f"results_dir={results}"])
        draw.random()
        if code == 0:
            shutil.rmtree(results)
            continue
        assert code == -signal.SIGKILL, code
        written = [{of["example_id"] for of in records(cell)} for cell in cells(results, "needle").values()]
        saved = set.intersection(*written)
        prompts = [line.split() for line in begun.read_text().splitlines()]
        kills.append(Kill(len(prompts), tuple(int(tokens) for name, tokens in prompts if name not in saved)))
    return kills


def table(kills: Sequence[Kill], most: int) -> str:
    """The kills as a table in Markdown, under the most tokens that the setting allows."""
    rows = [
        f"| {number} | {kill.begun} | {len(kill.lost)} | {sum(kill.lost):,} |" for number, kill in enumerate(kills, 1)
    ]
    head = ["| kill | prompts begun | prompts lost | tokens lost |", "|--:|--:|--:|--:|"]
    return "\n".join([f"engine.unsaved_tokens={most}", "", *head, *rows])


if __name__ == "__main__":
    times, most = (*map(int, sys.argv[1:]), *(10, 600)[len(sys.argv) - 1 :])
    with TemporaryDirectory() as folder:
        print(table(kill([*NEEDLE, f"engine.unsaved_tokens={most}"], Path(folder) / "results", times), most))
