"""What the model can do with the full cache: ordinary runs on words, numbers and texts it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kvgauge

SEED = 1000
_LENGTHS = [250, 500, 1000, 1500, 2000]
_DEPTHS = [{"count": 11}]


@dataclass(frozen=True)
class Trial:
    """One line of the card's table.

    Attributes:
        name: what is asked.
        task: the task's name.
        settings: of the task, by the command line's names.
    """

    name: str
    task: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> tuple[str, ...]:
        """The same for the command line."""
        values = (f"{knob}={str(value).replace(' ', '').replace(chr(39), '')}" for knob, value in self.settings.items())
        return (f"task={self.task}", *values)


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

    Attributes:
        trial: the trial.
        mean: mean of the headline metric, 0-100.
        count: number of examples.
        by_length: (mean, number of examples) for each context length; empty if the trial has no lengths.
    """

    trial: Trial
    mean: float
    count: int
    by_length: dict[int, tuple[float, int]]


def trials(essays: Path | None) -> list[Trial]:
    """The trials, in the order of the card's table.

    Args:
        essays: a folder of real essays to hide needles in; None leaves out the trials with essays.
    """
    # A number takes 8 tokens; what follows it does not count.
    number: dict[str, Any] = {"task.max_new_tokens": 16, "task.depths": _DEPTHS}
    magic: dict[str, Any] = {**number, "task.lengths": _LENGTHS, "task.samples": 4}
    four: dict[str, Any] = {**number, "task.distractors": 3, "task.lengths": [500, 1000, 1500, 2000]}
    sentence: dict[str, Any] = {
        "task.lengths": [{"from": 400, "to": 2000, "step": 80}],
        "task.depths": _DEPTHS,
        "task.show": "contains_answer",
    }
    every = [
        Trial("magic number, built-in prose", "needle_magic", magic),
        Trial("the same, one of four", "needle_many", {**four, "task.samples": 5}),
        Trial("the same, one of 21", "needle_many", {**number, "task.lengths": [1000, 1500, 2000], "task.samples": 7}),
        Trial("needle sentence, built-in prose", "needle", sentence),
    ]
    if essays is not None:
        haystack = {"task.haystack": str(essays)}
        every += [
            Trial("magic number, essays", "needle_magic", {**magic, **haystack}),
            Trial("needle sentence, essays", "needle", {**sentence, **haystack}),
        ]
    longer = Trial("magic number, longer than it is for", "needle_magic", {**number, "task.lengths": [3000, 3900]})
    return [*every, Trial("in-context labels", "labels"), longer]


def evaluate(model: Path, trial: Trial) -> Outcome:
    """Run one trial with the full cache.

    Raises:
        KvgaugeError: the run failed.
    """
    result = kvgauge.run(
        model="tiny",
        task=trial.task,
        methods="fullkv",
        budgets="full",
        settings={"model.path": str(model), "seed": SEED, **trial.settings},
    )
    (grid,) = result.grids
    metric, records = grid.result.metrics[0], result.records()
    values: dict[int | None, list[float]] = {}
    for record in records:
        values.setdefault(record["group"].get("length") if "depth" in record["group"] else None, []).append(
            100 * record["scores"][metric.name] / metric.maximum
        )
    everything = [value for part in values.values() for value in part]
    by_length = {length: (sum(part) / len(part), len(part)) for length, part in values.items() if length is not None}
    return Outcome(trial, sum(everything) / len(everything), len(everything), by_length)
