"""What is to be computed, prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.compression.grid import Variant
from harness.engine.prefix import prefix_order
from harness.engine.prompt import Prompt
from harness.results import Cell, Record


@dataclass(frozen=True)
class Job:
    """What is still to do for one prompt.

    Attributes:
        prompt: the prompt.
        missing: variants without a record, in the order of the grid.
        done: records that other cells of the grid have of this prompt, by cell.
        held: lengths of those of its beginnings that later jobs go on from, ascending.
    """

    prompt: Prompt
    missing: tuple[Variant, ...]
    done: Mapping[Cell, Record]
    held: tuple[int, ...] = ()


def by_prefix(jobs: Sequence[Job]) -> list[Job]:
    """Jobs in the order in which what their prompts begin with is prefilled once, each with what is held for later ones."""
    return [replace(jobs[place], held=held) for place, held in prefix_order([job.prompt.ids for job in jobs])]
