"""What records alone tell of allocations that had to see the prompt: form, range, total and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from msgspec import structs

import kvgauge as package
from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.budget import parse_budget
from harness.compression.grid import Variant
from harness.compression.method import Method
from harness.compression.scorers import WindowAttention
from harness.errors import ConfigError
from harness.results import Cell, Record
from harness.run.verify_records import _is_planned


@dataclass(frozen=True)
class Rising(Allocation):
    """More for later heads of each layer."""

    sees_what: Literal["layer", "layers"]

    @property
    def sees(self) -> Any:
        return self.sees_what

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Sequence[int]]:
        heads = len(seen[0].scores)
        return [[budget + 2 * head + 1 - heads for head in range(heads)] for _ in seen]


@dataclass(frozen=True)
class Own(Method):
    """SnapKV's scores."""

    sees: Literal["layer", "layers"]

    @property
    def scorer(self) -> WindowAttention:
        return WindowAttention(8, 7, "maxpool")

    @property
    def allocation(self) -> Rising:
        return Rising(self.sees)


@dataclass(frozen=True)
class ByKvHead(Allocation):
    """Numbers for two kv heads of four query heads in all, as a file would have them."""

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Sequence[int]]:
        if (shape.kv_heads, shape.heads) != (2, 4):
            raise ConfigError("the file is of a model with other heads")
        copies = shape.cache_heads // shape.kv_heads
        return [[budget - 1] * copies + [budget + 1] * copies] * shape.layers


@dataclass(frozen=True)
class OfFile(Own):
    """Budgets per kv head that need nothing of the prompt."""

    @property
    def allocation(self) -> Any:
        return ByKvHead()


VARIANT = Variant(Cell("own", "32"), Own("own", "layer"), parse_budget(32))
HONEST = Record(
    "e", {}, (), {}, 100, None, kept=((29, 31, 33, 35), 32, (20, 20, 40, 48)), retention=0.32, retention_bytes=0.64
)


def test_what_was_kept_holds() -> None:
    assert _is_planned(HONEST, VARIANT)


@pytest.mark.parametrize("sees", ["layer", "layers"])
@pytest.mark.parametrize("granularity", ["query_head", "kv_head"])
def test_what_a_run_kept_holds(sees: Literal["layer", "layers"], granularity: str) -> None:
    settings = {"task.lengths": [300], "task.depths": [50], "selection.granularity": granularity}
    made = package.run("tiny", "needle", [Own("own", sees)], 32, settings=settings)
    (record,) = made.records()
    assert record["error"] is None and isinstance(record["kept"][0], list)
    fields = {name: record[name] for name in ("prompt_tokens", "retention", "retention_bytes")}
    kept = tuple(tuple(counts) for counts in record["kept"])
    assert _is_planned(structs.replace(HONEST, kept=kept, **fields), VARIANT)


@pytest.mark.parametrize(
    "changes",
    [
        {"kept": ((29, 31, 33, 35), 32, (20, 40))},
        {"kept": ((29, 31, 33, 35), (32, 32, 32, 32), (20, 20, 40, 48))},
        {"kept": ((7, 53, 33, 35), 32, (20, 20, 40, 48))},
        {"kept": ((8, 8, 8, 101), 32, (20, 20, 40, 48))},
        {"kept": ((30, 32, 34, 36), 33, (20, 20, 40, 52)), "retention": 0.33, "retention_bytes": 0.66},
        {"kept": ((29, 31, 33, 36), 32, (20, 20, 40, 48))},
        {"retention": 0.31},
        {"retention_bytes": 0.7},
        {"retention_bytes": 0.01},
    ],
)  # fmt: skip
def test_what_no_allocation_can_have_kept_is_found(changes: dict[str, Any]) -> None:
    assert not _is_planned(structs.replace(HONEST, **changes), VARIANT)


@pytest.mark.parametrize("kept", [(31, 33), (31, 31, 33, 33)])
def test_numbers_by_kv_head_hold_whichever_heads_are_stored_and_no_others_do(kept: tuple[int, ...]) -> None:
    variant = Variant(Cell("own", "32"), OfFile("own", "layer"), parse_budget(32))
    record = structs.replace(HONEST, kept=(kept, kept))
    assert _is_planned(record, variant)
    assert not _is_planned(structs.replace(record, kept=(kept, kept[::-1])), variant)
