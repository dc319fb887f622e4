"""What each method costs by itself, as ``kvgauge bench`` measured it.

That is ``bench/<model>/methods.json`` in a results folder. A run cannot tell: one prefill serves all of its methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from harness.errors import StoreError
from harness.store.files import Unfit, failed, read_json


class _Measured(Struct):
    """One line of the file; see ``harness.bench.methods.MethodCost``."""

    cell: str
    tokens: int
    overhead: tuple[float, ...]


class _File(Struct):
    command: str
    machine: dict[str, str | int]
    raw: tuple[_Measured, ...]


@dataclass(frozen=True)
class MethodCosts:
    """What methods add to a prefill, alone.

    Attributes:
        tokens: length of the prompt.
        rounds: number of measurements of each method.
        device: what they were made on.
        clock: what was measured.
        overhead: by method, its prefill's seconds divided by those of the full cache in the same round, minus 1: the
            median, the least and the most.
    """

    tokens: int
    rounds: int
    device: str
    clock: str
    overhead: Mapping[str, tuple[float, float, float]]


def read_costs(results: Path, model: str) -> MethodCosts | None:
    """The costs of a model's methods at the longest prompt that was measured; None if none was.

    Args:
        results: the results folder.
        model: the model's name.

    Raises:
        StoreError: the file is there and cannot be read.
    """
    path = results / "bench" / model / "methods.json"
    if not path.exists():
        return None
    try:
        read = msgspec.convert(read_json(path), _File)
        longest = max(line.tokens for line in read.raw)
        lines = [line for line in read.raw if line.tokens == longest and line.overhead]
        rounds = min(len(line.overhead) for line in lines)
    except OSError as error:
        raise failed(path, "read", error) from error
    except (ValueError, TypeError, RecursionError, Unfit) as error:
        raise StoreError(
            f"{path} is not what kvgauge bench writes: delete it, and measure again with kvgauge bench --parts methods"
        ) from error
    return MethodCosts(
        longest,
        rounds,
        str(read.machine.get("device", "")),
        str(read.machine.get("clock", "")),
        # A cell is called by its method and, behind the last hyphen, its budget.
        {
            line.cell.rpartition("-")[0]: (median(line.overhead), min(line.overhead), max(line.overhead))
            for line in lines
        },
    )
