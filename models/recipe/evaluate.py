"""The evaluation of the model with the full cache, by ordinary runs of kvgauge.

Their words, numbers and texts are not those of the training.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEED = 1000
_LENGTHS = "task.lengths=[250,500,1000,1500,2000]"
_DEPTHS = "task.depths=[{count:11}]"


@dataclass(frozen=True)
class Trial:
    """One line of the card's table.

    Attributes:
        name: what is asked for.
        words: overrides of the command line.
    """

    name: str
    words: tuple[str, ...]


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
    # A number takes 8 tokens; later tokens do not count.
    number = ("task.max_new_tokens=16", _DEPTHS)
    magic, many = ("task=needle_magic", *number), ("task=needle_many", *number)
    sentence = ("task=needle", "task.lengths=[{from:400,to:2000,step:80}]", _DEPTHS, "task.show=contains_answer")
    found = [
        Trial("magic number, built-in prose", (*magic, _LENGTHS, "task.samples=4")),
        Trial(
            "the same, one of four",
            (*many, "task.distractors=3", "task.lengths=[500,1000,1500,2000]", "task.samples=5"),
        ),
        Trial("the same, one of 21", (*many, "task.lengths=[1000,1500,2000]", "task.samples=7")),
        Trial("needle sentence, built-in prose", sentence),
    ]
    if essays is not None:
        hay = f'task.haystack="{essays}"'
        found += [
            Trial("magic number, essays", (*magic, _LENGTHS, "task.samples=4", hay)),
            Trial("needle sentence, essays", (*sentence, hay)),
        ]
    longer = Trial("magic number, longer than it is for", (*magic, "task.lengths=[3000,3900]"))
    return [*found, Trial("in-context labels", ("task=labels",)), longer]


def evaluate(model: Path, trial: Trial) -> Outcome:
    """Run one trial with the full cache.

    Raises:
        CalledProcessError: the run failed, after it printed its error.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = (
            *trial.words,
            "method=fullkv",
            "budget=full",
            f'model.path="{model}"',
            f"seed={SEED}",
            f'results_dir="{folder}"',
        )
        subprocess.run([sys.executable, str(ROOT / "run.py"), *words], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        (manifest,) = Path(folder).rglob("fullkv-full/manifest.json")
        metric = json.loads(manifest.read_text())["metrics"][0]
        records = [
            json.loads(line)
            for path in manifest.parent.glob("records.*.jsonl")
            for line in path.read_text().splitlines()
        ]
    values: dict[int | None, list[float]] = {}
    for record in records:
        values.setdefault(record["group"].get("length") if "depth" in record["group"] else None, []).append(
            100 * record["scores"][metric["name"]] / metric["maximum"]
        )
    everything = [value for part in values.values() for value in part]
    by_length = {length: (sum(part) / len(part), len(part)) for length, part in values.items() if length is not None}
    return Outcome(trial, sum(everything) / len(everything), len(everything), by_length)
